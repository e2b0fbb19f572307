"""What a further route, function, worker, stage, release and connection costs: one axis grows, all else stays small.

At each size: the processor time of a deploy and of a start, memory, the processor time of an engine at rest and of a
request. Processor time and memory, because a busy machine changes them less than durations. The greatest size is
compared with the line through the smaller ones: a cost that grows faster than linearly lies above that line.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.footprint import cpu_percent
from benchmarks.load import CONNECTIONS, wrk
from benchmarks.processes import Process, cpu_s, measure
from benchmarks.site import Site, change_code
from benchmarks.sized import AXES, Grown

SHARES: Final = (0.05, 0.35, 0.7, 1.0)
"""The sizes, as shares of the greatest: far enough apart that a curve shows."""
DEPLOYS: Final = 3
BENT: Final = 1.3
"""The greatest size may cost this many times what the line through the smaller ones foretells."""
_SETTLE_LIMIT_S: Final = 60.0
_SETTLED_S: Final = 0.1
SHOWN: Final[Mapping[str, tuple[str, str]]] = {
    "deploy_s": ("a deploy", "s of CPU"),
    "start_s": ("a start of the engine", "s of CPU"),
    "memory_mib": ("memory of all processes", "MiB"),
    "engine_mib": ("memory of the daemon", "MiB"),
    "haproxy_mib": ("memory of HAProxy", "MiB"),
    "rest_percent": ("an idle engine", "% of a core"),
    "request_us": ("a request", "µs of CPU"),
}


def run(
    axes: Iterable[str], scale: float, rest_s: float, seconds: float, say: Callable[[str], None]
) -> tuple[Section, ...]:
    """All sizes of each axis, up to `scale` times its greatest. Raises BenchmarkError."""
    sections = []
    for axis in AXES:
        if axis.key in axes:
            measured: dict[int, dict[str, float]] = {}
            with axis.start() as grown:
                for size in sizes(round(axis.most * scale), axis.step):
                    grown.to(size)
                    measured[size] = _measured(grown, rest_s, seconds)
                    say(f"{size:,} {axis.key}: {', '.join(f'{k} {v:.4g}' for k, v in measured[size].items())}")
            sections.append(section(axis.key, measured))
    return tuple(sections)


def sizes(most: int, step: int = 1) -> list[int]:
    """At least three sizes, all multiples of `step`, the least first."""
    return sorted({step * max(number, round(most * share / step)) for number, share in enumerate(SHARES, 1)})


def section(key: str, measured: Mapping[int, Mapping[str, float]]) -> Section:
    """For each cost its value at the greatest size, the slope, and how far the greatest lies above the line."""
    figures = []
    numbers = sorted(measured)
    for name in measured[numbers[0]]:
        values = [measured[number][name] for number in numbers]
        what, unit = SHOWN[name]
        for number, value in zip(numbers, values, strict=True):
            title, spread = f"{what}: {number:,} {key}", Spread.of([value])
            figures.append(Figure(f"{name}_{number}", title, unit, spread, 2, chart=f"{what}, {unit}", at=number))
        slope = Spread.of([statistics.linear_regression(numbers, values).slope * 100])
        figures.append(Figure(f"{name}_slope", f"  each further 100 {key}", unit, slope, 3))
        above, goal = Spread.of([bend(numbers, values)]), Goal(Bound.AT_MOST, BENT)
        figures.append(Figure(f"{name}_bend", "  the greatest ÷ linear", "×", above, 2, goal))
    how = f"medians of {DEPLOYS} deploys; in processor time, with the commands; {CONNECTIONS} connections of wrk"
    return Section(f"growth: {key}", how, tuple(figures))


def bend(numbers: Sequence[int], values: Sequence[float]) -> float:
    """The last value ÷ what the line through the others foretells, but at least their greatest."""
    line = statistics.linear_regression(numbers[:-1], values[:-1])
    foretold = max(line.slope * numbers[-1] + line.intercept, *values[:-1])
    return values[-1] / foretold if foretold else 1.0


def _measured(grown: Grown, rest_s: float, seconds: float) -> dict[str, float]:
    site = grown.site
    found: dict[str, float] = {}
    grown.ready()
    found["deploy_s"] = statistics.median(_deploy_s(site) for _ in range(DEPLOYS))
    grown.ready()
    _settle(site.roots())
    before, began = measure(site.roots()), time.monotonic()
    time.sleep(rest_s)
    after = measure(site.roots())
    found["rest_percent"] = sum(cpu_percent(before, after, time.monotonic() - began).values())
    found["memory_mib"] = sum(one.pss_mib for one in after)
    engine = site.status()["engine"]
    found["engine_mib"] = _pss_of(after, engine["pid"])
    found["haproxy_mib"] = _pss_of(after, engine["gateway_pid"])
    grown.ready()
    found["request_us"] = _request_us(grown, seconds)
    if grown.restarts:
        found["start_s"] = _start_s(site)
    return found


def _settle(roots: Sequence[int]) -> None:
    """Wait until the pools of the releases before have ended: until the engine uses little of a core."""
    end, before = time.monotonic() + _SETTLE_LIMIT_S, cpu_s(roots)
    while time.monotonic() < end:
        time.sleep(1)
        now = cpu_s(roots)
        if now - before < _SETTLED_S:
            return
        before = now


def _pss_of(processes: Sequence[Process], pid: int) -> float:
    return next(one.pss_mib for one in processes if one.pid == pid)


def _commands_s() -> float:
    """Processor time of the commands that ran until now."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _deploy_s(site: Site) -> float:
    change_code(site.handler)
    roots = site.roots()
    engine, commands = cpu_s(roots), _commands_s()
    site.hitless("deploy", "--stage", "dev")
    return cpu_s(roots) - engine + _commands_s() - commands


def _start_s(site: Site) -> float:
    """From `up` until all stages serve."""
    site.hitless("down", "--engine")
    commands = _commands_s()
    site.hitless("up", "--detach", "--stage", "dev")
    commands = _commands_s() - commands
    return commands + cpu_s(site.roots())


def _request_us(grown: Grown, seconds: float) -> float:
    roots, url = grown.site.roots(), grown.url()
    wrk(url, seconds=1, host=grown.host)
    before = cpu_s(roots)
    load = wrk(url, seconds=seconds, host=grown.host)
    return (cpu_s(roots) - before) / load.requests * 1e6
