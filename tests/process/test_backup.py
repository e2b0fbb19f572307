"""A backup of a running engine restores an engine that serves the same release."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.process.conftest import Site

pytestmark = pytest.mark.process


def test_a_restored_engine_serves_the_same_release(running: Site, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    running.touch("second")
    running.hitless("deploy")
    before = running.stage()["live"]
    running.hitless("backup", str(archive))
    assert archive.stat().st_mode & 0o777 == 0o600
    assert "an engine is running" in running.hitless("restore", str(archive), exit_code=None).stderr
    running.hitless("down", "--force")
    assert "already has state" in running.hitless("restore", str(archive), exit_code=None).stderr
    shutil.rmtree(running.folder / ".hitless")
    running.hitless("restore", str(archive))
    running.up()
    assert running.stage()["live"] == before
    assert running.get("/release")[2]["release"] == str(before["release"])
    assert len(running.hitless("releases").document) == 2
