"""Signed webhooks of GitHub over HTTP, with a real engine: pull requests of the team and of forks."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.process.conftest import Site
from tests.process.pipeline_support import states
from tests.process.test_previews import Previewed
from tests.support import eventually

pytestmark = pytest.mark.process

SECRET = "a secret that both sides know"
THEIRS = """version: 0.2
env:
  parameter-store: {TOKEN: /shop/token}
phases:
  build:
    commands:
      - echo "token=[$TOKEN] as $(id -u)"
      - 'if cat PARAMETERS; then exit 1; fi'
"""


@dataclass
class Forge:
    """GitHub: a repository with branches and pull requests, and signed webhooks."""

    team: Previewed
    folder: Path
    url: str

    def take(self, commit_of: str, ref: str) -> None:
        self.team.git("push", "--quiet", "--force", str(self.folder), f"{commit_of}:{ref}")

    def deliver(self, document: dict[str, Any], *, event: str = "pull_request", secret: str = SECRET) -> int:
        body = json.dumps({**document, "repository": {"full_name": "team/plain"}}).encode()
        signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-github-event": event, "x-hub-signature-256": signature}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{self.url}/github", body, headers), timeout=15
            ) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def pull(self, number: int, action: str, owner: str, head: str) -> int:
        ends = {"head": {"repo": {"full_name": owner}, "ref": head}, "base": {"ref": "dev"}}
        return self.deliver({"action": action, "number": number, "pull_request": ends})


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previewed]:
    with Previewed(Site.plain(tmp_path_factory.mktemp("team"))).at_work() as one:
        yield one


@pytest.fixture(scope="module")
def forge(team: Previewed) -> Iterator[Forge]:
    """With the receiver before the team's engine, as the command starts it."""
    folder = Path(tempfile.mkdtemp(prefix="hitless-forge-"))
    repository, secret = folder / "plain.git", folder / "hook.key"
    subprocess.run(["git", "init", "--quiet", "--bare", str(repository)], check=True)
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    words = ["pipeline", "receive", "--remote", str(repository), "--secret-file", str(secret)]
    command = [
        sys.executable,
        "-m",
        "hitless",
        *words,
        "--listen",
        "127.0.0.1:0",
        "--service-dir",
        str(team.site.folder),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as receiver:
        try:
            assert receiver.stderr is not None
            found = re.search(r"listening on (http://\S+)", receiver.stderr.readline())
            assert found
            one = Forge(team, repository, found[1])
            one.take("dev", "refs/heads/dev")
            team.push("dev")
            yield one
        finally:
            receiver.terminate()
            receiver.wait(10)
    shutil.rmtree(folder)


def waiting(team: Previewed, after: int) -> dict[str, Any]:
    """The run that came after that one, once it waits or has ended."""

    def look() -> dict[str, Any] | None:
        run = team.runs()[0]
        return run if run["run"] > after and run["state"] not in ("queued", "running") else None

    found = eventually(look, deadline_s=60, what="the run waits")
    assert found
    return found


def test_a_forks_pull_request_runs_after_approval_and_finds_no_secret(team: Previewed, forge: Forge) -> None:
    parameters = team.site.folders.data / "pipeline" / "parameters.yml"
    parameters.write_text("parameter-store: {/shop/token: hush-hush}\n")
    parameters.chmod(0o600)
    team.git("switch", "--quiet", "--create", "theirs", "dev")
    (team.site.folder / "buildspec-test.yml").write_text(THEIRS.replace("PARAMETERS", str(parameters)))
    commit = team.commit("let me in")
    forge.take("theirs", "refs/pull/7/head")
    team.git("switch", "--quiet", "dev")
    before, live = team.last_run(), team.site.stage()["live"]

    assert forge.pull(7, "opened", "stranger/plain", "prod") == 202
    run = waiting(team, before)
    assert (run["commit"], run["stage"], run["preview"]) == (commit, None, None)
    assert set(states(run)) <= {"source", "approve"}
    if os.getuid() != 0:
        assert run["state"] == "failed"
        return
    assert run["state"] == "waiting_for_approval"
    assert "token=" not in team.log(run["run"])
    assert team.run(run["run"])["question"]["files"] == ["buildspec-test.yml"]
    assert forge.deliver({}, secret="another") == 403
    assert team.site.hitless("approve", str(run["run"]), "--why", "read it").document["state"] == "succeeded"
    log = team.log(run["run"])
    assert re.search(r"^token=\[\] as 6\d{4}$", log, re.MULTILINE)
    assert "hush-hush" not in log
    assert team.previews() == {}
    assert team.site.stage()["live"] == live
    assert not team.git("--git-dir", team.url, "branch", "--list", "pull/*", "prod", "theirs").strip()

    team.git("switch", "--quiet", "theirs")
    newer = team.commit("and more")
    forge.take("theirs", "refs/pull/7/head")
    team.git("switch", "--quiet", "dev")
    forge.pull(7, "synchronize", "stranger/plain", "prod")
    again = waiting(team, run["run"])
    assert (again["state"], again["commit"]) == ("waiting_for_approval", newer)
    forge.pull(7, "closed", "stranger/plain", "prod")
    assert team.ended(again["run"])["state"] == "superseded"


def test_a_pull_request_of_the_repository_has_a_preview_until_it_is_closed(team: Previewed, forge: Forge) -> None:
    team.git("switch", "--quiet", "--create", "own", "dev")
    team.site.touch("own")
    team.commit("own")
    forge.take("own", "refs/pull/8/head")
    team.git("switch", "--quiet", "dev")
    before = team.last_run()
    forge.pull(8, "opened", "team/plain", "own")
    run = waiting(team, before)
    assert (run["state"], run["branch"]) == ("succeeded", "pull/8")
    assert run["preview"] == f"http://pull-8.preview.localhost:{team.port}"
    assert team.release("pull-8") == 1
    forge.pull(8, "closed", "team/plain", "own")
    eventually(lambda: team.previews() == {}, what="the preview is gone")
    assert team.ask("pull-8")[0] == 404


def test_deleting_a_branch_at_the_forge_removes_its_preview(team: Previewed, forge: Forge) -> None:
    forge.take("dev", "refs/heads/feature")
    before = team.last_run()
    forge.deliver({"ref": "refs/heads/feature"}, event="push")
    assert waiting(team, before)["preview"] == f"http://feature.preview.localhost:{team.port}"
    forge.deliver({"ref": "refs/heads/feature", "deleted": True}, event="push")
    eventually(lambda: team.previews() == {}, what="the preview is gone")
