"""Replaces the processes that this daemon adopted from an earlier one by processes of its own version, one by one.

`hitless upgrade` replaces the daemon, then asks the new one for the rest. A repeated request continues with the adopted
processes that are left. If a process cannot be replaced, the old one serves on.

HAProxy is last: while a replaced one finishes its requests, no pool is replaced and no release is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from hitless.engine.engine import Engine
from hitless.engine.healing import replace_zygote
from hitless.errors import HitlessError
from hitless.gateway.gateway import Gateway
from hitless.workers.fleet import Fleet

ROOT = "root zygote"
Pid = Callable[[], int | None]
Replace = Callable[[], Awaitable[None]]


class Upgrade:
    """Replaces one engine's processes."""

    def __init__(self, engine: Engine, fleet: Fleet, gateway: Gateway) -> None:
        self._engine, self._fleet, self._gateway = engine, fleet, gateway
        self._lock = asyncio.Lock()
        self._adopted: frozenset[int | None] = frozenset()

    def remember_adopted(self, *, root: bool) -> None:
        """Record the processes that run before this daemon starts any; `root` says whether it found a root zygote."""
        self._adopted = frozenset(pid() for name, pid, _ in self._parts() if root or name != ROOT) - {None, 0}

    async def run(self) -> AsyncIterator[dict[str, Any]]:
        """Yield `{"replaced": {part, before, after}}` for each process, with the pids, or an `error`.

        If the caller leaves, the present replacement is completed.
        """
        for name, pid, replace in self._parts():
            try:
                replaced = await asyncio.shield(self._replace(name, pid, replace))
            except HitlessError as error:
                self._engine.say(f"upgrade: {name} was not replaced: {error.message}")
                yield {"error": {**error.to_json(), "exit_code": error.exit_code}}
                return
            if replaced is not None:
                yield {"replaced": replaced}

    def _parts(self) -> list[tuple[str, Pid, Replace]]:
        gateway, fleet = self._gateway, self._fleet
        pools = [(pool.spec.title, partial(self._zygote, key), partial(self._replace_pool, key))
                 for key, pool in fleet.pools.items()]  # fmt: skip
        return [
            ("guardian", lambda: gateway.guardian_pid, gateway.replacement.guardian),
            ("spooler", lambda: gateway.spooler_pid, gateway.replacement.spooler),
            (ROOT, lambda: fleet.root_pid, fleet.replace_root),
            *((f"zygote of {title}", pid, replace) for title, pid, replace in pools),
            ("HAProxy", lambda: gateway.haproxy_pid, gateway.replace_haproxy),
        ]

    def _zygote(self, key: str) -> int | None:
        return self._fleet.pools[key].zygote_pid if key in self._fleet.pools else None

    async def _replace_pool(self, key: str) -> None:
        await self._gateway.replacement.earlier_haproxy_ended()
        await replace_zygote(self._engine, self._fleet, key, once=True)

    async def _replace(self, name: str, pid: Pid, replace: Replace) -> dict[str, Any] | None:
        """Replace a process; None if this daemon has started it."""
        async with self._lock:
            if (before := pid()) not in self._adopted:
                return None
            await replace()
            self._engine.say(f"upgrade: {name} {before} was replaced by {pid()}")
            return {"part": name, "before": before, "after": pid()}
