"""From a git push to a live release, with real git and a real engine."""

from __future__ import annotations

import pytest

from tests.process.conftest import Site
from tests.process.pipeline_support import Team, states

pytestmark = pytest.mark.process


@pytest.fixture
def team(site: Site) -> Team:
    one = Team(site)
    one.begin()
    return one


def test_a_push_ships_what_passes_its_tests_and_nothing_else(team: Team) -> None:
    team.site.edit('"release": RELEASE, "function', '"pushed": 1, "release": RELEASE, "function')
    commit = team.commit("more in the answer")
    said = team.push("dev")
    assert "release 2 is live in dev" in said
    run = team.runs()[0]
    assert (run["state"], run["release"], run["commit"]) == ("succeeded", 2, commit)
    assert states(run)["test"] == states(run)["verify"] == "succeeded"
    assert team.site.get("/release")[2]["pushed"] == 1

    team.site.edit("def answer(body: object, status: int = 200)", "def answer(body: object, status: int = 500)")
    team.commit("a mistake")
    said = team.push("dev")
    assert "test: buildspec-test.yml: phase build failed" in said
    run = team.runs()[0]
    assert (run["state"], run["release"]) == ("failed", None)
    assert states(run) == {"source": "succeeded", "test": "failed"}
    assert team.site.stage()["live"]["commit"] == commit
