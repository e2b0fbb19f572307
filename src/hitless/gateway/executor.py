"""Runs commands at HAProxy, reads back its state, and waits until requests have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress

from hitless.clock import Clock
from hitless.errors import EngineError
from hitless.gateway.observe import (
    BackendLoad,
    ServerLoad,
    by_key,
    by_release,
    parse_info,
    parse_map,
    parse_servers,
    parse_stat,
    parse_stats,
)
from hitless.gateway.routes import Entry
from hitless.gateway.runtime import NO_MAP, RejectedError, RuntimeSocket, UnreachableError
from hitless.gateway.state import GatewayState
from hitless.gateway.view import ORDERED, PLAIN, Command, MapName, ServerKey, View, WaitFor, difference, view_of

APART_S = 0.05
"""The time between two readings that must both be idle: in one, a request may be between queue and worker."""

_POLL_S = 0.02
_CLOSING_S = 5.0
_SETTLED_S = 0.3
_MOST_PASSES = 3
_GONE = "No such server"

_BACKENDS, _SERVERS = 2, 4


class Executor:
    """The client of a running HAProxy. `maps`: the folder in the maps' names."""

    def __init__(self, runtime: RuntimeSocket, clock: Clock, maps: str) -> None:
        self._runtime, self._clock, self._maps = runtime, clock, maps

    async def ask(self, command: str) -> str:
        """HAProxy's output for a command. Raises UnreachableError."""
        return await self._runtime.ask(command)

    async def wait_until_responding(self, deadline_s: float) -> int:
        """Wait until HAProxy responds; returns its pid. UnreachableError at the deadline."""
        end = self._clock.monotonic() + deadline_s
        while True:
            try:
                return int(parse_info(await self._runtime.ask("show info"))["Pid"])
            except (UnreachableError, KeyError, ValueError) as error:
                if self._clock.monotonic() >= end:
                    raise UnreachableError(f"HAProxy did not respond within {deadline_s:g} s") from error
            await self._clock.sleep(_POLL_S)

    async def observe(self, wanted: View) -> View:
        """HAProxy's maps and servers, with the limits of servers that are wanted. Raises UnreachableError."""
        limits = ";".join(f"show stat {pool} {_SERVERS} -1" for pool in {pool for pool, _ in wanted.servers})
        return View(
            plain={name: by_key(await self._map(name)) for name in PLAIN},
            ordered={name: await self._ordered(name, wanted) for name in ORDERED},
            servers=parse_servers(
                await self._runtime.ask("show servers state"), await self._runtime.ask(limits) if limits else ""
            ),
        )

    async def _ordered(self, name: MapName, wanted: View) -> Mapping[str, tuple[Entry, ...]]:
        """A map by release; as it is wanted if HAProxy was started by an earlier version, whose rollout may go on."""
        text = await self._runtime.ask(f"show map {self._maps}/{name}")
        return wanted.ordered[name] if text.startswith(NO_MAP) else by_release(parse_map(text))

    async def _map(self, name: str) -> list[Entry]:
        return parse_map(await self._runtime.ask(f"show map {self._maps}/{name}"))

    def commands_between(self, old: GatewayState, new: GatewayState) -> tuple[Command, ...]:
        return difference(view_of(old), view_of(new), self._maps)

    async def run(self, commands: Iterable[Command], drain_s: float) -> None:
        """Run the commands in order, each after its condition holds (or `drain_s` passed), and check each result.

        Raises RejectedError and UnreachableError; the commands before the failed one stay in effect.
        """
        todo = tuple(commands)
        drained = False
        for command in todo:
            match command.wait_for:
                case WaitFor.POOL_IDLE if not drained:
                    pools = {each.target for each in todo if each.wait_for is WaitFor.POOL_IDLE}
                    await asyncio.gather(*(self.drained(pool, drain_s) for pool in pools))
                    drained = True
                case WaitFor.SERVER_IDLE:
                    pool, _, key = command.target.partition("/")
                    await self.servers_drained(pool, [key], drain_s)
                case WaitFor.CLOSED:
                    await self._delete(command)
                    continue
                case _:
                    pass
            await self._runtime.tell(command.line)

    async def reconcile(self, wanted: GatewayState, drain_s: float) -> bool:
        """Bring HAProxy to that state from any other; returns whether anything changed. Raises EngineError."""
        view = view_of(wanted)
        for attempt in range(_MOST_PASSES):
            commands = difference(await self.observe(view), view, self._maps)
            if not commands:
                return attempt > 0
            await self.run(commands, drain_s)
        if left := await self._differences(wanted, lambda pool: True):
            raise EngineError(f"HAProxy did not apply its state: the command `{left[0]}` had no effect")
        return True

    async def foreign_changes(self, wanted: GatewayState, reading: Callable[[], Mapping[str, int]]) -> list[str]:
        """The commands that undo what somebody else has changed in HAProxy's maps and servers; none if it is down.

        `reading`: the pools whose limits are higher for now.
        """
        with suppress(UnreachableError):
            if found := await self._differences(wanted, reading().get):
                await self._clock.sleep(_SETTLED_S)  # a limit may have been on its way down
                again = await self._differences(wanted, reading().get)
                return [line for line in found if line in again]
        return []

    async def _differences(self, wanted: GatewayState, is_raised: Callable[[str], object]) -> list[str]:
        """The commands that lead to that state, without lower limits of pools where `hitless.engine.readers` raises
        them.
        """
        view = view_of(wanted)
        limits = ("set maxconn server ", f"set map {self._maps}/{MapName.THROTTLES} ")
        lines = (command.line for command in difference(await self.observe(view), view, self._maps))
        return [
            line for line in lines if not (line.startswith(limits) and is_raised(line.split()[3].partition("/")[0]))
        ]

    async def drained(
        self,
        pool: str,
        deadline_s: float,
        shields: Iterable[str] = (),
        reading: Callable[[str], int] = lambda backend: 0,
    ) -> bool:
        """Wait until the pool and those shields have no running or queued request in two readings; False at the
        deadline.

        `reading`: for a backend, the responses that clients are still reading, which are not waited for.
        """
        backends = (pool, *shields)

        async def read() -> BackendLoad:
            loads = await self.loads(backends)
            present = sum(max(0, load.scur - reading(name)) for name, load in loads.items())
            return BackendLoad(present, sum(load.qcur for load in loads.values()))

        return await self._idle(read, deadline_s)

    async def servers_drained(self, pool: str, keys: Collection[str], deadline_s: float) -> bool:
        """Wait until these servers of the pool have no request in two readings; False at the deadline."""

        async def read() -> BackendLoad:
            rows = parse_stat(await self._runtime.ask(f"show stat {pool} {_SERVERS} -1"))
            own = [row for row in rows if row["svname"] in keys]
            return BackendLoad(sum(int(row["scur"] or 0) for row in own), sum(int(row["qcur"] or 0) for row in own))

        return await self._idle(read, deadline_s)

    async def server_loads(self, pools: Iterable[str]) -> dict[ServerKey, ServerLoad]:
        """The current load of each server of these pools. Raises UnreachableError."""
        asked = ";".join(f"show stat {pool} {_SERVERS} -1" for pool in pools)
        return {
            (row["pxname"], row["svname"]): ServerLoad(int(row["scur"] or 0), int(row["slim"] or 0))
            for row in parse_stats(await self._runtime.ask(asked))
        }

    async def raise_limits(
        self,
        state: GatewayState,
        reading: Mapping[ServerKey, int],
        loads: Mapping[ServerKey, ServerLoad],
        by_pool: Mapping[str, int],
        before: Mapping[str, int],
    ) -> None:
        """Give each server its depth plus the responses being read, and a throttled pool as many more requests; at
        HAProxy only, not on disk. Ignores a server that was just removed. Raises UnreachableError.

        `by_pool` is `reading` added up, `before` the same of the last call. Sends only differences to `loads`.
        """
        depths = {(pool.name, server.key): server.maxconn for pool in state.pools for server in pool.servers}
        wanted = {key: depths[key] + number for key, number in reading.items() if key in depths and key in loads}
        lines = [
            f"set maxconn server {pool}/{key} {number}"
            for (pool, key), number in wanted.items()
            if loads[pool, key].maxconn != number
        ]
        lines += [
            f"set map {self._maps}/{MapName.THROTTLES} {pool.name} {pool.throttle + by_pool.get(pool.name, 0)}"
            for pool in state.pools
            if pool.throttle and (by_pool.get(pool.name) or before.get(pool.name))
        ]
        for line in lines:
            with suppress(RejectedError):
                await self._runtime.tell(line)

    async def loads(self, pools: Iterable[str]) -> dict[str, BackendLoad]:
        """The current load of each pool, with one command. Raises UnreachableError."""
        asked = ";".join(f"show stat {pool} {_BACKENDS} -1" for pool in pools)
        rows = parse_stats(await self._runtime.ask(asked)) if asked else ()
        return {row["pxname"]: BackendLoad(int(row["scur"] or 0), int(row["qcur"] or 0)) for row in rows}

    async def _idle(self, read: Callable[[], Awaitable[BackendLoad]], deadline_s: float) -> bool:
        end = self._clock.monotonic() + deadline_s
        before = False
        while True:
            try:
                now = (await read()).idle
            except UnreachableError:
                now = False
            if before and now:
                return True
            if self._clock.monotonic() >= end:
                return False
            before = now
            await self._clock.sleep(APART_S if now else _POLL_S)

    async def _delete(self, command: Command) -> None:
        """Delete a server. HAProxy refuses while it has connections; after the drain, requests on them are cut off."""
        if await self._retried(command.line, _POLL_S * 10):
            return
        await self._runtime.ask(f"shutdown sessions server {command.target}")
        if not await self._retried(command.line, _CLOSING_S):
            await self._runtime.tell(command.line)

    async def _retried(self, line: str, deadline_s: float) -> bool:
        end = self._clock.monotonic() + deadline_s
        while True:
            try:
                await self._runtime.tell(line)
            except RejectedError as error:
                if _GONE in error.message:
                    return True
                if self._clock.monotonic() >= end:
                    return False
                await self._clock.sleep(_POLL_S)
            else:
                return True
