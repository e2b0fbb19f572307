"""However a rehearsal ends, nothing of its sandbox's engine is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from hitless.engine.folders import Folders, hold
from hitless.errors import EngineError
from hitless.pipeline.children import close_input
from hitless.pipeline.rehearsal.leftovers import leftovers, sweep
from hitless.store.store import Store
from hitless.worker.memory import family
from tests.process.conftest import Site
from tests.support import eventually, gone

pytestmark = pytest.mark.process


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a sandbox's processes are found by Linux's /proc")
def test_a_killed_rehearsal_leaves_nothing(running: Site, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    ends: tuple[Callable[[subprocess.Popen[bytes]], None], ...] = (subprocess.Popen.kill, close_input)
    for end in ends:
        with rehearsal(running, temporary) as process:
            of_sandbox = with_both_up(process)
            (data,) = temporary.glob("hitless-sandbox-*/data")
            run = Folders.of(data, os.environ).run
            assert run.is_dir()
            end(process)
            assert process.stderr is not None
            assert b"rolling out" not in process.stderr.read(), "it did not go on to its end"
        all_gone(of_sandbox, run, temporary)
    assert running.status()["stages"], "the engine itself goes on"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a sandbox's processes are found by Linux's /proc")
def test_the_next_rehearsal_removes_the_leftovers_of_a_killed_warden(running: Site, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with rehearsal(running, temporary) as process:
        of_sandbox = with_both_up(process)
        (data,) = temporary.glob("hitless-sandbox-*/data")
        run = Folders.of(data, os.environ).run
        assert leftovers(temporary) == [], "somebody looks after it"
        warden = next(pid for pid in of_sandbox if b"rehearsal_warden" in command_of(pid))
        os.kill(warden, signal.SIGSTOP)  # or it would begin to clean up when the other has died
        for pid in (process.pid, warden):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: leftovers(temporary), what="nobody looks after it any more")
        assert not all(map(gone, of_sandbox)), "it serves on"
        process.wait()
    command = [sys.executable, "-m", "hitless.processes.rehearsal_sweeper"]
    subprocess.run(command, env={**os.environ, "TMPDIR": str(temporary)}, check=True, timeout=60)
    all_gone(of_sandbox, run, temporary)


def test_sandboxes_that_are_in_use_or_new_are_not_removed(tmp_path: Path) -> None:
    made = {name: tmp_path / f"hitless-sandbox-{name}" for name in ("held", "new", "old", "killed")}
    for folder in (*made.values(), tmp_path / "another"):
        folder.mkdir()
    for name in ("held", "killed"):
        (made[name] / "rehearsal.lock").touch()
    os.utime(made["old"], (0, 0))
    lock = hold(made["held"] / "warden.lock")
    assert set(leftovers(tmp_path)) == {made["old"], made["killed"]}

    def cannot(folder: Path) -> None:
        raise EngineError("it does not end")

    assert sweep(tmp_path, cannot) == 0
    assert sweep(tmp_path, lambda folder: None) == 2
    assert made["held"].is_dir()
    assert made["new"].is_dir()
    assert leftovers(tmp_path) == []
    os.close(lock)
    assert leftovers(tmp_path) == [made["held"]]


def command_of(pid: int) -> bytes:
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    return b""


def all_gone(of_sandbox: list[int], run: Path, temporary: Path) -> None:
    eventually(lambda: all(map(gone, of_sandbox)), what="every process of the sandbox has ended")
    eventually(lambda: not run.exists(), what="its sockets' folder has gone")
    eventually(lambda: not list(temporary.iterdir()), what="its folder has gone")


def rehearsal(site: Site, temporary: Path) -> subprocess.Popen[bytes]:
    """As the pipeline starts it, with the live release as the candidate."""
    store = Store(site.folders.state_file, read_only=True)
    try:
        row = store.release("dev", 1)
        assert row is not None
    finally:
        store.close()
    words = [sys.executable, "-m", "hitless", "rehearse", "--json", "--plan", "--data-dir", str(site.folders.data)]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"live": row.document, "candidate": row.document}).encode() + b"\n")
    process.stdin.flush()
    return process


def with_both_up(process: subprocess.Popen[bytes]) -> list[int]:
    """Every process of the sandbox, once both releases are up in it."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if b"the candidate is up" in line:
            found = family(process.pid)[1:]
            assert len(found) > 6, "the warden, the daemon, HAProxy, and each release's workers"
            return found
    raise AssertionError(b"".join(said).decode())
