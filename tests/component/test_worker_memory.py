"""Memory as the kernel reports it: of a living process, of a dead one, of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hitless.worker.memory import family, held_mb
from hitless.workers.usage import machine_mb, mean_share_mb, share_mb

pytestmark = [pytest.mark.component, pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux")]


def test_the_memory_share_of_a_living_process_is_read_and_a_dead_one_has_none() -> None:
    code = "kept = bytearray(64 << 20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        own, held = share_mb(os.getpid()), share_mb(process.pid)
        assert own
        assert held
        assert 64 < held < 200
        assert mean_share_mb([process.pid]) == pytest.approx(held, rel=0.1)
        assert (mean_share_mb([os.getpid()]) or 0) > own + 60, "with its children"
        assert (mean_share_mb([os.getpid(), process.pid]) or 0) > (own + 60 + held) / 2
        process.kill()
    assert share_mb(process.pid) is None
    assert mean_share_mb([process.pid]) is None


def test_memory_that_forks_share_counts_once_and_a_file_does_not_count(tmp_path: Path) -> None:
    """As on Lambda, where an environment's processes share one limit (the cgroup counts a page once)."""
    code = """
import mmap, os, sys
file = open(sys.argv[1], "w+b"); file.truncate(256 << 20); mapped = mmap.mmap(file.fileno(), 0); mapped[::4096]
kept = b"x" * (100 << 20)
for _ in range(3):
    if not os.fork():
        os.read(0, 1); os._exit(0)
print(flush=True); os.read(0, 1)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        pids = family(process.pid)
        assert len(pids) == 4
        assert 400 < held_mb(pids, 1000) < 500, "fast, and at least the truth"
        assert 100 <= held_mb(pids, 128) < 128
        process.communicate(b"xxxx")
    assert held_mb(pids, 128) == 0


def test_the_machines_memory_is_read_from_meminfo_or_the_cgroups_limit() -> None:
    (line,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    found = machine_mb()
    assert found
    assert 0 < found <= int(line.split()[1]) // 1024
