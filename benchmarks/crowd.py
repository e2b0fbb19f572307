"""A flash crowd: how long one worker takes to become 32 when so many clients come at once that each is needed.

The crowd is there when wrk has been started; a worker is there when its process bears its name, which it takes on just
before it serves. The status must agree with that afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import wrk
from benchmarks.machine import BenchmarkError
from benchmarks.processes import workers_of
from benchmarks.site import Site, plain_service

WORKERS = 32
CLIENTS = 96
_WAIT = """

import time


def routed(event, context):
    if event["path"] != "/wait":
        return hello(event, context)
    time.sleep(0.05)
    return {"statusCode": 200, "body": "{}"}
"""
_CROWD_S = 3.0
_LOOK_EVERY_S = 0.002


def run(rounds: int, say: Callable[[str], None]) -> tuple[Section, ...]:
    """A service started anew in each round. Raises BenchmarkError, also where a request failed."""
    took_ms = []
    for number in range(rounds):
        with plain_service(edit=_scaling) as site, ThreadPoolExecutor(1) as pool:
            url, roots = f"{site.url()}/wait", site.roots()
            began = time.monotonic()
            crowd = pool.submit(wrk, url, seconds=_CROWD_S, connections=CLIENTS)
            took_ms.append((_all_there(roots) - began) * 1000)
            crowd.result()
            _agrees(site)
        say(f"round {number + 1}/{rounds}: 1 → {WORKERS} workers in {took_ms[-1]:.0f} ms")
    goal = Goal(Bound.AT_MOST, 250)
    figures = (Figure("ms", f"flash crowd: 1 → {WORKERS} workers", "ms", Spread.of(took_ms), 0, goal),)
    how = f"{CLIENTS} clients at once on a handler of 50 ms, from one worker on, no request failed, {rounds} rounds"
    return (Section("a flash crowd", how, figures),)


def _scaling(folder: Path) -> None:
    """The service has one more route, whose handler waits, and workers as they are needed."""
    with (folder / "handlers.py").open("a") as handlers:
        handlers.write(_WAIT)
    file = folder / "serverless.yml"
    text = file.read_text().replace("workers: 2", f"workers: {{min: 1, max: {WORKERS}}}")
    file.write_text(
        text.replace("handlers.hello", "handlers.routed").replace(
            "GET /hello\n", "GET /hello\n      - http: GET /wait\n"
        )
    )


def _all_there(roots: Sequence[int]) -> float:
    """When all workers were there. Raises BenchmarkError where that never was."""
    end = time.monotonic() + _CROWD_S - 0.5
    while (now := time.monotonic()) < end:
        if workers_of(roots) >= WORKERS:
            return now
        time.sleep(_LOOK_EVERY_S)
    raise BenchmarkError(f"a crowd of {CLIENTS} brought {workers_of(roots)} workers, not {WORKERS}")


def _agrees(site: Site) -> None:
    now = site.status()["stages"][0]["functions"][0]["scaling"]["now"]
    if now != WORKERS:
        raise BenchmarkError(f"{WORKERS} workers were seen, the status says {now}")
