"""The latency that clients see while releases ship against the latency between them: a drill at half of capacity.

Capacity is what wrk gets out of the same service in the same run; the drill's own senders share the two cores.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import wrk
from benchmarks.site import scaffolded_service

RELEASES = 20
PATH = "/hello/bench"


def run(seconds: float, releases: int, say: Callable[[str], None]) -> Section:
    """One drill. Raises BenchmarkError, also where the drill lost a request."""
    with scaffolded_service() as site:
        capacity = wrk(site.url() + PATH, seconds=3, warm_up_s=2).requests_per_s
        rate = int(capacity / 2)
        say(f"drill at {rate} requests/s (half of {capacity:,.0f}), {releases} releases in {seconds:g} s")
        words = ("drill", "--rate", str(rate), "--duration", f"{seconds:g}", "--releases", str(releases), "--yes")
        drill = site.hitless(*words).document
    steady, releasing = drill["latency_steady_ms"]["p99"], drill["latency_releasing_ms"]["p99"]
    return Section(
        "latency while releases ship",
        f"the scaffolded service, {releases} releases at {rate} requests/s, half of what wrk gets out of it",
        (
            Figure("failed", "failed requests", f"of {drill['requests']}", Spread.of([drill["failed"]]), 0, _none()),
            Figure("steady_p99_ms", "p99 between releases", "ms", Spread.of([steady]), 1),
            Figure("releasing_p99_ms", "p99 while a release ships", "ms", Spread.of([releasing]), 1),
            Figure("ratio", "shipping ÷ steady", "×", Spread.of([releasing / steady])),
        ),
    )


def _none() -> Goal:
    return Goal(Bound.AT_MOST, 0)
