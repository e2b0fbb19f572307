"""The engine's folders are found from any shell and are never another user's."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from hitless.engine.folders import Folders, lock_engine
from hitless.errors import ConflictError, MachineError
from hitless.worker.process import is_locked
from tests.support import over_and_over

pytestmark = pytest.mark.component


def folders_in(tmp_path: Path, runtime: str | None = "runtime") -> Folders:
    """The folders as a shell with that `$XDG_RUNTIME_DIR` sees them."""
    return Folders.of(tmp_path / "data", {"XDG_RUNTIME_DIR": str(tmp_path / runtime)} if runtime else {})


def test_an_engine_is_found_from_a_shell_with_another_xdg_runtime_dir(tmp_path: Path) -> None:
    started = folders_in(tmp_path)
    started.create()
    started.record_run_folder()
    assert folders_in(tmp_path, "another").run == started.run
    assert folders_in(tmp_path, None).run == started.run


def test_a_recorded_runtime_folder_that_is_gone_or_replaced_is_ignored(tmp_path: Path) -> None:
    started = folders_in(tmp_path)
    started.create()
    started.record_run_folder()
    started.remove_run_folder()
    elsewhere = folders_in(tmp_path, "another")
    assert elsewhere.run != started.run
    (tmp_path / "trap").mkdir()
    started.run.symlink_to(tmp_path / "trap")
    assert folders_in(tmp_path, "another").run == elsewhere.run


def test_an_existing_data_folder_keeps_its_mode_and_gets_private_contents(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    folders.data.mkdir(mode=0o755)
    folders.create()
    assert stat.S_IMODE(folders.data.stat().st_mode) == 0o755
    assert folders.is_open_to_others
    for private in (folders.artifacts, folders.logs, folders.run):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_a_data_folder_made_by_hitless_is_private(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    folders.create()
    assert stat.S_IMODE(folders.data.stat().st_mode) == 0o700
    assert not folders.is_open_to_others


@pytest.mark.parametrize("found", [False, True])
def test_git_ignores_a_data_folder(tmp_path: Path, found: bool) -> None:
    folders = folders_in(tmp_path)
    if found:
        folders.data.mkdir(mode=0o700)
    folders.create()
    folders.state_file.write_text("a secret")
    (tmp_path / "handlers.py").write_text("")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "-A"], check=True)
    staged = subprocess.run(["git", "-C", tmp_path, "diff", "--cached", "--name-only"], capture_output=True, check=True)
    assert staged.stdout == b"handlers.py\n"


@pytest.mark.parametrize("own", [".gitignore", ".git", "serverless.yml"])
def test_a_data_folder_with_the_users_files_gets_no_gitignore(tmp_path: Path, own: str) -> None:
    folders = folders_in(tmp_path)
    folders.data.mkdir(mode=0o700)
    (folders.data / own).write_text("theirs")
    folders.create()
    assert [path.name for path in folders.data.glob(".gitignore")] == [".gitignore"] * (own == ".gitignore")
    assert (folders.data / own).read_text() == "theirs"


def test_a_data_folder_writable_by_everybody_is_refused(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    folders.data.mkdir()
    folders.data.chmod(0o777)
    with pytest.raises(MachineError, match="is writable by everybody") as caught:
        folders.create()
    assert "chmod 700" in caught.value.hint


def test_a_runtime_folder_that_is_not_empty_is_not_removed(tmp_path: Path) -> None:
    started = folders_in(tmp_path)
    started.create()
    (started.run / "gw").mkdir()
    started.remove_run_folder()
    assert (started.run / "gw").is_dir()


def test_another_users_runtime_folder_is_refused_and_ours_is_private(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    folders.run.parent.mkdir()
    (tmp_path / "trap").mkdir(mode=0o755)
    folders.run.symlink_to(tmp_path / "trap")
    with pytest.raises(MachineError, match="belongs to another user"):
        folders.create()
    assert stat.S_IMODE((tmp_path / "trap").stat().st_mode) == 0o755
    os.unlink(folders.run)
    folders.run.mkdir(mode=0o755)
    folders.create()
    assert stat.S_IMODE(folders.run.stat().st_mode) == 0o700


def test_checking_the_lock_does_not_look_like_an_engine(tmp_path: Path) -> None:
    path = tmp_path / "engine.lock"
    path.touch()
    looking = os.open(path, os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not is_locked(path)
    leaves = threading.Timer(0.05, os.close, [looking])
    leaves.start()
    lock = lock_engine(path)
    leaves.join()
    assert is_locked(path)
    with pytest.raises(ConflictError, match="another engine is running"):
        lock_engine(path)
    os.close(lock)
    assert not is_locked(path)


def test_an_inaccessible_data_folder_is_reported_with_its_owner(tmp_path: Path) -> None:
    folders_in(tmp_path).create()
    owner = pwd.getpwuid(os.getuid()).pw_name
    (tmp_path / "data").chmod(0o000)
    if os.getuid() == 0:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        with pytest.raises(MachineError, match=f"is not accessible: it belongs to {owner}$") as refused:
            folders_in(tmp_path)
    finally:
        os.seteuid(os.getuid())
    assert f"sudo -u {owner}" in refused.value.hint
    (tmp_path / "data").chmod(0o700)


def test_the_search_for_running_processes_tolerates_folders_that_disappear(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    folders.create()
    pool = folders.run / "w" / "dev-r1-api-1" / "g1"

    def comes_and_goes() -> None:
        pool.mkdir(parents=True)
        (pool / "alive.lock").touch()
        shutil.rmtree(folders.run / "w")

    with over_and_over(comes_and_goes):
        assert not any(folders.remains() for _ in range(100))
    pool.mkdir(parents=True)
    with (pool / "alive.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert folders.remains()
    assert not folders.remains()


@pytest.mark.skipif(not os.access("/run", os.W_OK), reason="only who may write to /run has its folder there")
def test_the_runtime_folder_is_not_in_a_cleaned_temporary_folder(tmp_path: Path) -> None:
    assert folders_in(tmp_path, None).run.parent == Path("/run")
