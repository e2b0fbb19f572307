"""What HAProxy is told so that responses that clients are still reading take no places. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hitless.gateway.observe import ServerLoad
from hitless.gateway.state import GatewayState
from hitless.gateway.view import ServerKey


@dataclass(frozen=True, slots=True)
class Widening:
    """`pools`: pool → responses being read. `maxconns` and `throttles` are what HAProxy must be told."""

    pools: Mapping[str, int] = field(default_factory=dict)
    maxconns: Mapping[ServerKey, int] = field(default_factory=dict)
    throttles: Mapping[str, int] = field(default_factory=dict)


def widening(
    state: GatewayState,
    reading: Mapping[ServerKey, int],
    loads: Mapping[ServerKey, ServerLoad],
    before: Mapping[str, int],
) -> Widening:
    """Each server gets its depth and the responses being read; a throttled pool as many more requests.

    `loads` is what HAProxy has now, so that only what differs is told; `before` are the pools of the last widening.
    """
    pools: Counter[str] = Counter()
    for (pool, _), number in reading.items():
        pools[pool] += number
    depths = {(pool.name, server.key): server.maxconn for pool in state.pools for server in pool.servers}
    wanted = {key: depths[key] + number for key, number in reading.items() if key in depths and key in loads}
    return Widening(
        dict(pools),
        {key: number for key, number in wanted.items() if loads[key].maxconn != number},
        {
            pool.name: pool.throttle + pools[pool.name]
            for pool in state.pools
            if pool.throttle and (pools[pool.name] or before.get(pool.name))
        },
    )
