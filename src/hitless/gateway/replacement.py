"""Replaces the guardian, the spooler and HAProxy of a running gateway, for an upgrade, while clients stay connected.

The daemon has duplicates of the listening sockets, which it got from the guardian (SCM_RIGHTS). A new guardian inherits
them and takes over the running HAProxy; without a guardian, HAProxy serves on. A new HAProxy inherits them from the
guardian. When it accepts connections, it tells the old one to finish its requests (`-sf`) within `hard-stop-after`.
"""

from __future__ import annotations

from collections.abc import Callable

from hitless.clock import Clock
from hitless.errors import EngineError
from hitless.gateway.executor import Executor
from hitless.gateway.keeper import GuardianKeeper
from hitless.gateway.spooling import SpoolerKeeper

REPLACED_WITHIN_S = 10.0
FINISHED_WITHIN_S = 65.0
"""HAProxy's `hard-stop-after`, and a little."""
_POLL_S = 0.02
_HINT = "`hitless events` says why; repeat `hitless upgrade`"


class Replacement:
    """The replacements of one gateway, which must not change meanwhile."""

    def __init__(self, keeper: GuardianKeeper, spooling: SpoolerKeeper, executor: Executor, clock: Clock) -> None:
        self._keeper, self._executor, self._clock = keeper, executor, clock
        self.spooler = spooling.replace

    async def guardian(self) -> None:
        """Replace the guardian. Raises EngineError if no new one runs in time; the keeper goes on trying."""
        old = self._keeper.guardian_pid
        self._keeper.end_guardian()
        if not await self._within(REPLACED_WITHIN_S, lambda: self._keeper.guardian_pid != old):
            raise EngineError("no new guardian has started; HAProxy keeps serving without one", hint=_HINT)

    async def haproxy(self) -> None:
        """Replace HAProxy. Raises EngineError if the new one does not respond in time; the old one serves on."""
        old = await self._executor.wait_until_responding(REPLACED_WITHIN_S)
        await self._keeper.replace_haproxy()
        end = self._clock.monotonic() + REPLACED_WITHIN_S
        while await self._executor.wait_until_responding(REPLACED_WITHIN_S) == old:
            if self._clock.monotonic() >= end:
                raise EngineError("the new HAProxy did not start; the old one keeps serving", hint=_HINT)
            await self._clock.sleep(_POLL_S)

    async def earlier_haproxy_ended(self) -> None:
        """Return when no replaced HAProxy has requests: it knows only the workers of its time."""
        await self._within(FINISHED_WITHIN_S, lambda: not self._keeper.finishing)

    async def _within(self, limit_s: float, condition: Callable[[], bool]) -> bool:
        end = self._clock.monotonic() + limit_s
        while not condition() and self._clock.monotonic() < end:
            await self._clock.sleep(_POLL_S)
        return condition()
