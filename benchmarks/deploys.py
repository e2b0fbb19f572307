"""From the command to 100 % of the traffic: an all-at-once, code-only deploy of the scaffolded service, and its parts.

The clock starts before the process does. 100 % counts from the step that names it, which is recorded just before it is
taken; the command returns when the gateway has confirmed it. The release before it stays warm under the alarms.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from benchmarks.figures import Bound, Goal, Section, timed
from benchmarks.machine import BenchmarkError
from benchmarks.site import Ran, change_code, scaffolded_service

_TITLES = {
    "to_100_percent": "command to 100 %",
    "to_end": "command to its return",
    "start": "  process start, imports, reading serverless.yml",
    "build": "  build of the artifact",
    "hand_over": "  git, and the request to the engine",
    "pools": "  workers started, all ready and probed",
    "smoke": "  smoke request, servers and routes at the gateway",
    "answer": "  the one map entry that moves all traffic, answer printed",
}


def run(rounds: int, say: Callable[[str], None]) -> Section:
    """As many deploys as `rounds`. Raises BenchmarkError."""
    timings = []
    with scaffolded_service() as site:
        for number in range(rounds):
            change_code(site.handler)
            timing = timing_of(site.hitless("deploy"))
            timings.append(timing)
            to_100_percent, to_end = timing["to_100_percent"], timing["to_end"]
            say(f"deploy {number + 1}/{rounds}: {to_100_percent:.3f} s to 100 %, {to_end:.3f} s in all")
    figures = timed(_TITLES, timings, 3, {"to_100_percent": Goal(Bound.AT_MOST, 1.0)})
    return Section("deploy", f"the scaffolded service, one line of code changed, {rounds} deploys", figures)


def timing_of(ran: Ran) -> dict[str, float]:
    """Seconds from the command to 100 % and to the end, and how long each part took: from the steps of its document and
    from when its message of the build came.

    Raises BenchmarkError where the deploy did not go live through these steps.
    """
    document = ran.document
    if document["outcome"] != "live":
        raise BenchmarkError(f"the deploy ended {document['outcome']}: {document['reason']}")
    at = {step["state"]: instant(step) for step in document["steps"]}
    built = next(((when, text) for when, text in ran.messages if text.startswith("built ")), None)
    took = re.search(r" in ([\d.]+) s$", built[1]) if built else None
    missing = {"preparing", "testing", "shifting"} - at.keys()
    if built is None or took is None or missing:
        raise BenchmarkError(f"the deploy shows no {', '.join(sorted(missing)) or 'build'}: {ran.messages} {document}")
    build_s = float(took[1])
    return {
        "to_100_percent": at["shifting"] - ran.began_at,
        "to_end": ran.ended_at - ran.began_at,
        "start": built[0] - build_s - ran.began_at,
        "build": build_s,
        "hand_over": at["preparing"] - built[0],
        "pools": at["testing"] - at["preparing"],
        "smoke": at["shifting"] - at["testing"],
        "answer": ran.ended_at - at["shifting"],
    }


def instant(step: dict[str, Any]) -> float:
    """When a step was taken, as seconds of the wall clock."""
    return datetime.fromisoformat(step["at"]).timestamp()
