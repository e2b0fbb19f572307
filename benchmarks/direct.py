"""The gateway against the same workers by their own sockets: what HAProxy in front of them costs, or gains.

By h2load on both sides, which can drive Unix sockets.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.contenders import PATH
from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import CONNECTIONS, h2load
from benchmarks.machine import BenchmarkError
from benchmarks.site import plain_service

WARM_UP_S = 2.0


def run(rounds: int, seconds: float, say: Callable[[str], None]) -> tuple[Section, ...]:
    """Through the gateway and past it in turn. Raises BenchmarkError."""
    gateway: list[float] = []
    direct: list[float] = []
    with plain_service() as site:
        address, sockets = site.url().removeprefix("http://"), site.worker_sockets()
        if len(sockets) != 2:
            raise BenchmarkError(f"two workers were expected, these were found: {sockets}")
        for number in range(rounds):
            for targets, rates in (([address, address], gateway), (sockets, direct)):
                load = h2load(targets, PATH, seconds=seconds, warm_up_s=WARM_UP_S)
                rates.append(load.requests_per_s)
            say(f"round {number + 1}/{rounds}: gateway {gateway[-1]:,.0f}/s, workers alone {direct[-1]:,.0f}/s")
    ratio = Spread.of_ratios(gateway, direct)
    figures = (
        Figure("gateway_to_direct", "hitless ÷ its workers by their sockets", "×", ratio, 2, Goal(Bound.AT_LEAST, 0.5)),
        Figure("gateway_rate", "hitless", "requests/s", Spread.of(gateway), 0),
        Figure("direct_rate", "its workers", "requests/s", Spread.of(direct), 0),
    )
    return (
        Section("the gateway against its workers", f"{CONNECTIONS} connections by h2load, {rounds} rounds", figures),
    )
