"""The latency that clients see while releases ship, against the latency between them, at a quarter of capacity.

The load comes from h2load, because hitless's own drill is Python and would take more of the two cores than the service.
Capacity is what wrk gets out of the same service. Each of h2load's connections sends at its own pace and waits for each
response, so a stall longer than `PERIOD_S` delays later requests of that connection.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import wrk
from benchmarks.machine import BenchmarkError, tool
from benchmarks.site import Site, change_code, scaffolded_service

RELEASES = 20
PATH = "/hello/bench"
PERIOD_S = 0.05
"""Between two requests of one connection."""
PAUSE_S = 1.0
"""Between two releases, and before the first and after the last one."""


def run(releases: int, say: Callable[[str], None]) -> Section:
    """One load, `releases` deploys. Raises BenchmarkError."""
    with scaffolded_service() as site, tempfile.TemporaryDirectory() as folder:
        wrk(site.url() + PATH, seconds=2)
        capacity = wrk(site.url() + PATH, seconds=3).requests_per_s
        connections = round(capacity / 4 * PERIOD_S)
        rate = round(connections / PERIOD_S)
        say(f"{rate} requests/s (wrk: {capacity:,.0f}) on {connections} connections, {releases} releases")
        log = Path(folder) / "requests"
        # connections open one after the other for a period: otherwise all would send in the same moment of each period
        each_ms = round(connections / (PERIOD_S * 1000))
        words = [tool("h2load"), "--h1", "-t1", f"-c{connections}", f"-r{each_ms}", "--rate-period=1ms"]
        words += [f"--rps={1 / PERIOD_S:g}", f"-n{connections * 100_000}", f"--log-file={log}"]
        with subprocess.Popen([*words, site.url() + PATH], stdout=subprocess.DEVNULL, start_new_session=True) as load:
            try:
                shipped = _ship(site, releases)
            finally:
                load.terminate()
        return section(_requests(log), shipped, rate)


def _ship(site: Site, releases: int) -> list[tuple[float, float]]:
    """When each release began and was live, as seconds since the epoch."""
    time.sleep(PAUSE_S)
    shipped = []
    for _ in range(releases):
        change_code(site.handler)
        ran = site.hitless("deploy")
        shipped.append((ran.began_at, ran.ended_at))
        time.sleep(PAUSE_S)
    return shipped


def _requests(log: Path) -> list[tuple[float, int, float]]:
    """When each request of h2load's log began (seconds since the epoch), its status (-1: none), its milliseconds."""
    requests = []
    for line in log.read_text().splitlines():
        began_us, status, took_us = map(int, line.split("\t")[:3])
        requests.append((began_us / 1e6, status, took_us / 1e3))
    if not requests:
        raise BenchmarkError("h2load logged no request")
    return requests


def section(requests: Sequence[tuple[float, int, float]], shipped: Sequence[tuple[float, float]], rate: int) -> Section:
    """A request counts as sent while a release shipped if it was open at any moment of it. Raises BenchmarkError."""
    first, last = shipped[0][0] - PAUSE_S, shipped[-1][1] + PAUSE_S
    steady: list[float] = []
    releasing: list[float] = []
    for began, _, took_ms in requests:
        if first <= began <= last:
            meanwhile = any(start - took_ms / 1e3 <= began <= end for start, end in shipped)
            (releasing if meanwhile else steady).append(took_ms)
    failed = sum(status // 100 != 2 for _, status, _ in requests)
    steady_ms, releasing_ms = _p99(steady), _p99(releasing)
    none, times = Goal(Bound.AT_MOST, 0), Goal(Bound.AT_MOST, 1.3)
    return Section(
        "latency while releases ship",
        f"the scaffolded service, {len(shipped)} releases at {rate} requests/s by h2load, a quarter of what wrk gets",
        (
            Figure("failed", "failed requests", f"of {len(requests):,}", Spread.of([failed]), 0, none),
            Figure("release_s", "a release takes", "s", Spread.of([end - start for start, end in shipped]), 2),
            Figure("steady_p99_ms", "p99 between releases", "ms", Spread.of([steady_ms]), 1),
            Figure("releasing_p99_ms", "p99 while a release ships", "ms", Spread.of([releasing_ms]), 1),
            Figure(
                *("ratio", "p99 while a release ships ÷ between", "×"),
                *(Spread.of([releasing_ms / steady_ms]), 2, times),
            ),
        ),
    )


def _p99(milliseconds: Sequence[float]) -> float:
    if not milliseconds:
        raise BenchmarkError("no request was sent in one of the two states")
    return sorted(milliseconds)[int(0.99 * (len(milliseconds) - 1))]
