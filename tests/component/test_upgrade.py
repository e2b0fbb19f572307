"""`hitless upgrade` without processes: what it refuses before anything changes, and which processes it replaces."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hitless.cli.settings import EngineSettings
from hitless.cli.upgrade import _check_version, _environment, _replace_daemon, check
from hitless.engine.folders import Folders
from hitless.engine.upgrade import Upgrade
from hitless.errors import ConflictError, EngineError
from hitless.store.migrations import MIGRATIONS
from hitless.store.store import Store
from tests.commands import run_hitless

pytestmark = pytest.mark.component


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """An engine's folders with state and settings, without processes."""
    found = Folders(tmp_path / "data", tmp_path / "run")
    found.create()
    EngineSettings("clock", (), 1).write(found)
    Store(found.state_file).close()
    check(found)
    return found


@pytest.fixture
def locks() -> Iterator[list[int]]:
    found: list[int] = []
    yield found
    for descriptor in found:
        os.close(descriptor)


def test_without_an_engine_nothing_is_upgraded(tmp_path: Path) -> None:
    ran = run_hitless("upgrade", "--data-dir", str(tmp_path), "--json", environ=os.environ)
    assert ran.code == 5
    assert "no engine is running" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_newer_state_is_refused_with_the_way_back(folders: Folders) -> None:
    kept = Path(f"{folders.state_file}.schema-{len(MIGRATIONS)}")
    with closing(sqlite3.connect(folders.state_file)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(EngineError, match="written by a newer hitless") as caught:
        check(folders)
    assert "run the newer hitless" in caught.value.hint
    kept.touch()
    with pytest.raises(EngineError) as caught:
        check(folders)
    assert f"cp {kept} {folders.state_file}" in caught.value.hint


def test_workers_whose_formats_this_version_does_not_know_are_refused(folders: Folders, locks: list[int]) -> None:
    generation = folders.run / "w" / "pool" / "g1"
    generation.mkdir(parents=True)
    (generation.parent / "page").write_bytes(b"another layout".ljust(4096))
    check(folders)  # no process lives there
    locks.append(os.open(generation / "alive.lock", os.O_RDWR | os.O_CREAT))
    fcntl.flock(locks[0], fcntl.LOCK_EX)
    with pytest.raises(ConflictError, match=r"cannot adopt the running version's workers \(pool\)") as caught:
        check(folders)
    assert "hitless down" in caught.value.hint


def test_the_daemon_is_not_replaced_during_a_rollout(folders: Folders) -> None:
    status = {"engine": {"pid": os.getpid()}, "stages": [{"stage": "dev", "candidate": {"release": 4}}]}
    with pytest.raises(ConflictError, match="a rollout of dev is in progress"):
        _replace_daemon(folders, status)


def test_a_unit_of_another_version_is_named(folders: Folders) -> None:
    folders.unit_file.write_text("hitless@clock.service\n/run/hitless-clock\n")
    with pytest.raises(EngineError, match=r"hitless@clock\.service runs hitless 0\.0\.9, but this is") as caught:
        _check_version(folders, "0.0.9")
    assert "hitless host install" in caught.value.hint


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_the_new_daemon_gets_the_environment_of_the_old_one() -> None:
    environ = _environment(os.getppid())
    assert environ is not None
    assert "PATH" in environ
    assert _environment(2**22 + 1) is None, "no such process"
    code = "import setproctitle; setproctitle.setproctitle('x' * 200); print(flush=True); input()"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as titled:
        assert titled.stdout is not None
        titled.stdout.readline()
        assert _environment(titled.pid) is None, "its title has overwritten it"
        titled.kill()


class FakeParts:
    """An engine's processes: one pid each, and the order in which they were replaced."""

    def __init__(self) -> None:
        self.guardian_pid, self.spooler_pid, self.root_pid, self.haproxy_pid = 1, 2, 3, 5
        self.replaced: list[str] = []
        self.sentences: list[str] = []
        self.failing = ""
        self.replacement = SimpleNamespace(
            guardian=self._replacing("guardian_pid"), spooler=self._replacing("spooler_pid")
        )
        self.replace_root, self.replace_haproxy = self._replacing("root_pid"), self._replacing("haproxy_pid")
        self.pools: dict[str, Any] = {}

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def _replacing(self, name: str) -> Callable[[], Awaitable[None]]:
        async def replace() -> None:
            if self.failing == name:
                raise EngineError("it does not start")
            self.replaced.append(name)
            setattr(self, name, getattr(self, name) + 10)

        return replace

    def upgrade(self) -> Upgrade:
        return Upgrade(cast("Any", self), cast("Any", self), cast("Any", self))


def run(upgrade: Upgrade) -> list[dict[str, Any]]:
    async def story() -> list[dict[str, Any]]:
        return [line async for line in upgrade.run()]

    return asyncio.run(story())


def test_only_processes_of_an_earlier_daemon_are_replaced_and_haproxy_is_last() -> None:
    parts = FakeParts()
    upgrade = parts.upgrade()
    assert run(upgrade) == [], "this daemon has started all"
    upgrade.remember_adopted(root=False)
    lines = run(upgrade)
    assert lines[0] == {"replaced": {"part": "guardian", "before": 1, "after": 11}}
    assert parts.replaced == ["guardian_pid", "spooler_pid", "haproxy_pid"]
    assert run(upgrade) == [], "nothing is left"


def test_an_upgrade_ends_at_a_failure_and_continues_when_it_is_repeated() -> None:
    parts = FakeParts()
    upgrade = parts.upgrade()
    upgrade.remember_adopted(root=True)
    parts.failing = "root_pid"
    assert run(upgrade)[-1]["error"]["message"] == "it does not start"
    assert parts.sentences[-1] == "upgrade: root zygote was not replaced: it does not start"
    parts.failing = ""
    assert [line["replaced"]["part"] for line in run(upgrade)] == ["root zygote", "HAProxy"]
