"""The same small JSON by hitless and by its peers, two workers each, on the same two cores, by three kinds of client.

One load generator, wrk, for all. Each rate has the servers' processor time a request with it, because other work on the
machine changes that figure least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.contenders import ALL, GATEWAYS, GRANIAN, HITLESS, NGINX, OFFLINE, PATH, UVICORN, Contender
from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import CONNECTIONS, SMALL, Client, Load, wrk
from benchmarks.machine import BenchmarkError
from benchmarks.processes import cpu_s
from benchmarks.running import Running

WARM_UP_S = 1.0
"""Once a second the gateway decides how many requests a worker is handed at a time: the first is not its pace."""
_GOALS = {GRANIAN.key: 1.2, UVICORN.key: 1.2, NGINX.key: 6.0, OFFLINE.key: 5.0}
_CPU_GOAL = 0.85


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: what the load generator saw, and the processor time that the server's processes took a request."""

    load: Load
    cpu_us: float


Runs = dict[tuple[str, Client], list[Measured]]


def run(rounds: int, seconds: float, say: Callable[[str], None]) -> tuple[Section, ...]:
    """Every contender once a round by each kind of client, in turn. A peer that does not start is left out.

    Raises BenchmarkError.
    """
    with ExitStack() as stack:
        running = list(_started(stack, say))
        runs: Runs = {(one.key, client): [] for one, _ in running for client in _clients(one)}
        for number in range(rounds):
            for client in SMALL:
                for contender, server in running:
                    if client not in _clients(contender):
                        continue
                    measured = _measure(server, client, seconds)
                    runs[contender.key, client].append(measured)
                    rate, cpu_us = measured.load.requests_per_s, measured.cpu_us
                    say(f"round {number + 1}/{rounds}, {client}: {contender.title} {rate:,.0f}/s, {cpu_us:.0f} µs")
    how = f"2 workers, {CONNECTIONS} connections, {seconds:g} s after {WARM_UP_S:g} s to warm up, {rounds} rounds"
    return (
        Section("throughput against the peers", how, tuple(_ratios(runs))),
        *(Section(f"throughput, {client}", how, tuple(_figures(runs, client))) for client in SMALL),
    )


def _started(stack: ExitStack, say: Callable[[str], None]) -> Iterator[tuple[Contender, Running]]:
    for contender in (*ALL, *GATEWAYS):
        try:
            yield contender, stack.enter_context(contender.start())
        except BenchmarkError as error:
            if contender is HITLESS:
                raise
            say(f"{contender.title} is left out: {error}")


def _clients(contender: Contender) -> tuple[Client, ...]:
    return (Client.KEEP_ALIVE,) if contender in GATEWAYS else SMALL


def _there(runs: Runs, client: Client) -> list[Contender]:
    return [one for one in (*ALL, *GATEWAYS) if (one.key, client) in runs]


def _measure(server: Running, client: Client, seconds: float) -> Measured:
    wrk(server.url + PATH, seconds=WARM_UP_S, client=client)
    roots = server.roots()
    before = cpu_s(roots)
    load = wrk(server.url + PATH, seconds=seconds, client=client)
    return Measured(load, (cpu_s(roots) - before) / load.requests * 1e6)


def _ratios(runs: Runs) -> list[Figure]:
    """Rates over rates and processor times over processor times, round by round; those with a goal are the keep-alive
    client's.
    """
    figures = []
    for client in SMALL:
        for peer in _there(runs, client)[1:]:
            ratio = Spread.of_ratios(_rates(runs, HITLESS, client), _rates(runs, peer, client))
            has_goal = client is Client.KEEP_ALIVE and peer.key in _GOALS
            goal = Goal(Bound.AT_LEAST, _GOALS[peer.key]) if has_goal else None
            key = f"hitless_to_{peer.key}_{client.name.lower()}"
            figures.append(Figure(key, f"hitless ÷ {peer.title}, {client}", "×", ratio, goal=goal))
    for peer in _there(runs, Client.KEEP_ALIVE)[1:]:
        ratio = Spread.of_ratios(_cpus(runs, HITLESS), _cpus(runs, peer))
        goal = Goal(Bound.AT_MOST, _CPU_GOAL) if peer in (GRANIAN, UVICORN) else None
        title = f"processor time a request: hitless ÷ {peer.title}"
        figures.append(Figure(f"hitless_to_{peer.key}_cpu", title, "×", ratio, goal=goal))
    return figures


def _cpus(runs: Runs, contender: Contender) -> list[float]:
    return [one.cpu_us for one in runs[contender.key, Client.KEEP_ALIVE]]


def _figures(runs: Runs, client: Client) -> Iterator[Figure]:
    for one in _there(runs, client):
        rate, chart = Spread.of(_rates(runs, one, client)), f"Requests a second, {client}"
        yield Figure(f"{one.key}_rate", one.title, "requests/s", rate, 0, chart=chart, label=one.title)
    for one in _there(runs, client):
        p99 = Spread.of([measured.load.p99_ms for measured in runs[one.key, client]])
        yield Figure(f"{one.key}_p99_ms", f"p99 under full load: {one.title}", "ms", p99, 1)
    for one in _there(runs, client):
        cpu_us = Spread.of([measured.cpu_us for measured in runs[one.key, client]])
        title, chart = f"processor time a request: {one.title}", f"Processor time a request, {client}"
        yield Figure(f"{one.key}_cpu_us", title, "µs", cpu_us, 0, chart=chart, label=one.title)


def _rates(runs: Runs, contender: Contender, client: Client) -> list[float]:
    return [one.load.requests_per_s for one in runs[contender.key, client]]
