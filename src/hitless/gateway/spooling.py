"""Starts, checks and stops the spooler, from the daemon. The spooler's lock shows whether it is alive."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from hitless.clock import Clock
from hitless.gateway import spooler
from hitless.gateway.link import start_program
from hitless.worker.paths import HANDED
from hitless.worker.process import is_locked

RESPONDS_WITHIN_S = 3.0
"""Checked twice, so that a spooler is not stopped because the machine is busy."""
_ENDS_WITHIN_S = 2.0


class SpoolerKeeper:
    """One gateway's spooler: the folder of its sockets, of its bodies, and HAProxy's socket for complete requests."""

    def __init__(
        self,
        folder: Path,
        bodies: Path,
        inner: Path,
        budget_bytes: int,
        clock: Clock,
        *,
        responds_within_s: float = RESPONDS_WITHIN_S,
    ) -> None:
        self._folder, self._bodies, self._clock = folder, bodies, clock
        self._responds_within_s = responds_within_s
        self._changing = asyncio.Lock()
        self._settings = {
            "folder": str(folder),
            "bodies": str(bodies),
            "inner": str(inner),
            "budget_bytes": budget_bytes,
        }

    @property
    def pid(self) -> int | None:
        """The spooler's pid; None if it is dead."""
        lock = self._folder / spooler.LOCK
        with suppress(OSError, ValueError):
            return int(lock.read_text()) if is_locked(lock) else None
        return None

    async def ensure(self) -> bool:
        """Start a spooler unless one is alive and responds; returns whether it did. Raises EngineError."""
        async with self._changing:
            if is_locked(self._folder / spooler.LOCK):
                if await self._responds() or await self._responds():
                    return False
                await self.stop()
            await self._start()
            return True

    async def _start(self) -> None:
        self._bodies.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / HANDED).parent.mkdir(exist_ok=True)
        (self._folder / HANDED).parent.chmod(0o711)  # isolated workers, which have another user, see it
        command = [sys.executable, "-I", "-m", "hitless.processes.spooler", json.dumps(self._settings)]
        await start_program("spooler", command, env={})

    async def _responds(self) -> bool:
        try:
            async with asyncio.timeout(self._responds_within_s):
                reader, writer = await asyncio.open_unix_connection(str(self._folder / spooler.UPLOADS))
                try:
                    writer.write(b"GET / HTTP/1.1\r\n%s: 1\r\n\r\n" % spooler.PROBE)
                    return bool(await reader.read(1))
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def replace(self) -> None:
        """Start another spooler; the present one finishes its transfers and ends. EngineError; then it serves on."""
        async with self._changing:
            if (pid := self.pid) is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, spooler.RETIRE)
                await self._unlocked()
                await self.stop()  # if it hangs
            await self._start()

    async def stop(self) -> None:
        """Stop the spooler; cuts off its transfers."""
        lock = self._folder / spooler.LOCK
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not is_locked(lock):
                return
            with suppress(OSError, ValueError):
                os.kill(int(lock.read_text()), number)
            await self._unlocked()

    async def _unlocked(self) -> None:
        end = self._clock.monotonic() + _ENDS_WITHIN_S
        while is_locked(self._folder / spooler.LOCK) and self._clock.monotonic() < end:
            await self._clock.sleep(0.01)
