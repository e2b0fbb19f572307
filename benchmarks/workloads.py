"""Peers as a user would run them, against hitless, by workload: processor time a request, rate and p99.

And many handlers that wait: whether as many requests as workers are answered at once, and in how much memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks import servers
from benchmarks.contenders import BEHIND, GRANIAN, HITLESS, Contender
from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import CONNECTIONS, Client, wrk
from benchmarks.machine import BenchmarkError
from benchmarks.processes import cpu_s, measure
from benchmarks.running import Running
from benchmarks.site import Site, plain_service

WAITING: Final = 500
WAIT_MIB: Final = 2048
_WAIT_S: Final = 0.2
_SETTLED_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Workload:
    """What the clients ask for. By HTTPS if `secure`."""

    key: str
    title: str
    path: str
    client: Client = Client.KEEP_ALIVE
    secure: bool = False


WORKLOADS: Final = (
    Workload("small", "a small JSON", "/hello"),
    Workload("compute", "10 ms of CPU", "/compute"),
    Workload("wait", "200 ms of waiting", "/wait"),
    Workload("large", "a response of 100 kB", "/large"),
    Workload("upload", "an upload of 1 MB", "/upload", Client.UPLOAD),
    Workload("tls", "a small JSON by HTTPS", "/hello", secure=True),
)


def run(rounds: int, seconds: float, say: Callable[[str], None]) -> tuple[Section, ...]:
    """Each workload by each contender in turn. A peer that does not start or fails a workload is left out of it.

    Raises BenchmarkError.
    """
    with ExitStack() as stack:
        running = list(_started(stack, say))
        return tuple(_section(workload, running, rounds, seconds, say) for workload in WORKLOADS)


def _started(stack: ExitStack, say: Callable[[str], None]) -> Iterator[tuple[Contender, Running]]:
    for one in (replace(HITLESS, start=_hitless), GRANIAN, *BEHIND):
        try:
            yield one, stack.enter_context(one.start())
        except BenchmarkError as error:
            if one.key == HITLESS.key:
                raise
            say(f"{one.title} is left out: {error}")


@contextmanager
def _hitless() -> Iterator[Running]:
    """One worker for each connection where requests wait; two services, of which one speaks HTTPS."""
    with plain_service(edit=_serves_all) as site, plain_service(edit=_serves_https) as secure:

        def roots() -> tuple[int, ...]:
            return (*site.roots(), *secure.roots())

        yield Running(site.url(), roots, lambda: None, secure.url().replace("127.0.0.1", "localhost"))


def _serves_all(folder: Path, *, waiting: int = CONNECTIONS) -> None:
    text = (folder / "workloads.yml").read_text().replace("@WAITING@", str(waiting))
    (folder / "serverless.yml").write_text(text)


def _serves_https(folder: Path) -> None:
    chain, key = servers.certificate(folder)
    file, tls = folder / "serverless.yml", f"tls: {{certificate: {chain}, key: {key}}}"
    file.write_text(file.read_text().rstrip() + f"\n        {tls}\n")


def _section(
    workload: Workload,
    running: list[tuple[Contender, Running]],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> Section:
    found: dict[str, list[tuple[float, float, float]]] = {}
    left_out: set[str] = set()
    for number in range(rounds):
        for one, server in running:
            url = server.secure_url if workload.secure else server.url
            if not url or one.key in left_out:
                continue
            try:
                measured = _measure(server, url + workload.path, workload.client, seconds)
            except BenchmarkError as error:
                say(f"{workload.title}: {one.title} is left out: {error}")
                left_out.add(one.key)
                found.pop(one.key, None)
                continue
            found.setdefault(one.key, []).append(measured)
            rate, cpu_us, _ = measured
            say(f"round {number + 1}/{rounds}, {workload.title}: {one.title} {rate:,.0f}/s, {cpu_us:,.0f} µs")
    there = [one for one, _ in running if one.key in found]
    how = f"{CONNECTIONS} kept connections of wrk, {seconds:g} s, {rounds} rounds; two workers each"
    return Section(f"workload: {workload.title}", how, tuple(_figures(workload, there, found)))


def _measure(server: Running, url: str, client: Client, seconds: float) -> tuple[float, float, float]:
    """Requests a second, µs of processor time a request, p99 in ms."""
    wrk(url, seconds=1, client=client)
    time.sleep(_SETTLED_S)  # what the warm-up left in the queues is not measured
    roots = server.roots()
    before = cpu_s(roots)
    load = wrk(url, seconds=seconds, client=client)
    return load.requests_per_s, (cpu_s(roots) - before) / load.requests * 1e6, load.p99_ms


def _figures(
    workload: Workload, there: list[Contender], found: dict[str, list[tuple[float, float, float]]]
) -> Iterator[Figure]:
    for index, (key, what, unit) in enumerate(
        (
            ("rate", "requests a second", "requests/s"),
            ("cpu_us", "processor time a request", "µs"),
            ("p99_ms", "p99", "ms"),
        )
    ):
        for one in there:
            spread = Spread.of([values[index] for values in found[one.key]])
            chart = f"{what[0].upper()}{what[1:]}: {workload.title}"
            yield Figure(f"{one.key}_{key}", f"{what}: {one.title}", unit, spread, 0, chart=chart, label=one.title)
    ours = [values[1] for values in found.get(HITLESS.key, [])]
    for one in there:
        if ours and one.key != HITLESS.key:
            ratio = Spread.of_ratios(ours, [values[1] for values in found[one.key]])
            yield Figure(f"hitless_to_{one.key}_cpu", f"processor time: hitless ÷ {one.title}", "×", ratio)


def waiting(rounds: int, seconds: float, say: Callable[[str], None]) -> tuple[Section, ...]:
    """As many requests at once as workers, each of which waits. Raises BenchmarkError.

    On a busy machine the rate shows the machine; the number of workers that have a request at one instant does not.
    """
    rates, p99s, memory, busy = [], [], [], []
    with plain_service(edit=_waits) as site:
        url = f"{site.url()}/wait"
        wrk(url, seconds=3, connections=WAITING)  # the first request of a worker copies its pages
        for number in range(rounds):
            with ThreadPoolExecutor() as pool:
                running = pool.submit(wrk, url, seconds=max(seconds, 8), connections=WAITING)
                busy.append(0)
                while not running.done():
                    busy[-1] = max(busy[-1], sum(one["busy"] for one in _workers(site)))
                load = running.result()
            rates.append(load.requests_per_s)
            p99s.append(load.p99_ms)
            memory.append(sum(one.pss_mib for one in measure(site.roots())))
            say(f"round {number + 1}/{rounds}: {rates[-1]:,.0f}/s, {memory[-1]:,.0f} MiB, {busy[-1]} busy at once")
    figures = (
        Figure("memory_mib", "PSS of all processes", "MiB", Spread.of(memory), 0, Goal(Bound.AT_MOST, WAIT_MIB)),
        Figure("busy", "workers with a request at once", "workers", Spread.of(busy), 0, Goal(Bound.AT_LEAST, WAITING)),
        Figure("rate", f"requests a second, of {WAITING / _WAIT_S:,.0f}", "requests/s", Spread.of(rates), 0),
        Figure("p99_ms", "p99", "ms", Spread.of(p99s), 0),
    )
    how = f"{WAITING} connections, each request waits {_WAIT_S:g} s, {rounds} rounds; no request failed"
    return (Section("waiting handlers", how, figures),)


def _waits(folder: Path) -> None:
    """All workers there from the start, and a limit of memory that they have to keep."""
    _serves_all(folder, waiting=WAITING)
    file = folder / "serverless.yml"
    text = file.read_text().replace("    workers: 2\n", f"    workers: 2\n    memory_mb: {WAIT_MIB}\n")
    file.write_text(text.rstrip() + "\n        ready_timeout_s: 300\n")  # a busy machine starts them slowly


def _workers(site: Site) -> list[dict[str, Any]]:
    functions = site.status()["stages"][0]["functions"]
    return next(one["workers"] for one in functions if one["name"] == "wait")
