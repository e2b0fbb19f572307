"""Starts one generation of a pool, or says in one sentence why the candidate failed.

Ready means: every worker reported so, and responds to a probe on its socket. Invariant: after any failure or
cancellation, nothing of the generation is left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.clock import Clock
from hitless.errors import CandidateFailedError
from hitless.release.source import in_source, last_place
from hitless.worker.crash import death_cause, log_path
from hitless.worker.paths import GenerationPaths
from hitless.worker.spec import PoolSpec
from hitless.worker.zygote import DUMP_SIGNAL
from hitless.workers.channel import Channel, ZygoteMessage
from hitless.workers.generation import ProcessId, end_generation
from hitless.workers.root import RootZygote

_MOST_LINES = 20
_LAST_WORD_S = 1.0


@dataclass(frozen=True, slots=True)
class Launched:
    """A running generation: its zygote and the connection to it."""

    zygote: ProcessId
    channel: Channel
    fresh: bool


class _Unsafe(Exception):
    """Forking after the import is unsafe; the message says why."""


async def bring_up(
    root: RootZygote, spec: PoolSpec, paths: GenerationPaths, *, size: int, fresh: bool, timeout_s: float, clock: Clock
) -> Launched:
    """Start the generation in its prepared pool folder. Raises CandidateFailedError, EngineError."""
    end = asyncio.get_running_loop().time() + timeout_s
    if not fresh:
        with suppress(_Unsafe):
            return await _attempt(root, spec, paths, size, False, end, timeout_s, clock)
    return await _attempt(root, spec, paths, size, True, end, timeout_s, clock)


async def _attempt(
    root: RootZygote,
    spec: PoolSpec,
    paths: GenerationPaths,
    size: int,
    fresh: bool,
    end: float,
    timeout_s: float,
    clock: Clock,
) -> Launched:
    paths.folder.mkdir(mode=0o700)
    spawning = asyncio.create_task(root.spawn(spec, paths, size=size, fresh=fresh))
    zygote: ProcessId | None = None
    channel: Channel | None = None
    log = Path(spec.log_dir) / "zygote.log"
    log_start = _size(log)
    own_log = log_path(spec, 0)  # of a worker that imports the handler itself
    own_start = _size(own_log)
    try:
        zygote = ProcessId.of(await asyncio.shield(spawning))
        try:
            async with asyncio.timeout_at(end):
                with suppress(OSError):
                    channel = await Channel.connect(paths.control)
                if channel is None or not await _until_ready(channel):
                    raise await _failure_reason(root, spec, paths, zygote, log, log_start)
                left_s = end - asyncio.get_running_loop().time()
                # 0.9, so that the probe's own message comes before the deadline
                await _probe_all(spec, paths, size, left_s * 0.9)
        except TimeoutError:
            if fresh:
                raise _late_error(spec, timeout_s, own_log, _output(own_log, own_start)) from None
            raise _late_error(spec, timeout_s, log, await _dump_stack(zygote, log, log_start)) from None
        paths.accepted.touch(mode=0o600)
        return Launched(zygote, channel, fresh)
    except BaseException:
        if zygote is None:  # cancelled during the fork: the zygote must not be forgotten
            pids = await asyncio.gather(spawning, return_exceptions=True)
            zygote = ProcessId.of(pids[0]) if isinstance(pids[0], int) else None
        if channel is not None:
            await channel.close()
        await end_generation(paths, grace_s=0, clock=clock, zygote=zygote)
        raise


async def _until_ready(channel: Channel) -> bool:
    while (message := await channel.receive(ZygoteMessage)) is not None:
        if message.kind == "ready" or message.ready:
            return True
    return False


async def _probe_all(spec: PoolSpec, paths: GenerationPaths, size: int, timeout_s: float) -> None:
    found = await asyncio.gather(*(probe(paths.socket(index), timeout_s) for index in range(size)))
    for index, problem in enumerate(found):
        if problem is not None:
            raise CandidateFailedError(f"worker {index} of {spec.title} reported ready, but a probe failed: {problem}")


async def _failure_reason(
    root: RootZygote, spec: PoolSpec, paths: GenerationPaths, zygote: ProcessId, log: Path, log_start: int
) -> Exception:
    try:
        outcome: dict[str, Any] = json.loads(paths.outcome.read_text())
    except (OSError, ValueError):
        outcome = {}
    if outcome.get("unsafe"):
        return _Unsafe(outcome["unsafe"])
    failure = outcome.get("failure")
    hint = f"the complete output is in {log}"
    if failure:
        lines = [line.rstrip("\n") for line in failure.get("trace") or failure.get("stackTrace", ())]
        reason = f"{failure['errorType']}: {failure['errorMessage']}{last_place(lines)}"
        shown = [*map(in_source, lines[-_MOST_LINES:]), reason]
        return CandidateFailedError(f"{spec.title} cannot start: {reason}", hint=hint, details={"lines": shown})
    status = None
    for _ in range(50):  # the root zygote may report it a moment after the connection ended
        status = root.exit_status(zygote.pid)
        if status is not None or not root.alive:
            break
        await asyncio.sleep(_LAST_WORD_S / 50)
    how = death_cause(status) if status is not None else "ended"
    return CandidateFailedError(
        f"{spec.title} cannot start: its process {how} while the handler was imported",
        hint=hint,
        details={"lines": _output(log, log_start)[-_MOST_LINES:]},
    )


async def _dump_stack(zygote: ProcessId, log: Path, log_start: int) -> list[str]:
    """The zygote's output, with its stack at the end."""
    before = _size(log)
    if zygote.signal(DUMP_SIGNAL):
        for _ in range(25):
            await asyncio.sleep(0.02)
            if _size(log) > before:
                break
    return _output(log, log_start)


def _late_error(spec: PoolSpec, timeout_s: float, log: Path, lines: list[str]) -> CandidateFailedError:
    return CandidateFailedError(
        late_message(spec.title, timeout_s, lines, os.getloadavg()[0], os.cpu_count() or 1),
        hint=f"details show its last position; the complete output is in {log}",
        details={"lines": lines[-_MOST_LINES:]},
    )


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _output(log: Path, start: int) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(start if start <= _size(log) else 0)  # a large log was rotated in the meantime
            return file.read(1 << 20).decode("utf-8", "replace").splitlines()
    except OSError:
        return []


_REQUEST = b"GET / HTTP/1.1\r\nhost: probe\r\nx-hl-probe: 1\r\nconnection: close\r\n\r\n"


async def probe(path: Path, timeout_s: float) -> str | None:
    """Probe a worker without its handler: None if it responds with 204 in time, else the problem."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(_REQUEST)
                first = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return f"no response within {timeout_s:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return None if first.startswith(b"HTTP/1.1 204 ") else f"responded {first!r}"


BUSY_LOAD_PER_CPU = 2.0
"""A machine is busy above this load: with two runnable processes per CPU, a 3 s start takes 6 s."""
LONGEST_LINE = 120
_DUMP = re.compile(r"(Current thread|Thread) 0x[0-9a-f]+ ")
_PLACE = re.compile(r'\s*File "(?P<file>.+)", line (?P<line>\d+) in ')


def last_seen(lines: Sequence[str]) -> str:
    """Describes output that ends with faulthandler's dump: "it was at app.py line 2, after it wrote `…`". Pure."""
    dump = next((number for number, line in enumerate(lines) if _DUMP.match(line)), len(lines))
    current = next((number for number, line in enumerate(lines) if line.startswith("Current thread ")), len(lines))
    place = next(filter(None, map(_PLACE.match, lines[current:])), None)
    wrote = next((line.strip() for line in reversed(lines[:dump]) if line.strip()), "")
    wrote = "".join(letter if letter.isprintable() else " " for letter in wrote)
    at = f"it was at {place['file']} line {place['line']}" if place else ""
    after = f"it wrote `{wrote[:LONGEST_LINE]}`" if wrote else ""
    return ", after ".join(filter(None, (at, after)))


def machine_is_busy(load_average: float, cpus: int) -> str:
    """A sentence if the machine is overloaded, else empty."""
    if load_average < BUSY_LOAD_PER_CPU * cpus:
        return ""
    return f"the machine is overloaded (load {load_average:.1f} on {cpus} processors)"


def late_message(title: str, timeout_s: float, lines: Sequence[str], load_average: float, cpus: int) -> str:
    """The message for a start that took too long. Pure."""
    parts = (f"{title} was not ready within {timeout_s:g} s", last_seen(lines), machine_is_busy(load_average, cpus))
    return "; ".join((*filter(None, parts), "the stage's ready_timeout_s sets the limit"))
