"""The same small JSON by hitless and by its peers, two workers each, on the same two cores, keep-alive.

Two comparisons, each with one load generator on both sides: the gateway against the same workers by their own sockets
(h2load, which can drive Unix sockets), and the gateway against the peers (wrk). The servers' processor time a request
stands beside the rates: it is what a machine that does other things as well bends least.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import CONNECTIONS, Load, h2load, wrk
from benchmarks.machine import BenchmarkError, tool
from benchmarks.processes import measure
from benchmarks.site import Site, plain_service

PATH = "/hello"
WARM_UP_S = 2.0
"""Once a second the gateway decides how many requests a worker is handed at a time: the first is not its pace."""

Roots = Sequence[int]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: what the load generator saw, and the processor time that the server's processes took a request."""

    load: Load
    cpu_us: float | None = None


Measure = Callable[[float], Measured]

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
        measured: dict[str, list[Measured]] = {name: [] for name in contenders}
        for number in range(rounds):
            for name, run_one in contenders.items():
                measured[name].append(run_one(seconds))
                rate = measured[name][-1].load.requests_per_s
                say(f"round {number + 1}/{rounds}: {name} {rate:,.0f} requests/s")
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
        "gateway": _by_wrk(url, site.roots()),
        "gateway_h2load": _by_h2load([address, address]),
        "direct_h2load": _by_h2load(sockets),
    }


def _by_wrk(url: str, roots: Roots) -> Measure:
    def run_one(seconds: float) -> Measured:
        wrk(url + PATH, seconds=WARM_UP_S)
        before = _cpu_s(roots)
        load = wrk(url + PATH, seconds=seconds)
        return Measured(load, (_cpu_s(roots) - before) / load.requests * 1e6)

    return run_one


def _by_h2load(targets: Sequence[str | Path]) -> Measure:
    return lambda seconds: Measured(h2load(targets, PATH, seconds=seconds, warm_up_s=WARM_UP_S))


def _cpu_s(roots: Roots) -> float:
    return sum(process.cpu_s for process in measure(roots))


def _peers(stack: ExitStack) -> dict[str, Measure]:
    servers = {"granian": peers.granian, "uvicorn": peers.uvicorn, "gunicorn": peers.gunicorn}
    running = {name: stack.enter_context(server()) for name, server in servers.items()}
    try:
        tool("nginx")
    except BenchmarkError:
        pass
    else:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hitless-bench-")))
        running["gunicorn_nginx"] = stack.enter_context(peers.gunicorn_behind_nginx(folder / "nginx"))
    return {name: _by_wrk(peer.url, peer.roots) for name, peer in running.items()}


def _figures(measured: Mapping[str, list[Measured]]) -> list[Figure]:
    rates = {name: [one.load.requests_per_s for one in runs] for name, runs in measured.items()}
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
    ours_and_theirs = {"gateway": "hitless", **others}
    for name, title in ours_and_theirs.items():
        p99 = Spread.of([one.load.p99_ms for one in measured[name] if one.load.p99_ms is not None])
        figures.append(Figure(f"{name}_p99", f"p99 under full load: {title}", "ms", p99, digits=1))
    for name, title in ours_and_theirs.items():
        cpu_us = Spread.of([one.cpu_us for one in measured[name] if one.cpu_us is not None])
        figures.append(Figure(f"{name}_cpu_us", f"processor time a request: {title}", "µs", cpu_us, digits=0))
    return figures
