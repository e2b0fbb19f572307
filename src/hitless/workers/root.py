"""The daemon's connection to the root zygote: finds a living one or starts it, notices its death, requests zygotes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hitless.errors import EngineError
from hitless.worker.paths import GenerationPaths
from hitless.worker.process import is_locked
from hitless.worker.root import VERSION
from hitless.worker.spec import PoolSpec
from hitless.workers.channel import Channel, RootMessage
from hitless.workers.isolation import isolation_settings
from hitless.workers.libraries import inherited_environment, isolated_command, runtime_libraries

_START_TIMEOUT_S = 20.0


class RootZygote:
    """One connection to the root zygote. `on_death` is called once when its process is gone."""

    def __init__(self, folder: Path, python: str, on_death: Callable[[], None]) -> None:
        self._folder, self._python, self._on_death = folder, python, on_death
        self._channel: Channel | None = None
        self._listening: asyncio.Task[None] | None = None
        self._answers: asyncio.Queue[RootMessage | None] = asyncio.Queue()
        self._asking = asyncio.Lock()
        self._deaths: dict[int, int] = {}
        self.pid = 0
        self.compiled = False
        self.share_of: Callable[[PoolSpec], Mapping[str, Any]] = lambda spec: {}
        """A pool's share of the processors, for `hitless.worker.process.join_share`."""

    @property
    def alive(self) -> bool:
        return self._listening is not None and not self._listening.done()

    async def start(self) -> bool:
        """Connect to a living root zygote of this version (True), or start one (False). Raises EngineError."""
        if is_locked(self._folder / "root.lock") and await self._connect():
            return True
        await self._launch()
        if not await self._connect():
            raise EngineError("no pool can start: the root zygote was started but does not respond", hint=self._hint())
        return False

    async def spawn(self, spec: PoolSpec, paths: GenerationPaths, *, size: int, fresh: bool) -> int:
        """Fork a pool's zygote and return its pid; its control socket listens. Raises EngineError."""
        message: dict[str, Any] = {
            "op": "spawn",
            "pool": str(paths.pool),
            "generation": paths.generation,
            "size": size,
            "fresh": fresh,
        }
        message |= {"isolation": isolation_settings(spec.service, os.environ), "share": self.share_of(spec)}
        answer = await self._ask(message)
        if answer is None or answer.pid is None:
            reason = (answer and answer.error) or "it died"
            raise EngineError(f"the root zygote cannot start the pool's zygote: {reason}", hint=self._hint())
        return answer.pid

    def exit_status(self, pid: int) -> int | None:
        """The wait status of a zygote that this connection started, if it was reported."""
        return self._deaths.pop(pid, None)

    async def stop(self, *, all_descendants: bool = True) -> None:
        """End the process and all its descendants, or let the zygotes that it started keep running."""
        self._on_death = _ignore
        if self._channel is not None and self.alive:
            self._channel.send({"op": "stop", "all": all_descendants})
            if self._listening is not None:
                await asyncio.wait([self._listening], timeout=5)
        await self.disconnect()

    async def disconnect(self) -> None:
        """Disconnect and leave it running."""
        self._on_death = _ignore
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _ask(self, message: dict[str, Any]) -> RootMessage | None:
        async with self._asking:
            if self._channel is None or not self.alive:
                return None
            self._channel.send(message)
            return await self._answers.get()

    async def _connect(self) -> bool:
        try:
            channel = await Channel.connect(self._folder / "root.sock")
        except OSError:
            return False
        channel.send({"op": "hello"})
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                hello = await channel.receive(RootMessage)
        except TimeoutError:
            hello = None
        if hello is None or hello.pid is None or hello.version != VERSION:
            channel.send({"op": "stop"})
            await channel.receive(RootMessage)
            await channel.close()
            return False
        self.pid, self.compiled = hello.pid, hello.compiled
        self._channel = channel
        self._listening = asyncio.create_task(self._listen(channel))
        return True

    async def _listen(self, channel: Channel) -> None:
        while (message := await channel.receive(RootMessage)) is not None:
            if message.died is not None:
                self._deaths[message.died] = message.status
            else:
                self._answers.put_nowait(message)
        self._answers.put_nowait(None)
        asyncio.get_running_loop().call_soon(self._on_death)

    async def _launch(self) -> None:
        settings = json.dumps({"folder": str(self._folder), "libraries": runtime_libraries()})
        with (self._folder / "root.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *isolated_command(self._python, "root", settings),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=inherited_environment(), cwd="/",
            )  # fmt: skip
            try:
                async with asyncio.timeout(_START_TIMEOUT_S):
                    status = await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
                status = -9
        if status != 0:
            raise EngineError(f"no pool can start: the root zygote ended with status {status}", hint=self._hint())

    def _hint(self) -> str:
        return f"read its log, {self._folder / 'root.log'}; then repeat the command"


def _ignore() -> None:
    """The callback for an end that was requested: does nothing."""
