"""What workers cost: how fast 32 are ready, what a further one takes, and what the whole engine takes at rest.

All on the scaffolded service. Memory is PSS after the workers have served, for the pages that a process writes become
its own only then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from benchmarks.deploys import instant
from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import wrk
from benchmarks.processes import Process, measure
from benchmarks.site import Site, change_code, scaffolded_service, set_workers

FEW, MANY = 2, 32
PATH = "/hello/bench"


def run(rounds: int, rest_s: float, say: Callable[[str], None]) -> tuple[Section, Section]:
    """Rounds of 32 and 2 workers in turn, then a rest of `rest_s` seconds. Raises BenchmarkError."""
    ready: list[float] = []
    fresh: list[float] = []
    served: list[float] = []
    with scaffolded_service() as site:
        for number in range(rounds):
            seconds, many = _deploy(site, MANY)
            _, few = _deploy(site, FEW)
            ready.append(seconds * 1000)
            fresh.append(further_mib(many[0], few[0]))
            served.append(further_mib(many[1], few[1]))
            say(f"round {number + 1}/{rounds}: {ready[-1]:.0f} ms, {served[-1]:.2f} MiB a further worker")
        say(f"at rest for {rest_s:g} s")
        resting = _at_rest(site, rest_s)
    workers = Section(
        "workers",
        f"the scaffolded service, {MANY} and {FEW} workers in turn, {rounds} rounds",
        (
            Figure(
                "ready_ms",
                f"{MANY} workers started, all ready and probed",
                "ms",
                Spread.of(ready),
                0,
                Goal(Bound.AT_MOST, 250),
            ),
            Figure(
                "further_worker_mib",
                "PSS of a further worker, having served",
                "MiB",
                Spread.of(served),
                goal=Goal(Bound.AT_MOST, 4),
            ),
            Figure("further_worker_fresh_mib", "PSS of a further worker, fresh", "MiB", Spread.of(fresh)),
        ),
    )
    return workers, resting


def further_mib(many: Sequence[Process], few: Sequence[Process]) -> float:
    """What each worker beyond the few adds to the whole."""
    return (sum(p.pss_mib for p in many) - sum(p.pss_mib for p in few)) / (MANY - FEW)


def _deploy(site: Site, workers: int) -> tuple[float, tuple[list[Process], list[Process]]]:
    """Ship the service with that many workers; seconds until all were ready; the processes fresh and having served."""
    set_workers(site.folder, workers, guard_s=0)
    change_code(site.handler)
    steps = site.hitless("deploy").document["steps"]
    roots = site.roots()
    fresh = measure(roots)
    wrk(site.url() + PATH, seconds=3, connections=64)
    return instant(steps[1]) - instant(steps[0]), (fresh, measure(roots))


def _at_rest(site: Site, rest_s: float) -> Section:
    roots = site.roots()
    before, began = measure(roots), time.monotonic()
    time.sleep(rest_s)
    after, took_s = measure(roots), time.monotonic() - began
    spent = cpu_percent(before, after, took_s)
    total = Figure(
        "pss_mib",
        "PSS of all processes",
        "MiB",
        Spread.of([sum(p.pss_mib for p in after)]),
        1,
        Goal(Bound.AT_MOST, 120),
    )
    busy = Figure("cpu_percent", "CPU, of one core", "%", Spread.of([sum(spent.values())]), 2, Goal(Bound.AT_MOST, 1))
    each = [
        Figure(
            f"pss_mib_{index}", f"  {_short(p.name)} ({spent.get(p.pid, 0):.2f} %)", "MiB", Spread.of([p.pss_mib]), 1
        )
        for index, p in enumerate(after)
    ]
    how = f"the scaffolded service, {FEW} workers, {rest_s:g} s without a request; in brackets each one's CPU"
    return Section("at rest", how, (total, busy, *each))


def cpu_percent(before: Sequence[Process], after: Sequence[Process], seconds: float) -> dict[int, float]:
    """pid → percent of one core that it used between the two readings."""
    spent = {process.pid: process.cpu_s for process in before}
    return {p.pid: 100 * (p.cpu_s - spent.get(p.pid, 0.0)) / seconds for p in after}


def _short(name: str) -> str:
    words = name.split()
    return "HAProxy" if "haproxy" in words[0] else " ".join(word for word in words if not word.startswith("/"))
