"""From a git push to a live release, with real git, a real engine and real builds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.process.conftest import Site
from tests.process.pipeline_support import TESTS, LoadOnAll, Team, states
from tests.support import eventually

pytestmark = pytest.mark.process

ANSWER = "        case _:\n            return answer("
BREAKS_OUTSIDE_OF_DEV = (
    ("RELEASE = os", "STAGE, CALLS = os.environ.get('HITLESS_STAGE'), iter(range(10**9))\nRELEASE = os"),
    (
        ANSWER,
        ANSWER.replace(
            "            return",
            "            if STAGE != 'dev' and next(CALLS) % 3 == 2:\n"
            "                raise RuntimeError('a cache that only dev has')\n            return",
        ),
    ),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """One engine and one repository for all of this module."""
    with Team(Site.plain(tmp_path_factory.mktemp("team"))).at_work() as one:
        yield one


@pytest.fixture
def team(place: Team) -> Team:
    """On dev, with the service's first content."""
    place.reset()
    return place


@pytest.fixture
def gate() -> Iterator[Path]:
    """A file that a build waits for, which does not exist yet, in a folder that the build's user can read."""
    folder = Path(tempfile.mkdtemp(prefix="hitless-gate-"))
    folder.chmod(0o755)
    yield folder / "open"
    shutil.rmtree(folder)


def test_git_shows_failures_and_refusals(team: Team) -> None:
    before, release = team.last_run(), team.site.stage()["live"]["release"]
    buildspec = team.site.folder / "buildspec-test.yml"
    buildspec.write_text("version: 0.2\nphases: [unclosed\n")
    team.commit("a broken buildspec")
    assert "test: buildspec-test.yml: it is not YAML" in team.push("dev")
    waited = team.site.hitless("pipeline", "wait", exit_code=1)
    assert waited.document["state"] == "failed", "a script can notice, though git push ended with 0"
    assert "== test" not in waited.stderr, "the log of a run that has ended is not shown again"
    buildspec.write_text(TESTS)
    team.site.edit("runtime: python3.11", "runtime: ruby3.3", "serverless.yml")
    team.commit("a broken service")
    assert "build: serverless.yml:4: provider.runtime: 'ruby3.3' is an unknown runtime" in team.push("dev")
    assert team.site.stage()["live"]["release"] == release

    refused = team.push("dev:prod", exit_code=1)
    assert "was never live in staging" in refused
    assert "pre-receive hook declined" in refused
    team.git("tag", "v1")
    assert "refs/tags/v1 starts no run" in team.push("v1")
    assert [run["state"] for run in team.runs() if run["run"] > before] == ["failed", "failed"]


def test_of_several_quick_pushes_the_first_and_the_last_are_shipped(team: Team, gate: Path) -> None:
    """The second is superseded while the first is tested; the first and third ship one after the other."""
    first, release = team.last_run() + 1, team.site.stage()["live"]["release"]
    (team.site.folder / "buildspec-test.yml").write_text(
        f"version: 0.2\nphases: {{build: {{commands: ['until [ -e {gate} ]; do sleep 0.05; done']}}}}\n"
    )
    pushes = []
    for number in range(3):
        team.site.touch(f"push {number}")
        team.commit(f"push {number}")
        pushes.append(team.push_in_background("dev"))
        eventually(lambda run=first + number: team.last_run() == run, what="the push has its run")  # type: ignore[misc]
    gate.touch()
    said = [push.communicate(timeout=60)[0] for push in pushes]
    assert f"run {first + 1} of dev superseded: run {first + 2} came after it" in said[1]
    assert [team.ended(first + number)["state"] for number in range(3)] == ["succeeded", "superseded", "succeeded"]
    assert team.run(first + 2)["release"] == release + 2


@pytest.mark.long
def test_a_push_during_a_rollout_waits_for_its_end(team: Team) -> None:
    team.push("dev")
    team.site.hitless("promote", "dev", "staging", "--skip-rehearsal")
    first = team.last_run() + 1
    team.site.touch("one")
    team.commit("one")
    options = ["-o", "skip-rehearsal", "dev:staging"]
    push = team.push_in_background(*options)
    eventually(lambda: "baking" in team.log(first), deadline_s=60, what="the first one bakes")
    team.site.touch("two")
    last = team.commit("two")
    assert f"run {first + 1} of staging succeeded" in team.push(*options)
    push.communicate(timeout=60)
    both = [team.run(first), team.run(first + 1)]
    assert [run["state"] for run in both] == ["succeeded", "succeeded"]
    assert both[1]["release"] == both[0]["release"] + 1
    assert team.site.stage("staging")["live"]["commit"] == last


def test_force_pushes_branch_deletions_and_empty_merges_are_handled(team: Team) -> None:
    """A force-push, a deleted branch, a merge without changes, and the form of a path over SSH."""
    team.site.touch("forced")
    team.commit("to be amended")
    team.push("dev")
    release = team.site.stage()["live"]["release"]
    team.site.touch("amended")
    team.git("commit", "--quiet", "--all", "--amend", "-m", "amended")
    assert "rejected" in team.push("dev", exit_code=1), "not a fast-forward: git itself asks for --force"
    assert f"release {release + 1} is live in dev" in team.push("--force", "dev")

    assert "dev feeds the stage dev and cannot be deleted" in team.push(":dev", exit_code=1)
    team.git("switch", "--quiet", "--create", "short")
    team.push("short")
    assert "the branch short was deleted" in team.push(":short")

    team.git("switch", "--quiet", "dev")
    team.git("merge", "--quiet", "--no-ff", "-m", "merged", "short")
    team.commit("nothing at all")
    assert f"nothing has changed: release {release + 1} is live in dev already" in team.push("dev")
    assert team.run(team.last_run())["state"] == "succeeded"

    team.site.touch("by ssh")
    commit = team.commit("by ssh")
    said = team.push_over_ssh("dev")
    assert f"release {release + 2} is live in dev" in said
    assert f"dev responds as it should at {team.site.url}" in said
    assert team.site.stage()["live"]["commit"] == commit
    assert team.runs()[0]["actor"].endswith("@192.0.2.7")


def test_a_build_beyond_its_limits_ends_and_the_next_push_ships(team: Team) -> None:
    team.site.edit("    workers: 2\n", "    workers: 2\n    builds: {memory_mb: 64}\n", "serverless.yml")
    team.commit("less memory")
    team.push("dev")
    (team.site.folder / "buildspec-test.yml").write_text(
        "version: 0.2\nphases: {build: {commands: ['python -c \"x = bytearray(200 << 20); input()\" < /dev/zero']}}\n"
    )
    team.commit("a test that takes too much")
    assert "the build reached its memory limit of 64 MiB" in team.push("dev")
    team.reset()
    assert "succeeded" in team.push("dev")


def test_a_stage_with_required_checks_accepts_only_tested_commits(team: Team) -> None:
    """Until the hook accepts the push, only it sees the objects, so the merge is judged by what the hook sends."""
    team.site.edit("dev: {", "dev: {required_checks: true, ", "serverless.yml")
    team.commit("checked from now on")
    team.push("dev")
    team.git("switch", "--quiet", "--create", "checked")
    team.site.edit("def answer(body: object, status: int = 200)", "def answer(body: object, status: int = 500)")
    broken = team.commit("a mistake")
    team.push("checked")
    team.git("switch", "--quiet", "dev")
    team.git("merge", "--quiet", "--no-ff", "-m", "merged too early", "checked")
    before = team.last_run()
    assert f"{broken[:12]} passed no tests yet, which dev requires" in team.push("dev", exit_code=1)
    assert "passed no tests yet" in team.push("checked:dev", exit_code=1)
    assert team.last_run() == before

    team.git("reset", "--quiet", "--hard", "HEAD~1")
    team.git("switch", "--quiet", "checked")
    team.site.edit("status: int = 500)", "status: int = 200)")
    team.commit("fixed")
    team.push("checked")
    team.git("switch", "--quiet", "dev")
    team.git("merge", "--quiet", "--no-ff", "-m", "merged", "checked")
    assert "of dev succeeded" in team.push("dev")
    team.reset()
    assert "passed no tests yet" in team.push("dev", exit_code=1)
    team.push("-o", "override=back to where it was", "dev")
    assert team.run(team.last_run())["overridden"] == "back to where it was"


def test_notifications_are_sent_and_their_address_is_never_shown(team: Team) -> None:
    """A webhook and a Slack message, over real HTTP. The address is a secret."""
    secret = "T0123-not-to-be-shown"
    with listener() as (url, bodies):
        notify = f"notify: [{{webhook: '{url}/{secret}'}}, {{slack: '{url}/{secret}'}}]"
        team.site.edit("dev: {", f"dev: {{{notify}, ", "serverless.yml")
        team.commit("tell")
        run = team.last_run() + 1
        said = team.push("dev")
        eventually(lambda: len(bodies) == 2, what="both were told")
    webhook = next(body for body in bodies if "run" in body)
    slack = next(body for body in bodies if "run" not in body)
    assert (webhook["event"], webhook["run"]["run"]) == ("run.succeeded", run)
    assert slack == {"text": webhook["text"]}
    assert f"run {run} of dev succeeded" in slack["text"]
    shown = [said, team.log(run), team.site.folders.daemon_log.read_text(), str(team.run(run)), str(team.site.status())]
    assert not [text for text in shown if secret in text]


@contextmanager
def listener() -> Iterator[tuple[str, list[Any]]]:
    """A URL, and the requests posted to it."""
    bodies: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


def test_a_hanging_test_can_be_stopped(team: Team) -> None:
    (team.site.folder / "buildspec-test.yml").write_text("version: 0.2\nphases: {build: {commands: [sleep 98765]}}\n")
    team.commit("a test that hangs")
    run = team.last_run() + 1
    push = team.push_in_background("dev")
    eventually(lambda: sleeping("98765"), deadline_s=60, what="it hangs")
    words = [sys.executable, "-m", "hitless", "pipeline", "show", str(run), "-f"]
    words += ["--service-dir", str(team.site.folder)]
    follower = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert follower.stderr is not None
    assert any("sleep 98765" in line for line in follower.stderr), "what was written before, and no end yet"
    assert team.site.hitless("pipeline", "stop", str(run), "--why", "it hangs").document["state"] == "interrupted"
    eventually(lambda: not sleeping("98765"), what="it has ended")
    said = push.communicate(timeout=30)[0]
    assert f"run {run} of dev interrupted: stopped by" in said
    assert "\ninterrupted: stopped by" in follower.communicate(timeout=30)[0]
    assert "sleep 98765" in team.site.hitless("pipeline", "show", str(run), "--log").document["log"]


def sleeping(seconds: str) -> bool:
    """Whether a process runs `sleep` with that number."""
    words = f"sleep\0{seconds}\0".encode()
    found = False
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found = found or entry.read_bytes() == words
    return found


@pytest.mark.long
def test_an_endless_test_reaches_its_time_limit(team: Team) -> None:
    team.site.edit("    workers: 2\n", "    workers: 2\n    builds: {timeout_in_minutes: 1}\n", "serverless.yml")
    team.commit("less time")
    team.push("dev")
    (team.site.folder / "buildspec-test.yml").write_text("version: 0.2\nphases: {build: {commands: [sleep 1000]}}\n")
    team.commit("a test that never ends")
    assert "the build reached its time limit of 60 s" in team.push("dev")


@pytest.mark.long
def test_ten_thousand_files_are_pushed_tested_and_shipped(team: Team) -> None:
    folder = team.site.folder / "data"
    for number in range(10_000):
        path = folder / str(number % 100) / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    team.commit("ten thousand files")
    release = team.site.stage()["live"]["release"]
    assert f"release {release + 1} is live in dev" in team.push("dev")


def test_a_teams_day_from_a_feature_branch_to_prod_fails_no_request(team: Team) -> None:
    """The engine's folder is closed to the build's user, because pytest makes it private."""
    team.site.touch("another day")
    team.commit("another day")
    assert f"run {team.last_run() + 1} of dev succeeded" in team.push("dev")
    assert team.site.hitless("promote", "dev", "staging").document["outcome"] == "live"
    waiting = team.site.hitless("promote", "staging", "prod").document
    assert waiting["outcome"] == "waiting_for_approval"
    assert team.site.stage("prod")["live"] is None
    asked = team.site.hitless("approve", exit_code=2).document["error"]
    assert f"approval: {waiting['run']} of prod" in asked["message"]
    approved = team.site.hitless("approve", str(waiting["run"]), "--why", "the first").document
    assert (approved["state"], approved["approval"]["why"]) == ("succeeded", "the first")
    urls = {stage["stage"]: stage["url"] for stage in team.site.status()["stages"]}
    with LoadOnAll(urls, 40) as load:
        merged = feature_branch(team)
        assert team.site.hitless("promote", "dev", "staging", "--skip-rehearsal").document["outcome"] == "live"
        assert team.site.stage("staging")["live"]["commit"] == merged
        broken_change(team, merged)
        run = team.site.hitless("promote", "staging", "prod").document["run"]
        team.site.hitless("approve", str(run))
        assert states(team.run(run))["rehearse"] == "succeeded"
    stages = {stage["stage"]: stage["live"] for stage in team.site.status()["stages"]}
    assert stages["prod"]["commit"] == merged
    assert stages["prod"]["artifacts"] == stages["staging"]["artifacts"]
    clone = team.site.folder.parent / "clone"
    team.git("clone", "--quiet", "--branch", "prod", team.url, str(clone))
    assert team.git("-C", str(clone), "rev-parse", "HEAD").strip() == merged
    assert {stage: one.failed.total() for stage, one in load.driven.items()} == dict.fromkeys(urls, 0)
    assert min(one.requests for one in load.driven.values()) > 500, "each stage had its load, safe and idempotent"


def feature_branch(team: Team) -> str:
    """A failing test is found, fixed, and merged to dev; the commit that is live there."""
    team.git("switch", "--quiet", "--create", "feature")
    team.site.edit("def answer(body: object, status: int = 200)", "def answer(body: object, status: int = 500)")
    team.commit("a mistake")
    run = team.last_run()
    assert f"run {run + 1} of feature failed: test: buildspec-test.yml: phase build failed" in team.push("feature")
    team.site.edit("status: int = 500)", "status: int = 200)")
    team.site.edit('"function_version": ', '"pushed": 1, "function_version": ')
    team.commit("fixed")
    assert f"run {run + 2} of feature succeeded" in team.push("feature")
    assert states(team.runs()[0]) == {"source": "succeeded", "test": "succeeded"}
    team.git("switch", "--quiet", "dev")
    team.git("merge", "--quiet", "--no-ff", "-m", "merged", "feature")
    release = team.site.stage("dev")["live"]["release"]
    assert f"release {release + 1} is live in dev" in team.push("dev")
    assert team.site.get("/release")[2]["pushed"] == 1
    return team.git("rev-parse", "HEAD").strip()


def broken_change(team: Team, good: str) -> None:
    """A change that works in dev, is stopped by the rehearsal, and without that by the canary's alarm."""
    for old, new in BREAKS_OUTSIDE_OF_DEV:
        team.site.edit(old, new)
    team.commit("a cache")
    assert f"run {team.last_run() + 1} of dev succeeded" in team.push("dev")
    rehearsed = team.site.hitless("promote", "dev", "staging", exit_code=3).document
    assert rehearsed["outcome"] == "failed"
    assert "rehearse: GET /" in rehearsed["reason"]
    shipped = team.site.hitless("promote", "dev", "staging", "--skip-rehearsal", exit_code=3).document
    assert shipped["outcome"] == "rolled_back"
    assert "alarm" in shipped["reason"]
    assert team.site.stage("staging")["live"]["commit"] == good
