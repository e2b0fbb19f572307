"""One service at both homes: worldclock on a real engine and on the emulated AWS, promoted there and back under load.

The plain verbs alone; the bytes are compared in the engine's store and by what Lambda says it runs.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.aws.emulated import EmulatedAws
from tests.aws.release_support import HITLESS, REGION, Client, Ran, Worldclock
from tests.support import eventually

pytestmark = pytest.mark.aws

STAGES = """\
    stages:
      dev: {branch: dev, listen: '127.0.0.1:0', smoke: '${self:custom.smoke}'}
      prod: {branch: prod, home: aws, strategy: Canary10Percent1Minute, smoke: '${self:custom.smoke}'}
      staging: {branch: staging, listen: '127.0.0.1:0', alarms: {guard_s: 0}, smoke: '${self:custom.smoke}'}
"""


@dataclass
class Both:
    """Worldclock with stages at both homes, and the engine that serves some of them."""

    clock: Worldclock

    @property
    def folder(self) -> Path:
        return self.clock.folder

    def hitless(self, *words: str, code: int = 0) -> Ran:
        """A plain verb, as a person types it in the service's folder."""
        done = subprocess.run(
            [str(HITLESS), *words, "--json"],
            cwd=self.folder,
            env=self.clock.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ran(done.returncode, done.stdout, done.stderr)

    def stages(self) -> dict[str, Any]:
        return {one["stage"]: one for one in self.hitless("status").json["stages"]}

    def lambda_digests(self) -> dict[str, str]:
        """What Lambda runs in prod through the alias, as Lambda tells it."""
        lambdas = self.clock.aws.client("lambda", REGION)
        found = {}
        for name in ("zones", "convert", "meetings", "meta"):
            told = lambdas.get_function_configuration(FunctionName=f"worldclock-prod-{name}", Qualifier="live")
            found[name] = "sha256:" + base64.b64decode(told["CodeSha256"]).hex()
        return found

    def in_store(self, digest: str) -> bool:
        return (self.folder / ".hitless" / "artifacts" / "zips" / f"{digest.removeprefix('sha256:')}.zip").is_file()


@pytest.fixture
def both(aws: EmulatedAws, tmp_path: Path) -> Iterator[Both]:
    clock = Worldclock.new(aws, tmp_path)
    file = clock.folder / "serverless.yml"
    head, _, rest = file.read_text().partition("    stages:\n")
    file.write_text(head + STAGES + rest[rest.index("\n  smoke:") + 1 :])
    place = Both(clock)
    place.hitless("up", "--detach")
    yield place
    place.hitless("down", "--force")


def test_a_release_goes_from_the_engine_to_aws_and_back_byte_for_byte_and_no_request_fails(both: Both) -> None:
    there = both.hitless("promote", "dev", "prod").json
    assert (there["stage"], there["outcome"], there["release"]) == ("prod", "live", 1)
    stages = both.stages()
    assert list(stages) == ["dev", "prod", "staging"]
    bytes_of_dev = stages["dev"]["live"]["artifacts"]
    assert both.lambda_digests() == bytes_of_dev == stages["prod"]["live"]["artifacts"]

    both.clock.mark("second")
    with Client(stages["dev"]["url"] + "/version", every_s=0.02) as here, Client(both.clock.url + "/version") as afar:
        assert both.hitless("deploy").json["release"] == 2
        run = both.hitless("promote", "dev", "prod").json
        assert (run["outcome"], run["strategy"], run["release"]) == ("live", "Canary10Percent1Minute", 2)
        shipped = both.stages()["dev"]["live"]["artifacts"]
        assert shipped != bytes_of_dev
        assert both.lambda_digests() == shipped

        (both.folder / ".hitless" / "artifacts" / "zips").rename(both.folder / "zips-elsewhere")
        (both.folder / ".hitless" / "artifacts" / "zips").mkdir(mode=0o700)
        back = both.hitless("promote", "prod", "staging").json
        assert (back["stage"], back["outcome"], back["release"]) == ("staging", "live", 1)
        stages = both.stages()
        assert stages["staging"]["live"]["artifacts"] == shipped
        assert all(map(both.in_store, shipped.values())), "fetched from the bucket"

        again = both.hitless("rollback", "--stage", "prod").json
        assert (again["stage"], again["release"], again["outcome"]) == ("prod", 1, "live")
        assert both.lambda_digests() == bytes_of_dev
        both.clock.mark("third")
        direct = both.hitless("deploy", "--stage", "prod", "--strategy", "AllAtOnce", "--message", "by hand").json
        assert (direct["release"], direct["outcome"]) == (3, "live")
    assert here.asked > 100
    assert afar.asked > 20
    assert (here.failed, afar.failed) == (0, 0), (here.statuses, afar.statuses)
    _receipts_say_from_where(both)


def _receipts_say_from_where(both: Both) -> None:
    def origin(stage: str, number: int) -> Any:
        (rollout, *_) = both.hitless("releases", str(number), "--stage", stage).json["rollouts"][::-1]
        return rollout["verb"], rollout["receipt"]["promoted_from"]

    assert origin("prod", 2) == ("promote", {"home": "engine", "stage": "dev", "release": 2})
    assert origin("staging", 1) == ("promote", {"home": "aws", "stage": "prod", "release": 2})
    listed = both.hitless("releases", "--stage", "prod").json
    assert [(each["release"], each["live"]) for each in listed] == [(3, True), (2, False), (1, False)]
    lines = eventually(lambda: both.hitless("logs", "--stage", "prod", "meta").json, deadline_s=60, what="the logs")
    assert any("\tSTART " in line for line in lines)
    runs = json.loads(both.hitless("pipeline", "runs").out)
    assert {(run["stage"], run["state"]) for run in runs} == {("prod", "succeeded"), ("staging", "succeeded")}
