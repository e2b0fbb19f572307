"""What a canary of 10 % costs in throughput while it bakes, and how fast a worker that was killed is replaced."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.contenders import PATH
from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import wrk
from benchmarks.machine import BenchmarkError
from benchmarks.site import Site, change_code, plain_service

BAKING: tuple[str, ...] = ("deploy", "--strategy", "Canary10Percent30Minutes", "--no-wait")
KILLS = 10
_WARM_UP_S = 1.0


def canary(rounds: int, seconds: float, say: Callable[[str], None]) -> tuple[Section, ...]:
    """Throughput with and without a canary under way, in turn. Raises BenchmarkError."""
    alone, baking = [], []
    with plain_service() as site:
        for number in range(rounds):
            alone.append(_rate(site, seconds))
            change_code(site.handler)
            site.hitless(*BAKING)
            _await_weight(site, 10)
            baking.append(_rate(site, seconds))
            site.hitless("abort")
            _await_weight(site, 0)
            say(f"round {number + 1}/{rounds}: {alone[-1]:,.0f}/s alone, {baking[-1]:,.0f}/s with a canary")
    cost = Spread.of([100 * (1 - with_it / without) for with_it, without in zip(baking, alone, strict=True)])
    figures = (
        Figure("canary_cost_percent", "throughput that a canary of 10 % costs", "%", cost, 1, Goal(Bound.AT_MOST, 25)),
        Figure("alone_rate", "one release", "requests/s", Spread.of(alone), 0),
        Figure("canary_rate", "a canary of 10 % beside it", "requests/s", Spread.of(baking), 0),
    )
    return (Section("a canary", f"keep-alive by wrk, shield as it is by default, {rounds} rounds", figures),)


def crash(say: Callable[[str], None]) -> tuple[Section, ...]:
    """Workers killed under load, one after the other. Raises BenchmarkError."""
    faults = ",".join(["kill-worker"] * KILLS)
    words = ("drill", "--rate", "200", "--duration", str(KILLS), "--releases", "0", "--faults", faults, "--yes")
    with plain_service() as site:
        drill = site.hitless(*words, exit_codes=(0, 6)).document
    recovered = [fault["recovered_ms"] for fault in drill["faults"]]
    if len(recovered) != KILLS or None in recovered:
        raise BenchmarkError(f"of {KILLS} killed workers not all came back: {recovered}")
    say(f"workers killed: {KILLS}, each replaced within {max(recovered):.0f} ms, {drill['failed']} requests failed")
    replaced = Spread.of(recovered)
    figures = (
        Figure("replaced_ms", "killed worker replaced", "ms", replaced, 0, Goal(Bound.AT_MOST, 100)),
        Figure("failed", "failed requests, GET and POST", f"of {drill['requests']:,}", Spread.of([drill["failed"]]), 0),
    )
    return (
        Section("a crashed worker", f"{KILLS} SIGKILLs of a worker under 200 requests/s, seen by polling", figures),
    )


def _rate(site: Site, seconds: float) -> float:
    wrk(site.url() + PATH, seconds=_WARM_UP_S)
    return wrk(site.url() + PATH, seconds=seconds).requests_per_s


def _await_weight(site: Site, percent: int) -> None:
    """Raises BenchmarkError where the candidate has another weight; 0 means that there is none."""
    for _ in range(50):
        candidate = site.status()["stages"][0]["candidate"]
        if (candidate or {"weight_percent": 0})["weight_percent"] == percent:
            return
    raise BenchmarkError(f"the candidate did not come to {percent} %: {candidate}")
