"""From a git push to a live release, with real git, a real engine and real builds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hitless.pipeline.workshop import Workshop
from tests.process.conftest import SERVICES, Site
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
    folder = tmp_path_factory.mktemp("team") / "plain"
    shutil.copytree(SERVICES / "plain", folder)
    one = Team(Site(folder))
    try:
        one.begin()
        yield one
    finally:
        one.site.end()
        shutil.rmtree(Workshop.of(one.site.folders.data, os.environ).work, ignore_errors=True)


@pytest.fixture
def team(place: Team) -> Team:
    """On dev, with the service as it was first."""
    place.reset()
    return place


@pytest.fixture
def gate() -> Iterator[Path]:
    """A file that a build waits for; not there yet. In a folder that the build's user can see into."""
    folder = Path(tempfile.mkdtemp(prefix="hitless-gate-"))
    folder.chmod(0o755)
    yield folder / "open"
    shutil.rmtree(folder)


def test_what_cannot_be_run_is_named_and_what_must_not_ship_is_refused_by_git(team: Team) -> None:
    before, release = team.last_run(), team.site.stage()["live"]["release"]
    buildspec = team.site.folder / "buildspec-test.yml"
    buildspec.write_text("version: 0.2\nphases: [unclosed\n")
    team.commit("a broken buildspec")
    assert "test: buildspec-test.yml: it is not YAML" in team.push("dev")
    buildspec.write_text(TESTS)
    team.site.edit("runtime: python3.11", "runtime: ruby3.3", "serverless.yml")
    team.commit("a broken service")
    assert "build: serverless.yml:4: provider.runtime: 'ruby3.3' is an unknown runtime" in team.push("dev")
    assert team.site.stage()["live"]["release"] == release

    refused = team.push("dev:prod", exit_code=1)
    assert "never was live in staging" in refused
    assert "pre-receive hook declined" in refused
    team.git("tag", "v1")
    assert "refs/tags/v1 starts no run" in team.push("v1")
    assert [run["state"] for run in team.runs() if run["run"] > before] == ["failed", "failed"]


def test_a_team_s_day_from_a_feature_branch_to_prod_loses_no_request(team: Team) -> None:
    """The engine's folder is closed to the build's user all the while: pytest makes it so."""
    assert f"run {team.last_run() + 1} of dev succeeded" in team.push("dev")
    assert team.site.hitless("promote", "dev", "staging").document["outcome"] == "live"
    waiting = team.site.hitless("promote", "staging", "prod").document
    assert waiting["outcome"] == "waiting_for_approval"
    assert team.site.stage("prod")["live"] is None
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
    assert team.git("ls-remote", team.url, "prod").split()[0] == merged
    assert sum(one.failed.total() for one in load.driven.values()) == 0
    assert sum(one.requests for one in load.driven.values()) > 1000


def feature_branch(team: Team) -> str:
    """A failing test is refused, mended, merged to dev; the commit that is live there."""
    team.git("switch", "--quiet", "--create", "feature")
    team.site.edit("def answer(body: object, status: int = 200)", "def answer(body: object, status: int = 500)")
    team.commit("a mistake")
    run = team.last_run()
    assert f"run {run + 1} of feature failed: test: buildspec-test.yml: phase build failed" in team.push("feature")
    team.site.edit("status: int = 500)", "status: int = 200)")
    team.site.edit('"function_version": ', '"pushed": 1, "function_version": ')
    team.commit("mended")
    assert f"run {run + 2} of feature succeeded" in team.push("feature")
    assert states(team.runs()[0]) == {"source": "succeeded", "test": "succeeded"}
    team.git("switch", "--quiet", "dev")
    team.git("merge", "--quiet", "--no-ff", "-m", "merged", "feature")
    release = team.site.stage("dev")["live"]["release"]
    assert f"release {release + 1} is live in dev" in team.push("dev")
    assert team.site.get("/release")[2]["pushed"] == 1
    return team.git("rev-parse", "HEAD").strip()


def broken_change(team: Team, good: str) -> None:
    """Live in dev, where it works; stopped by the rehearsal, and without it by the canary's alarm."""
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


def test_a_build_ends_with_a_killed_daemon_and_its_run_can_be_retried(team: Team, gate: Path) -> None:
    (team.site.folder / "buildspec-test.yml").write_text(
        f"version: 0.2\nphases: {{build: {{commands: ['echo begun', 'until [ -e {gate} ]; do sleep 0.05; done']}}}}\n"
    )
    team.commit("a test that waits")
    number, release = team.last_run() + 1, team.site.stage()["live"]["release"]
    words = ["git", "push", "engine", "dev"]
    with subprocess.Popen(words, cwd=team.site.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as push:
        eventually(lambda: "\nbegun" in team.log(number), deadline_s=60, what="the build has begun")
        eventually(lambda: builds_of(gate), what="the build waits")
        os.kill(team.site.status()["engine"]["pid"], signal.SIGKILL)
        eventually(lambda: not builds_of(gate), what="the build has ended")
        push.communicate(timeout=30)
    team.site.up()
    run = team.run(number)
    assert (run["state"], states(run)["test"]) == ("interrupted", "interrupted")
    gate.touch()
    retried = team.site.hitless("pipeline", "retry", str(number)).document
    assert (retried["state"], retried["release"]) == ("succeeded", release + 1)


def builds_of(gate: Path) -> list[str]:
    """Processes that have the gate in their arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(gate).encode() in entry.read_bytes():
                found.append(entry.parent.name)
    return found
