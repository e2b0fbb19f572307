"""Real small disks for the data folder and the runtime folder, full, read-only or damaged under an engine at work."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Site
from tests.process.pipeline_support import LoadOnAll
from tests.process.test_pipeline_disk import _fill, _succeeds
from tests.support import eventually

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[tuple[Site, Path, Path]]:
    """The plain service, not started, its data folder and the parent of its runtime folder."""
    site = Site.plain(tmp_path)
    data, run = site.folder / ".hitless", Path(tempfile.mkdtemp(prefix="hl-", dir="/tmp"))
    data.mkdir()
    site.environ["XDG_RUNTIME_DIR"] = str(run)
    mounted = []
    try:
        for folder in (data, run):
            if os.getuid() != 0 or not _succeeds(
                "mount", "-t", "tmpfs", "-o", "size=40m,mode=0700", "tmpfs", str(folder)
            ):
                pytest.skip("a small disk can be mounted by root only, and not in every container")
            mounted.append(folder)
        yield site, data, run
        site.end()
    finally:
        for folder in mounted:
            eventually(lambda folder=folder: _succeeds("umount", str(folder)), what="it is unmounted")  # type: ignore[misc]
        shutil.rmtree(run, ignore_errors=True)


def test_a_full_data_or_runtime_folder_refuses_changes_by_name_and_needs_no_restart(
    disks: tuple[Site, Path, Path],
) -> None:
    site, data, run = disks
    daemon = site.up()["engine"]["pid"]
    site.hitless("promote", "dev", "prod")
    shipped = site.stage()["live"]["release"]
    with LoadOnAll({"dev": site.url}, 30) as load:
        for full, folder in (([data], data), ([run], run), ([run, data], data)):
            site.touch(f"{full}")
            for one in full:
                _fill(one / "filler")
            failed = site.hitless("deploy", exit_code=None)
            assert failed.exit_code in (1, 3)
            assert f"{folder}/" in failed.stderr
            assert "No space left on device" in failed.stderr
            if data in full:
                refused = site.hitless("promote", "dev", "prod", exit_code=1).stderr
                assert f"{data}/state.sqlite: the state file cannot be used: database or disk is full" in refused
                stored = site.hitless("secrets", "set", "A", exit_code=None, stdin=f"{full}")
                assert stored.exit_code == 0 or f"{data}/secrets.json: No space left on device" in stored.stderr
            for _ in range(500):  # a line of the log each
                assert site.get("/fast")[0] == 200
            for one in full:
                (one / "filler").unlink()
            site.hitless("deploy")
            site.hitless("promote", "dev", "prod")
            assert site.stage()["live"]["release"] > shipped
            shipped = site.stage()["live"]["release"]
        assert site.status()["engine"]["pid"] == daemon
    assert load.driven["dev"].failed.total() == 0
    assert load.driven["dev"].requests > 200
    known = [one["release"] for one in site.hitless("releases").document]
    assert sorted(known) == sorted(set(known))
    assert shipped in known


def test_a_read_only_data_folder_and_a_damaged_state_file_are_named_and_the_backup_restores_it(
    disks: tuple[Site, Path, Path],
) -> None:
    site, data, _ = disks
    state = data / "state.sqlite"
    site.up()
    site.hitless("down", "--force")
    eventually(lambda: _succeeds("mount", "-o", "remount,ro", str(data)), what="nobody writes there")
    refused = site.hitless("up", "--detach", exit_code=1)
    assert f"{data}: Read-only file system" in refused.stderr
    assert _succeeds("mount", "-o", "remount,rw", str(data))
    daemon = site.up()["engine"]["pid"]
    site.touch("1")
    site.hitless("deploy")
    with LoadOnAll({"dev": site.url}, 30) as load:
        _damage(state)
        site.touch("2")
        refused = site.hitless("deploy", exit_code=1)
        assert f"{state}: the state file is damaged" in refused.stderr
        assert f"`kill -9 {daemon}`" in refused.stderr
        os.kill(daemon, 9)
        assert _succeeds("sh", "-c", f"rm -f {state}-wal {state}-shm; cp {state}.backup {state}")
        site.hitless("up", "--detach")
        site.hitless("deploy")
    assert site.stage()["live"]["release"] == 3
    assert load.driven["dev"].failed.total() == 0


def _damage(state: Path) -> None:
    os.truncate(f"{state}-wal", 0)
    with state.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 8192)
