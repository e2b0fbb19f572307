"""One service at both homes: worldclock on a real engine and on the emulated AWS, promoted there and back under load.

The plain verbs alone; the bytes are compared in the engine's store and by what Lambda says it runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.aws.emulated import EmulatedAws
from tests.aws.release_support import HITLESS, REGION, Client, Worldclock, make_core
from tests.commands import Ran
from tests.support import eventually, free_port

pytestmark = pytest.mark.aws

STAGES = """\
    stages:
      dev: {branch: dev, listen: '127.0.0.1:0', smoke: '${self:custom.smoke}'}
      prod: {branch: prod, home: aws, strategy: Canary10Percent1Minute, smoke: '${self:custom.smoke}'}
      second: {home: aws, smoke: '${self:custom.smoke}'}
      staging: {branch: staging, listen: '127.0.0.1:0', alarms: {guard_s: 0}, smoke: '${self:custom.smoke}'}
"""


@dataclass
class Both:
    """Worldclock with stages at both homes, and the engine that serves some of them."""

    clock: Worldclock

    @property
    def folder(self) -> Path:
        return self.clock.folder

    def hitless(self, *words: str, code: int = 0, **environ: str) -> Ran:
        """Runs a plain command in the service's folder."""
        done = subprocess.run(
            [str(HITLESS), *words, "--json"],
            cwd=self.folder,
            env=self.clock.environ | environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ran(done.returncode, done.stdout, done.stderr)

    def git(self, *words: str) -> str:
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        environ = {name: value for name, value in self.clock.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *identity, *words], cwd=self.folder, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"git {words}: {done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def stages(self) -> dict[str, Any]:
        return {one["stage"]: one for one in self.hitless("status").json["stages"]}

    def lambda_digests(
        self, stage: str = "prod", functions: Sequence[str] = ("zones", "convert", "meetings", "meta")
    ) -> dict[str, str]:
        """What Lambda runs in the stage through the alias, as Lambda tells it."""
        lambdas = self.clock.aws.client("lambda", REGION)
        found = {}
        for name in functions:
            told = lambdas.get_function_configuration(FunctionName=f"worldclock-{stage}-{name}", Qualifier="live")
            found[name] = "sha256:" + base64.b64decode(told["CodeSha256"]).hex()
        return found

    @property
    def zips(self) -> Path:
        return self.folder / ".hitless" / "artifacts" / "zips"

    def holds(self, digest: str) -> bool:
        """Whether the engine's store contains these bytes, read again."""
        file = self.zips / f"{digest.removeprefix('sha256:')}.zip"
        return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" == digest

    def origin(self, stage: str, number: int) -> Any:
        """The origin of the release's bytes, by its first receipt."""
        first = self.hitless("releases", str(number), "--stage", stage).json["rollouts"][-1]
        return first["verb"], first["receipt"]["promoted_from"]


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


def test_a_live_release_is_promoted_to_aws_and_back_byte_for_byte(both: Both) -> None:
    url = both.stages()["dev"]["url"]
    with Client(url + "/version", every_s=0.05) as here:
        there = both.hitless("promote", "dev", "prod").json
        assert (there["stage"], there["outcome"], there["release"]) == ("prod", "live", 1)
        stages = both.stages()
        assert list(stages) == ["dev", "prod", "second", "staging"]
        shipped = stages["dev"]["live"]["artifacts"]
        assert both.lambda_digests() == shipped == stages["prod"]["live"]["artifacts"]

        both.zips.rename(both.folder / "zips-elsewhere")
        both.zips.mkdir(mode=0o700)
        with Client(both.clock.url + "/version") as afar:
            back = both.hitless("promote", "prod", "staging").json
        assert (back["stage"], back["outcome"], back["release"]) == ("staging", "live", 1)
        assert both.stages()["staging"]["live"]["artifacts"] == shipped
        assert all(map(both.holds, shipped.values())), "fetched from the bucket"
    assert here.asked > 50
    assert afar.asked > 2
    assert (here.failed, afar.failed) == (0, 0), (here.statuses, afar.statuses)
    assert both.origin("prod", 1) == ("promote", {"home": "engine", "stage": "dev", "release": 1})
    assert both.origin("staging", 1) == ("promote", {"home": "aws", "stage": "prod", "release": 1})

    unreachable = both.hitless("status", AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    dev, prod, _, staging = unreachable.json["stages"]
    assert (dev["live"]["release"], staging["live"]["release"], prod["live"]) == (1, 1, None)
    assert prod["error"].startswith("AWS cannot be reached")
    assert "warning: prod on AWS" in unreachable.err


@pytest.mark.long
def test_a_day_of_releases_at_both_homes_fails_no_request(both: Both) -> None:
    """Promotions by canary, a rollback, a deploy and a drill by the plain commands, and a promotion from AWS to AWS."""
    assert both.hitless("promote", "dev", "prod").json["outcome"] == "live"
    first = both.lambda_digests()
    both.clock.mark("second")
    with (
        Client(both.stages()["dev"]["url"] + "/version", every_s=0.02) as here,
        Client(both.clock.url + "/version") as afar,
    ):
        assert both.hitless("deploy").json["release"] == 2
        run = both.hitless("promote", "dev", "prod").json
        assert (run["outcome"], run["strategy"], run["release"]) == ("live", "Canary10Percent1Minute", 2)
        second = both.stages()["dev"]["live"]["artifacts"]
        assert second != first
        assert both.lambda_digests() == second
        assert both.hitless("promote", "dev", "prod").json["outcome"] == "unchanged"

        _the_dashboard_rolls_back_on_aws(both)
        assert both.lambda_digests() == first
        both.clock.mark("third")
        direct = both.hitless("deploy", "--stage", "prod", "--strategy", "AllAtOnce", "--message", "by hand").json
        assert (direct["release"], direct["outcome"]) == (3, "live")
        assert "no release is in progress in prod" in both.hitless("abort", "--stage", "prod", code=1).err
        _a_drill_ships_on_aws(both)
        third = both.lambda_digests()
        make_core(both.clock.aws, "second")
        between = both.hitless("aws", "promote", "prod", "second").json
        assert (between["stage"], between["release"], between["outcome"]) == ("second", 1, "live")
        assert both.lambda_digests("second") == third == both.lambda_digests()
    assert here.asked > 100
    assert afar.asked > 20
    assert (here.failed, afar.failed) == (0, 0), (here.statuses, afar.statuses)
    assert both.origin("second", 1) == ("promote", {"home": "aws", "stage": "prod", "release": 3})
    listed = both.hitless("releases", "--stage", "prod").json
    assert [(each["release"], each["live"]) for each in listed] == [(4, False), (3, True), (2, False), (1, False)]
    lines = eventually(lambda: both.hitless("logs", "--stage", "prod", "meta").json, deadline_s=60, what="the logs")
    assert any("\tSTART " in line for line in lines)
    runs = both.hitless("pipeline", "runs").json
    assert [(run["stage"], run["state"]) for run in runs] == [("prod", "succeeded")] * 3


def _the_dashboard_rolls_back_on_aws(both: Both) -> None:
    """From release 2 of prod to release 1, with the credentials of the dashboard's environment."""
    command = [str(HITLESS), "dashboard", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, cwd=both.folder, env=both.clock.environ, stdout=subprocess.PIPE, text=True
    ) as served:
        try:
            assert served.stdout is not None
            link = served.stdout.readline().strip()
            base, origin = link.partition("/enter/")[0], "/".join(link.split("/")[:3])
            with httpx.Client(timeout=120) as browser:
                assert browser.get(link).status_code == 200
                page = eventually(
                    lambda: found if "/releases/2" in (found := browser.get(f"{base}/stages/prod").text) else "",
                    deadline_s=60,
                    what="the releases on AWS",
                )
                assert "release 2 is live on AWS" in page
                assert "release 2 of dev" in browser.get(f"{base}/stages/prod/releases/2").text
                key = page.partition('name="form_key" value="')[2].partition('"')[0]
                form = {"form_key": key, "home": "aws", "release": "", "why": "slow"}
                sent = browser.post(f"{base}/stages/prod/rollback", data=form, headers={"origin": origin})
                assert "Rollback of prod: live, release 1." in browser.get(origin + sent.headers["location"]).text
        finally:
            served.terminate()
    assert both.hitless("releases", "1", "--stage", "prod").json["rollouts"][0]["receipt"]["why"] == "slow"


@pytest.mark.long
def test_a_pushed_commit_is_released_on_aws_and_promoted_from_there(both: Both) -> None:
    make_core(both.clock.aws, "second")
    (both.folder / "buildspec-test.yml").unlink()
    (both.folder / ".gitignore").write_text(".hitless/\n__pycache__/\n")
    both.git("init", "--quiet", "--initial-branch", "work")
    both.git("add", ".")
    both.git("commit", "--quiet", "--message", "The service")
    commit, url = both.git("rev-parse", "HEAD"), both.hitless("pipeline", "url").json["url"]
    both.git("push", "--quiet", url, "work:second")
    (run,) = both.hitless("pipeline", "runs").json
    assert (run["state"], run["stage"], run["release"]) == ("succeeded", "second", 1)
    live = both.stages()["second"]["live"]
    assert live["commit"] == commit
    assert both.lambda_digests("second") == live["artifacts"]
    moved = both.hitless("promote", "second", "staging").json
    assert (moved["stage"], moved["outcome"]) == ("staging", "live")
    staging = both.stages()["staging"]["live"]
    assert (staging["commit"], staging["artifacts"]) == (commit, live["artifacts"])
    assert commit in both.git("ls-remote", url, "refs/heads/staging"), "the branch follows"


@pytest.mark.long
def test_a_release_to_aws_continues_after_its_daemon_was_killed(both: Both) -> None:
    assert both.hitless("promote", "dev", "prod").json["outcome"] == "live"
    both.clock.mark("second")
    assert both.hitless("deploy").json["outcome"] == "live"
    daemon = both.hitless("status").json["engine"]["pid"]
    with Client(both.clock.url + "/version") as afar:
        promoting = subprocess.Popen(
            [str(HITLESS), "promote", "dev", "prod", "--json"],
            cwd=both.folder,
            env=both.clock.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        shifts = both.clock.aws.front.codedeploy.deployments
        eventually(lambda: shifts, deadline_s=180, every_s=0.05, what="the shift has begun")
        os.kill(daemon, signal.SIGKILL)
        assert promoting.wait(60) != 0, "nobody is there to tell how it ends"
        both.hitless("up", "--detach")

        def ended() -> Any:
            run = both.hitless("pipeline", "show", "2").json
            return run if run["state"] not in ("queued", "running") else None

        run = eventually(ended, deadline_s=300, every_s=0.5, what="the run has ended")
    assert (run["state"], run["release"]) == ("succeeded", 2), run
    assert both.lambda_digests() == both.stages()["dev"]["live"]["artifacts"]
    assert afar.asked > 20
    assert afar.failed == 0, afar.statuses


def _a_drill_ships_on_aws(both: Both) -> None:
    """The emulator's API has another address than AWS's, which is named; the releases find their home by themselves."""
    where = ("--stage", "prod", "--target", both.clock.url, "--yes", "--report", str(both.folder / "drill.html"))
    load = ("--rate", "4", "--duration", "5", "--releases", "1", "--strategy", "AllAtOnce")
    drill = both.hitless("drill", *where, *load).json
    assert (drill["failed"], drill["requests"] > 20) == (0, True), drill
    (shipped,) = drill["releases"]
    assert (shipped["release"], shipped["outcome"]) == (4, "live")


PROGRAM = """#!/usr/bin/env python3
import http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    event = api.getresponse()
    event.read()
    body = json.dumps({"stage": os.environ["STAGE"], "by": "a program"})
    path = "/2018-06-01/runtime/invocation/" + event.headers["Lambda-Runtime-Aws-Request-Id"] + "/response"
    api.request("POST", path, json.dumps({"statusCode": 200, "body": body}))
    api.getresponse().read()
"""
PROGRAM_SERVICE = """service: worldclock
provider:
  name: aws
  region: eu-central-1
  stage: ${opt:stage, 'dev'}
  runtime: provided.al2023
  environment: {STAGE: '${sls:stage}'}
functions:
  meta: {handler: bootstrap, events: [{http: GET /version}]}
package: {patterns: ['!**', bootstrap]}
custom:
  hitless:
    stages:
      dev: {branch: dev, listen: '127.0.0.1:0', smoke: [{path: /version}]}
      prod: {branch: prod, home: aws, strategy: AllAtOnce}
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_program_that_a_build_made_is_promoted_to_aws_byte_for_byte(aws: EmulatedAws, tmp_path: Path) -> None:
    clock = Worldclock.new(aws, tmp_path)
    shutil.rmtree(clock.folder)
    clock.folder.mkdir()
    (clock.folder / "serverless.yml").write_text(PROGRAM_SERVICE)
    (clock.folder / "bootstrap").write_text(PROGRAM)
    (clock.folder / "bootstrap").chmod(0o755)
    place = Both(clock)
    try:
        place.hitless("up", "--detach")
        place.git("init", "--quiet", "--initial-branch=dev")
        (clock.folder / "bootstrap").rename(clock.folder / "source")
        (clock.folder / ".gitignore").write_text(".hitless/\nbootstrap\n")
        build = "sed 's/a program/a built program/' source > bootstrap && chmod +x bootstrap"
        spec = {"version": 0.2, "phases": {"build": {"commands": [build]}}, "artifacts": {"files": ["bootstrap"]}}
        (clock.folder / "buildspec-build.yml").write_text(json.dumps(spec))
        place.git("add", "--all")
        place.git("commit", "--quiet", "-m", "build the program")
        place.git("push", "--quiet", place.hitless("pipeline", "url").json["url"], "dev")
        there = place.hitless("promote", "dev", "prod").json
        assert (there["stage"], there["outcome"], there["release"]) == ("prod", "live", 1)
        shipped = place.stages()["dev"]["live"]["artifacts"]
        assert place.lambda_digests(functions=("meta",)) == shipped == place.stages()["prod"]["live"]["artifacts"]
        lambdas = aws.client("lambda", REGION)
        told = lambdas.get_function_configuration(FunctionName="worldclock-prod-meta", Qualifier="live")
        assert (told["Runtime"], told["Handler"]) == ("provided.al2023", "bootstrap")
        with urllib.request.urlopen(clock.url + "/version", timeout=30) as response:
            assert json.load(response) == {"stage": "prod", "by": "a built program"}
    finally:
        place.hitless("down", "--force")
