"""Finds the files and processes of one generation of a pool (a zygote and its workers), and stops them.

Locks that the processes hold, and recorded pids with start times, say whether a process lives; a file alone never does.
A free lock means that all are dead. A held lock may belong to a process that a handler started.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hitless.clock import Clock
from hitless.documents import decode
from hitless.errors import EngineError
from hitless.worker.isolation import is_private
from hitless.worker.layout import SlotField, StatsPage
from hitless.worker.paths import GenerationPaths
from hitless.worker.process import is_locked, signal_verified, start_time
from hitless.worker.spec import PoolSpec
from hitless.workers.channel import Channel, ZygoteMessage

LONGEST_SOCKET_PATH = 97
"""Bytes of a Unix socket's path that HAProxy accepts."""
_KILL_LIMIT_S = 10.0
_ZYGOTE_MARGIN_S = 2.0
_UNRECORDED_S = 0.5
"""The time after its fork in which a worker records its pid."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, identified by pid and start time."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        return cls(pid, start_time(pid))

    @property
    def lives(self) -> bool:
        return self.started != 0 and start_time(self.pid) == self.started

    def signal(self, number: signal.Signals, *, group: bool = False) -> bool:
        """Send a signal; False if that process is gone."""
        return signal_verified(self.pid, self.started, number, group=group)


def generations_of(pool: Path) -> list[GenerationPaths]:
    """The generations whose folders exist, oldest first."""
    numbers = sorted(int(folder.name[1:]) for folder in pool.glob("g*") if folder.name[1:].isdigit())
    return [GenerationPaths(pool, number) for number in numbers]


def check_length(paths: GenerationPaths, spec: PoolSpec) -> None:
    """Raises EngineError if HAProxy would refuse the paths of the pool's sockets."""
    longest = str(GenerationPaths(paths.pool, 99).socket(spec.workers - 1))
    if len(longest.encode()) > LONGEST_SOCKET_PATH:
        raise EngineError(
            f"the socket path {longest} is longer than {LONGEST_SOCKET_PATH} bytes",
            hint="use a shorter runtime folder (XDG_RUNTIME_DIR)",
        )


def read_spec(folder: Path) -> PoolSpec | None:
    """The specification in a pool's folder; None if it is missing or of another version."""
    try:
        return PoolSpec.from_json((folder / "spec.json").read_text())
    except (OSError, ValueError):
        return None


def foreign_pools(run_dir: Path) -> list[str]:
    """The folders of running pools that this version cannot adopt, because their formats are of another version."""
    return [folder.name for folder in sorted((run_dir / "w").glob("*/")) if _is_foreign(folder)]


def _is_foreign(folder: Path) -> bool:
    living = [paths for paths in generations_of(folder) if is_locked(paths.alive_lock)]
    try:
        for paths in living:
            StatsPage(paths.page, writable=False).close()
    except (OSError, ValueError):
        return True
    return bool(living) and read_spec(folder) is None


class _ZygoteRecord(msgspec.Struct, frozen=True):
    """`zygote.json`, as the zygote writes it."""

    pid: int
    started: int
    fresh: bool
    private: bool = False


def zygote_identity(paths: GenerationPaths) -> tuple[ProcessId, bool] | None:
    """The zygote's process, and whether its workers are fresh processes; None if it has recorded nothing yet."""
    record = _record(paths)
    return None if record is None else (ProcessId(record.pid, record.started), record.fresh)


def _record(paths: GenerationPaths) -> _ZygoteRecord | None:
    try:
        return decode(paths.zygote.read_bytes(), _ZygoteRecord, str(paths.zygote))
    except (OSError, EngineError):
        return None


def zygote_is_alive(paths: GenerationPaths) -> bool:
    identity = zygote_identity(paths)
    return identity is not None and identity[0].lives


def worker_processes(paths: GenerationPaths) -> list[ProcessId]:
    """The workers that the stats page lists; other processes may have their pids by now."""
    try:
        page = StatsPage(paths.page, writable=False)
    except (OSError, ValueError):
        return []
    slots = [page.slot(page.slot_index(paths.generation, index)).tolist() for index in range(page.workers)]
    page.close()
    ours = [fields for fields in slots if fields[SlotField.GENERATION] == paths.generation and fields[SlotField.PID]]
    found = [ProcessId(fields[SlotField.PID], fields[SlotField.STARTED]) for fields in ours]
    if (record := _record(paths)) is not None and record.private:  # a handler can write any pid into the page
        found = [process for process in found if is_private(str(paths.folder), process.pid)]
    return found


def generation_is_alive(paths: GenerationPaths) -> bool:
    """Whether its zygote or one of its workers lives, by their records."""
    return zygote_is_alive(paths) or any(worker.lives for worker in worker_processes(paths))


async def end_generation(
    paths: GenerationPaths, *, grace_s: float, clock: Clock, zygote: ProcessId | None = None
) -> None:
    """SIGTERM, grace, SIGKILL; returns when all its processes are dead and its folder is removed. Idempotent.

    `zygote` is its process if the caller knows it, for a zygote that has not yet taken its locks. Raises EngineError if
    a process survives SIGKILL.
    """
    if zygote is not None:
        zygote.signal(signal.SIGKILL, group=True)
    if is_locked(paths.alive_lock):
        await _ask_to_stop(paths, grace_s)
        margin_s = _ZYGOTE_MARGIN_S if zygote_is_alive(paths) else 0.0
        if not await _all_dead(paths, grace_s + margin_s, clock):
            await _kill(paths, clock)
    if (record := _record(paths)) is not None and record.private:
        await asyncio.to_thread(end_private, paths.folder)
    shutil.rmtree(paths.folder, ignore_errors=True)


def end_private(folder: Path) -> None:
    """SIGKILL the processes whose private file system has this folder, in whatever session they are. Linux only."""
    if sys.platform != "linux":
        return
    for _ in range(100):  # each pass finds processes that were forked during the previous pass
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and is_private(str(folder), name)]
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def _ask_to_stop(paths: GenerationPaths, grace_s: float) -> None:
    if zygote_is_alive(paths):
        with suppress(OSError):
            channel = await Channel.connect(paths.control)
            channel.send({"op": "stop", "grace_s": grace_s})
            # The greeting shows that the loop runs, and the loop reads the request before it does anything else.
            with suppress(TimeoutError):
                async with asyncio.timeout(min(grace_s + _ZYGOTE_MARGIN_S, 5.0)):
                    while await channel.receive(ZygoteMessage) is not None:
                        pass
            await channel.close()
            return
    for worker in worker_processes(paths):
        worker.signal(signal.SIGTERM)


async def _kill(paths: GenerationPaths, clock: Clock) -> None:
    end = clock.monotonic() + _KILL_LIMIT_S
    while clock.monotonic() < end:
        identity = zygote_identity(paths)
        if identity is not None:
            identity[0].signal(signal.SIGKILL)  # first, or it would replace the workers
        for worker in worker_processes(paths):
            worker.signal(signal.SIGKILL, group=True)
        if await _all_dead(paths, 2 * _UNRECORDED_S, clock):
            return
    raise EngineError(
        f"processes of {paths.folder} survive SIGKILL",
        hint="look for processes in state D: they wait for a disk or network",
    )


async def _all_dead(paths: GenerationPaths, within_s: float, clock: Clock) -> bool:
    seen = clock.monotonic()
    end = seen + within_s
    pause_s = 0.002
    while is_locked(paths.alive_lock):
        now = clock.monotonic()
        if generation_is_alive(paths):
            seen = now
        if now - seen > _UNRECORDED_S:
            return True
        if now >= end:
            return False
        await clock.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)
    return True
