"""The disk of the data folder fills during a run: the workers keep serving, and the run's end is recorded."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hitless.pipeline.workshop import Workshop
from tests.process.conftest import Site
from tests.process.pipeline_holds import Holds, holds
from tests.process.pipeline_support import LoadOnAll, Team, states
from tests.support import eventually

pytestmark = pytest.mark.process

STAGES = """    stages:
      dev: {listen: '127.0.0.1:0', alarms: {guard_s: 0}}
"""


@pytest.fixture
def held() -> Iterator[Holds]:
    with holds() as found:
        yield found


@pytest.fixture
def team(tmp_path: Path, held: Holds) -> Iterator[Team]:
    """Its data folder is a small disk of its own."""
    site = Site.plain(tmp_path)
    data = site.folder / ".hitless"
    data.mkdir()
    if os.getuid() != 0 or not _succeeds("mount", "-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs", str(data)):
        pytest.skip("a small disk can be mounted by root only, and not in every container")
    try:
        buildspec = f"version: 0.2\nphases: {{build: {{commands: ['{held.command}']}}}}\n"
        with Team(site, STAGES, buildspec).at_work() as one:
            yield one
    finally:
        gone = ["umount", str(data)]
        eventually(
            lambda: subprocess.run(gone, capture_output=True, check=False).returncode == 0, what="it is unmounted"
        )


@pytest.mark.long
def test_a_full_disk_fails_the_run_and_nothing_else(team: Team, held: Holds) -> None:
    site, run, commit = team.site, team.last_run() + 1, team.site.stage()["live"]["commit"]
    with LoadOnAll({"dev": site.url}, 60) as load:
        held.close("test")
        site.touch("as the disk fills")
        team.commit("as the disk fills")
        push = team.push_in_background("dev")
        eventually(lambda: "\nbegun" in team.log(run), deadline_s=60, what="the test is under way")
        filler = site.folders.data / "filler"
        _fill(filler)
        held.open("test")
        work = Workshop.of(site.folders.data, os.environ).work_of(run)
        eventually(lambda: not work.exists(), what="its course has broken off")
        assert team.run(run)["state"] == "running", "there is no room for its end"
        site.touch("onto the full disk")
        team.commit("onto the full disk")
        assert "No space left on device" in team.push("dev", exit_code=1)
        assert site.stage()["live"]["commit"] == commit
        filler.unlink()
        ended = team.ended(run)
        assert ended["state"] == "failed"
        assert "running" not in states(ended).values()
        push.communicate(timeout=30)
        assert "succeeded" in team.push("dev")
    assert load.driven["dev"].failed.total() == 0
    assert load.driven["dev"].requests > 100


def _fill(file: Path) -> None:
    """Fill the disk to the last block."""
    with file.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(b"x" * 4096)
        except OSError:
            return


def _succeeds(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
