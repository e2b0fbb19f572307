"""Keeps a guardian running, from the daemon's side: after the death of guardian, daemon, or both.

The daemon has duplicates of the listening sockets. The end of its control connection shows that the guardian died; it
then starts another, which takes over the running HAProxy. A new daemon finds the guardian and gets the duplicates from
it. If the guardian is dead too, it takes them out of HAProxy itself; if the system forbids that, HAProxy closes its
listeners and they are bound again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable

from hitless.clock import Clock
from hitless.errors import ConflictError, EngineError, MachineError
from hitless.gateway import life
from hitless.gateway.link import GuardianEvent, GuardianLink, spawn_guardian
from hitless.gateway.listeners import InheritedSocket, listen, recorded_listeners, take_listeners
from hitless.gateway.logfiles import EACH_STAGE
from hitless.gateway.render import Layout

TakeListeners = Callable[[int, tuple[InheritedSocket, ...]], dict[str, socket.socket] | None]

_RELEASED_WITHIN_S = 5.0
_AGAIN_AFTER_S = (0.0, 0.05, 0.2, 1.0)


class GuardianKeeper:
    """Owner of the listening sockets and of the link to the guardian of one folder."""

    def __init__(self, layout: Layout, haproxy: str, clock: Clock, take: TakeListeners = take_listeners) -> None:
        self._layout, self._folder = layout, layout.folder
        self._haproxy, self._clock, self._take = haproxy, clock, take
        self._link: GuardianLink | None = None
        self.sockets: dict[str, socket.socket] = {}

    @property
    def guardian_pid(self) -> int | None:
        return self._link.pid if self._link else None

    @property
    def finishing(self) -> int:
        """How many earlier HAProxies still finish their requests."""
        return self._link.finishing if self._link else 0

    async def replace_haproxy(self) -> None:
        """Ask the guardian for another HAProxy."""
        if self._link:
            await self._link.replace_haproxy()

    def end_guardian(self) -> None:
        """End the guardian, and leave HAProxy. `events` then starts another one on the same sockets."""
        if self._link:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._link.pid, signal.SIGTERM)

    async def ensure_not_running(self) -> None:
        """Raise ConflictError if a guardian or HAProxy is alive in the folder."""
        link = await GuardianLink.open(self._folder)
        if link:
            link.close_listeners()
            link.close()
        if link or life.haproxy_is_alive(str(self._folder)):
            raise ConflictError("a gateway is already running in this folder", hint="adopt it, or stop it first")

    async def start(self) -> None:
        """Start a guardian on the sockets. Raises EngineError."""
        logs = {name: self._layout.access_log(name) for name in self.sockets}
        for path in filter(None, logs.values()):
            if path.parent.name != EACH_STAGE:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await spawn_guardian(self._folder, self._haproxy, self.sockets, logs)
        link = await GuardianLink.open(self._folder)
        if link is None:
            raise EngineError("the guardian does not respond")
        link.close_listeners()
        self._link = link

    async def adopt(self) -> bool:
        """Link to the folder's gateway; False if nothing is alive. EngineError if it cannot be adopted."""
        link = await GuardianLink.open(self._folder)
        if link:
            self._link, self.sockets = link, link.listeners
            return True
        if not life.haproxy_is_alive(str(self._folder)):
            return False
        self.sockets = await self._sockets_of_orphan()
        await self.start()
        return True

    async def events(self) -> AsyncIterator[GuardianEvent]:
        """The guardian's events forever, and `guardian_died`, `guardian_replaced` and `guardian_failed`."""
        while True:
            assert self._link is not None
            async for event in self._link.events():
                yield event
            yield GuardianEvent("guardian_died", self._link.pid)
            self._link.close()
            attempt = 0
            while True:
                await self._clock.sleep(_AGAIN_AFTER_S[min(attempt, len(_AGAIN_AFTER_S) - 1)])
                try:
                    await self.start()
                    break
                except (EngineError, OSError, subprocess.SubprocessError) as error:
                    attempt += 1
                    # The dying guardian may hold its lock for a moment, so the first failures are normal.
                    if attempt >= len(_AGAIN_AFTER_S):
                        yield GuardianEvent("guardian_failed", reason=str(error))
            yield GuardianEvent("guardian_replaced", self._link.pid)

    async def stop(self, grace_s: float) -> None:
        """Stop HAProxy (after its requests, at most `grace_s`) and the guardian; close the sockets."""
        link = await GuardianLink.open(self._folder)
        self.close()
        if link:
            link.close_listeners()
            await link.stop(grace_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s + 5):
                    async for _ in link.events():
                        pass
            link.close()
        await self._end_orphan()

    def close(self) -> None:
        """Disconnect and leave everything running."""
        if self._link:
            self._link.close()
            self._link = None
        for listener in self.sockets.values():
            listener.close()
        self.sockets = {}

    async def _haproxy_pid(self) -> int | None:
        return await asyncio.to_thread(life.haproxy_pid, str(self._layout.runtime_socket))

    async def _sockets_of_orphan(self) -> dict[str, socket.socket]:
        pid = await self._haproxy_pid()
        inherited = recorded_listeners(self._folder, pid) if pid is not None else ()
        if pid is None or not inherited:
            raise EngineError(
                "HAProxy is running without a guardian, and its listeners are unknown",
                hint="run `hitless down --force`",
            )
        if taken := self._take(pid, inherited):
            return taken
        # A controlled restart: HAProxy closes its listeners and finishes its requests while we bind the addresses.
        (self._folder / life.LIFE).unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR1)
        sockets: dict[str, socket.socket] = {}
        for item in inherited:
            sockets[item.stage] = await self._listen_again(item)
        return sockets

    async def _listen_again(self, item: InheritedSocket) -> socket.socket:
        end = self._clock.monotonic() + _RELEASED_WITHIN_S
        while True:
            try:
                return listen(item.host, item.port, purpose=item.stage)
            except MachineError:
                if self._clock.monotonic() >= end:
                    raise
            await self._clock.sleep(0.002)

    async def _end_orphan(self) -> None:
        """Stop HAProxy if no guardian did."""
        folder = str(self._folder)
        for number in (signal.SIGTERM, signal.SIGKILL):
            pid = await self._haproxy_pid() if life.haproxy_is_alive(folder) else None
            if pid is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            end = self._clock.monotonic() + 2.0
            while life.haproxy_is_alive(folder) and self._clock.monotonic() < end:
                await self._clock.sleep(0.02)
