"""Takes the drain out of the daemon that starts with this folder on PYTHONPATH: servers and workers leave at once."""

from __future__ import annotations

import sys

if any("hitless.processes.engine" in word for word in sys.orig_argv):
    from hitless.gateway import executor
    from hitless.gateway.gateway import Gateway
    from hitless.gateway.state import GatewayState
    from hitless.rollout.pools import ReleasePools
    from hitless.rollout.release import Release
    from hitless.store.store import PoolRow

    apply = Gateway.apply

    async def no_drain(self: ReleasePools, release: Release, row: PoolRow) -> None:
        return None

    async def apply_without_waiting(self: Gateway, new: GatewayState, *, drain_s: float | None = None) -> None:
        await apply(self, new, drain_s=0.0)

    executor._POLL_S = 0.0  # nor does the deletion of a server wait
    ReleasePools._drain = no_drain  # type: ignore[method-assign]
    Gateway.apply = apply_without_waiting  # type: ignore[method-assign]
