"""The same small JSON by hitless and by its peers, two workers each, on the same two cores, keep-alive.

Two comparisons, each with one load generator on both sides: the gateway against the same workers by their own sockets
(h2load, which can drive Unix sockets), and the gateway against the peers (wrk).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks import peers
from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import CONNECTIONS, Load, h2load, wrk
from benchmarks.machine import BenchmarkError, tool
from benchmarks.site import Site, plain_service

PATH = "/hello"
WARM_UP_S = 2.0
"""Once a second the gateway decides how many requests a worker is handed at a time: the first is not its pace."""

Measure = Callable[[float], Load]

_TITLES = {
    "granian": "granian + starlette",
    "uvicorn": "uvicorn + starlette",
    "gunicorn": "gunicorn + flask",
    "gunicorn_nginx": "nginx + gunicorn + flask",
}
_GOALS = {"granian": 1.0, "gunicorn": 4.0, "gunicorn_nginx": 4.0}


def run(rounds: int, seconds: float, say: Callable[[str], None]) -> Section:
    """Every contender once a round, in turn. Raises BenchmarkError."""
    with ExitStack() as stack:
        site = stack.enter_context(plain_service())
        contenders = {**_ours(site), **_peers(stack)}
        measured: dict[str, list[Load]] = {name: [] for name in contenders}
        for number in range(rounds):
            for name, measure in contenders.items():
                load = measure(seconds)
                measured[name].append(load)
                say(f"round {number + 1}/{rounds}: {name} {load.requests_per_s:,.0f} requests/s")
    return Section(
        "throughput",
        f"2 workers, {CONNECTIONS} connections, {seconds:g} s after {WARM_UP_S:g} s to warm up, {rounds} rounds",
        tuple(_figures(measured)),
    )


def _ours(site: Site) -> dict[str, Measure]:
    url, sockets = site.url(), site.worker_sockets()
    if len(sockets) != 2:
        raise BenchmarkError(f"two workers were expected, these were found: {sockets}")
    address = url.removeprefix("http://")
    return {
        "gateway": lambda seconds: wrk(url + PATH, seconds=seconds, warm_up_s=WARM_UP_S),
        "gateway_h2load": lambda seconds: h2load([address, address], PATH, seconds=seconds, warm_up_s=WARM_UP_S),
        "direct_h2load": lambda seconds: h2load(sockets, PATH, seconds=seconds, warm_up_s=WARM_UP_S),
    }


def _peers(stack: ExitStack) -> dict[str, Measure]:
    servers = {"granian": peers.granian, "uvicorn": peers.uvicorn, "gunicorn": peers.gunicorn}
    urls = {name: stack.enter_context(server()) for name, server in servers.items()}
    try:
        tool("nginx")
    except BenchmarkError:
        pass
    else:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hitless-bench-")))
        urls["gunicorn_nginx"] = stack.enter_context(peers.gunicorn_behind_nginx(folder / "nginx"))

    def by_wrk(url: str) -> Measure:
        return lambda seconds: wrk(url + PATH, seconds=seconds, warm_up_s=WARM_UP_S)

    return {name: by_wrk(url) for name, url in urls.items()}


def _figures(measured: Mapping[str, list[Load]]) -> list[Figure]:
    rates = {name: [load.requests_per_s for load in loads] for name, loads in measured.items()}
    figures = [
        Figure(
            "gateway_to_direct",
            "hitless ÷ its workers by their sockets",
            "×",
            Spread.of_ratios(rates["gateway_h2load"], rates["direct_h2load"]),
            goal=Goal(Bound.AT_LEAST, 0.5),
        )
    ]
    others = {name: title for name, title in _TITLES.items() if name in measured}
    for name, title in others.items():
        goal = Goal(Bound.AT_LEAST, _GOALS[name]) if name in _GOALS else None
        ratio = Spread.of_ratios(rates["gateway"], rates[name])
        figures.append(Figure(f"gateway_to_{name}", f"hitless ÷ {title}", "×", ratio, goal=goal))
    shown = {"gateway": "hitless (wrk)", "gateway_h2load": "hitless (h2load)", "direct_h2load": "its workers (h2load)"}
    for name, title in {**shown, **others}.items():
        figures.append(Figure(f"{name}_rate", title, "requests/s", Spread.of(rates[name]), digits=0))
    for name, title in {"gateway": "hitless", **others}.items():
        p99 = [load.p99_ms for load in measured[name] if load.p99_ms is not None]
        figures.append(Figure(f"{name}_p99", f"p99 under full load: {title}", "ms", Spread.of(p99), digits=1))
    return figures
