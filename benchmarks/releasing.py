"""The latency that clients see while releases ship against the latency between them: a drill at half of capacity.

The drill's senders, which are Python, run on the same two cores and take about as much of them as the service does. So
capacity is half of what wrk gets out of the service alone, in the same run. The figures hold the senders' own delays.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import wrk
from benchmarks.site import scaffolded_service

RELEASES = 20
LOST_A_REQUEST = 6
"""The drill's exit code where a request failed: that is a figure here, and a missed goal."""
PATH = "/hello/bench"


def run(seconds: float, releases: int, say: Callable[[str], None]) -> Section:
    """One drill. Raises BenchmarkError."""
    with scaffolded_service() as site:
        wrk(site.url() + PATH, seconds=2)
        capacity = wrk(site.url() + PATH, seconds=3).requests_per_s
        rate = int(capacity / 4)
        say(f"drill at {rate} requests/s (wrk: {capacity:,.0f}), {releases} releases in {seconds:g} s")
        words = ("drill", "--rate", str(rate), "--duration", f"{seconds:g}", "--releases", str(releases), "--yes")
        drill = site.hitless(*words, exit_codes=(0, LOST_A_REQUEST)).document
    none, times = Goal(Bound.AT_MOST, 0), Goal(Bound.AT_MOST, 1.3)
    steady, releasing = drill["latency_steady_ms"]["p99"], drill["latency_releasing_ms"]["p99"]
    return Section(
        "latency while releases ship",
        f"the scaffolded service, {releases} releases at {rate} requests/s, a quarter of what wrk gets out of it",
        (
            Figure("failed", "failed requests", f"of {drill['requests']}", Spread.of([drill["failed"]]), 0, none),
            Figure("steady_p99_ms", "p99 between releases", "ms", Spread.of([steady]), 1),
            Figure("releasing_p99_ms", "p99 while a release ships", "ms", Spread.of([releasing]), 1),
            Figure("ratio", "p99 while a release ships ÷ between", "×", Spread.of([releasing / steady]), 2, times),
        ),
    )
