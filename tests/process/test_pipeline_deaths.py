"""The daemon is killed in each step of a run, under load: no request fails, and nothing is left over.

And what else needs a run to be held or failed at one point.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hitless.worker.memory import family
from tests.process.conftest import Site
from tests.process.pipeline_holds import HANDLER, Holds, holds, index
from tests.process.pipeline_support import LoadOnAll, Team, states
from tests.support import eventually

pytestmark = pytest.mark.process
LONG = pytest.mark.long

STAGES = """    stages:
      dev: {listen: '127.0.0.1:0', strategy: Canary30Percent1Second, smoke: [GET /echo?hold=verify],
            alarms: {guard_s: 0}}
      staging: {listen: '127.0.0.1:0', rehearsal: true, alarms: {guard_s: 0}}
      prod: {listen: '127.0.0.1:0', approval: manual, alarms: {guard_s: 0}}
"""


@dataclass
class Place:
    """One engine for all of this module, with a release in each stage, and its holds."""

    team: Team
    held: Holds
    index: str
    urls: dict[str, str] = field(default_factory=dict)

    def ship_everywhere(self) -> None:
        """Ship a release whose handler can be held to each stage."""
        team, site = self.team, self.team.site
        site.edit('    match event["path"]:', HANDLER.format(folder=str(self.held.folder)) + '    match event["path"]:')
        site.edit("  timeout: 5\n", "  timeout: 25\n", "serverless.yml")
        team.commit("holds")
        team.push("dev")
        site.hitless("promote", "dev", "staging")
        site.hitless("approve", str(site.hitless("promote", "dev", "prod").document["run"]))
        self.urls = {stage["stage"]: stage["url"] for stage in site.status()["stages"]}

    def change(self, what: str) -> int:
        """A commit that makes another release; the number that its run will have."""
        self.team.site.touch(what)
        self.team.commit(what)
        return self.team.last_run() + 1

    def pid(self) -> int:
        return int(self.team.site.status()["engine"]["pid"])

    def live(self, stage: str) -> dict[str, Any]:
        found: dict[str, Any] = self.team.site.stage(stage)["live"]
        return found

    def weights(self) -> list[Any]:
        return [stage["candidate"] for stage in self.team.site.status()["stages"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with holds() as held, index(held) as url:
        buildspec = f"version: 0.2\nphases: {{build: {{commands: ['{held.command}']}}}}\n"
        team = Team(Site.plain(tmp_path_factory.mktemp("team")), STAGES, buildspec)
        team.site.environ["PATH"] = held.path
        team.site.allow(held.folder)
        with team.at_work():
            one = Place(team, held, url)
            one.ship_everywhere()
            yield one


@pytest.fixture
def load(place: Place) -> Iterator[LoadOnAll]:
    """Safe and idempotent requests on every stage; none of them fails."""
    with LoadOnAll(place.urls, 60) as load:
        yield load
    requests = {stage: one.requests for stage, one in load.driven.items()}
    assert {stage: one.failed.total() for stage, one in load.driven.items()} == dict.fromkeys(requests, 0)
    assert min(requests.values()) > 50, requests


def killed(place: Place) -> None:
    """SIGKILL the daemon, and wait until the processes of its run have ended by themselves."""
    pid = place.pid()
    of_run = {one: _words(one) for one in family(pid)[1:]}
    os.kill(pid, signal.SIGKILL)
    of_run = {one: words for one, words in of_run.items() if _is_of_a_run(words)}
    eventually(lambda: not [one for one, words in of_run.items() if _words(one) == words], what=f"{of_run} have ended")
    eventually(lambda: not place.team.site.folders.engine_is_alive(), what="the daemon has gone")


def _is_of_a_run(words: str) -> bool:
    # Without words it had ended before they were read, and would never be seen to end.
    return bool(words) and not words.startswith("hitless:") and "haproxy" not in words


def _words(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


@pytest.mark.parametrize(
    "step", ["build", *(pytest.param(one, marks=LONG) for one in ("push", "source", "test", "verify"))]
)
def test_a_run_resumes_after_its_daemon_was_killed(place: Place, load: LoadOnAll, step: str) -> None:
    team, held, before = place.team, place.held, place.live("dev")["release"]
    if step == "build":
        (team.site.folder / "requirements.txt").write_text(f"--index-url {place.index}\nheld==1.0\n")
    run = place.change(f"killed in {step}")
    held.close(step)
    words = ["git", "push", "engine", "dev"]
    with subprocess.Popen(words, cwd=team.site.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as push:
        reached = (lambda: "\nbegun" in team.log(run)) if step == "test" else (lambda: held.reached(step))
        eventually(reached, deadline_s=60, what=f"{step} is held")
        assert step == "push" or states(team.run(run))[step] == "running"
        killed(place)
        said = push.communicate(timeout=30)[0].decode()
    assert push.returncode == 0, "git had taken it"
    assert step == "push" or f"hitless pipeline show {run}" in said
    held.open(step)
    team.site.up()
    ended = team.ended(run)
    assert (ended["state"], set(states(ended).values())) == ("succeeded", {"succeeded", "skipped"}), team.log(run)
    assert (place.live("dev")["release"], place.weights()) == (before + 1, [None] * 3)


def test_a_canary_cut_off_by_the_daemons_death_is_withdrawn_and_can_be_retried(place: Place, load: LoadOnAll) -> None:
    team, before = place.team, place.live("dev")
    run = place.change("killed in mid-canary")
    with subprocess.Popen(["git", "push", "--quiet", "engine", "dev"], cwd=team.site.folder) as push:
        eventually(lambda: (place.weights()[0] or {}).get("weight_percent") == 30, deadline_s=60, what="it bakes")
        title = f"plain/dev r{place.weights()[0]['release']} "
        zygotes = team.site.status()["engine"]["root_zygote_pid"]
        workers = [pid for pid in family(zygotes)[1:] if title in _words(pid)]
        killed(place)
        assert workers
        assert all(title in _words(pid) for pid in workers), "nothing that serves ends with the daemon"
        push.wait(timeout=30)
    team.site.up()
    ended = team.ended(run)
    assert (ended["state"], states(ended)["deploy"]) == ("interrupted", "interrupted")
    assert (place.live("dev"), place.weights()) == (before, [None] * 3)
    eventually(lambda: not [pid for pid in workers if title in _words(pid)], what="the candidate's workers have ended")
    retried = team.site.hitless("pipeline", "retry", str(run)).document
    assert retried["state"] == "succeeded"
    assert place.live("dev")["commit"] == retried["commit"]


def test_an_approval_question_and_its_release_survive_the_daemon(place: Place, load: LoadOnAll) -> None:
    """Killed as it waits for approval, then after the swap, while the old release still has a request in hand."""
    team, held, commit = place.team, place.held, place.live("dev")["commit"]
    assert commit != place.live("prod")["commit"]
    run = team.site.hitless("promote", "dev", "prod").document["run"]
    killed(place)
    team.site.up()
    assert team.run(run)["state"] == "waiting_for_approval"

    held.close("drain")
    in_hand = threading.Thread(target=lambda: urllib.request.urlopen(f"{place.urls['prod']}/echo?hold=drain").close())
    in_hand.start()
    eventually(lambda: held.reached("drain"), what="the old release has a request in hand")
    words = [sys.executable, "-m", "hitless", "approve", str(run), "--service-dir", str(team.site.folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as approve:
        eventually(lambda: place.live("prod")["commit"] == commit, deadline_s=60, what="it is live")
        assert states(team.run(run))["deploy"] == "running", "the old release drains"
        killed(place)
        approve.wait(timeout=30)
    held.open("drain")
    in_hand.join()
    team.site.up()
    ended = team.ended(run)
    assert (ended["state"], states(ended)["deploy"]) == ("succeeded", "succeeded")
    assert (place.live("prod")["commit"], place.weights()) == (commit, [None] * 3)
    assert team.git("ls-remote", team.url, "prod").split()[0] == commit, "the branch has followed"


@LONG
def test_a_release_that_fails_verification_is_rolled_back_and_can_be_retried(place: Place, load: LoadOnAll) -> None:
    team, before = place.team, place.live("dev")["commit"]
    promoted = place.live("staging")["commit"]
    run = place.change("fails where clients ask")
    place.held.close("fail")
    said = team.push("dev")
    place.held.open("fail")
    assert "instead of 200: rolled back to release" in said
    assert states(team.run(run))["deploy"] == "failed"
    assert place.live("dev")["commit"] == before
    retried = team.site.hitless("pipeline", "retry", str(run)).document
    assert (retried["state"], retried["release"]) == ("succeeded", place.live("dev")["release"])
    assert place.live("dev")["commit"] == retried["commit"] != before
    assert place.live("staging")["commit"] == promoted


@LONG
def test_a_rehearsal_that_is_cut_off_leaves_nothing_and_is_repeated(place: Place, load: LoadOnAll) -> None:
    team, before = place.team, place.live("staging")
    team.site.edit("import os\n", "import os\n\nraise SystemExit(3)\n")
    run = place.change("killed in the rehearsal")
    with subprocess.Popen(["git", "push", "--quiet", "engine", "dev:staging"], cwd=team.site.folder) as push:
        eventually(lambda: "live's copy is up" in team.log(run), deadline_s=60, what="the rehearsal is under way")
        killed(place)
        push.wait(timeout=30)
    team.site.up()
    ended = team.ended(run)
    assert (ended["state"], states(ended)["rehearse"]) == ("failed", "failed"), team.log(run)
    assert "it does not come up" in ended["reason"]
    assert (place.live("staging"), place.weights()) == (before, [None] * 3)
