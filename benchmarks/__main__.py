"""`python -m benchmarks`: measure, print the tables, write figures, page and Markdown to benchmarks/results/."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    crowd,
    deploys,
    direct,
    footprint,
    growth,
    pushes,
    releasing,
    report,
    rollouts,
    runtimes,
    shipping,
    throughput,
    workloads,
)
from benchmarks.figures import Section, missed
from benchmarks.machine import BenchmarkError, described, share_two_cores
from benchmarks.sized import AXES

RESULTS = Path(__file__).with_name("results")
COMPARISON = ("throughput", "shipping")
GOALS = ("canary", "crash", "crowd", "drill")
DEFAULT = (*COMPARISON, *GOALS, "direct", "deploy", "push", "footprint", "runtimes")
LONG = ("workloads", "waiting", "growth")
PARTS = (*DEFAULT, *LONG)
FULL = (*COMPARISON, *LONG)

GROWING = tuple(axis.key for axis in AXES)

Measure = Callable[[], tuple[Section, ...]]


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started ends with it
    cores = share_two_cores()
    machine = described(cores)
    _say(f"on {cores} of {machine['cores']} cores, load average {machine['load_average_1min']}")
    measures = _measures(options)
    sections: list[Section] = []
    failed = False
    for part in PARTS:
        if part in options.parts:
            try:
                measured = measures[part]()
            except BenchmarkError as error:  # the other parts are worth as much without it
                print(f"error: {part}: {error}", file=sys.stderr)
                failed = True
            else:
                sections += measured
                print("".join(f"\n{section.text()}\n" for section in measured), flush=True)
    document = _document(machine, sections)
    file = _write(document)
    page = file.with_suffix(".html")
    headline, parts, lead = report.measured(document["at"], machine, sections)
    report.write(page, headline, parts, lead=lead)
    file.with_suffix(".svg").write_text(report.picture(sections))
    behind = missed(sections)
    for figure in behind:
        print(f"missed: {figure.line()}")
    print(f"{len(behind)} goals missed; figures in {file}, page {page}")
    return int(failed)


def _measures(options: argparse.Namespace) -> dict[str, Measure]:
    rounds, seconds = options.rounds, options.seconds
    return {
        "throughput": lambda: throughput.run(rounds, seconds, _say),
        "shipping": lambda: shipping.run(options.releases, _say, gateways=options.full),
        "canary": lambda: rollouts.canary(rounds, seconds, _say),
        "crash": lambda: rollouts.crash(_say),
        "crowd": lambda: crowd.run(rounds, _say),
        "drill": lambda: (releasing.run(options.releases, _say),),
        "direct": lambda: direct.run(rounds, seconds, _say),
        "deploy": lambda: (deploys.run(options.deploys, _say),),
        "push": lambda: (pushes.run(options.pushes, _say),),
        "runtimes": lambda: runtimes.run(rounds, seconds, _say),
        "waiting": lambda: workloads.waiting(rounds, seconds, _say),
        "workloads": lambda: workloads.run(rounds, seconds, _say),
        "growth": lambda: growth.run(options.axes, options.scale, options.rest / 2, seconds, _say),
        "footprint": lambda: footprint.run(rounds, options.rest, _say),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures what the project claims.")
    names = (
        "quick (the comparison and the goals, in short rounds), full (the comparison with peers behind gateways too,"
        f" {', '.join(LONG)}), {', '.join(PARTS)}; default: all but quick, full and {', '.join(LONG)}"
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=names)
    parser.add_argument("--rounds", type=int, help="default: 5, quick: 3")
    parser.add_argument("--seconds", type=float, help="of load for each server in each round; default: 4, quick: 1")
    parser.add_argument("--releases", type=int, default=20, help="that each contender takes")
    parser.add_argument("--deploys", type=int, default=7)
    parser.add_argument("--pushes", type=int, default=5)
    parser.add_argument("--rest", type=float, default=20, help="seconds at rest")
    parser.add_argument("--axes", nargs="+", default=GROWING, choices=GROWING, help="of growth; default: all")
    parser.add_argument("--scale", type=float, default=1, help="of growth's greatest sizes; default: 1")
    options = parser.parse_args()
    quick, options.full = "quick" in options.parts, "full" in options.parts
    chosen = [part for part in options.parts if part not in ("quick", "full")]
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))} (there are quick, full, {', '.join(PARTS)})")
    whole = (*COMPARISON, *GOALS) if quick else FULL if options.full else DEFAULT
    options.parts = tuple(chosen) or whole
    options.rounds = options.rounds or (3 if quick else 5)
    options.seconds = options.seconds or (1 if quick else 4)
    if quick:  # its default would take seven seconds a release
        os.environ.setdefault("GRANIAN_RESPAWN_INTERVAL", "1")
    return options


def _document(machine: dict[str, Any], sections: list[Section]) -> dict[str, Any]:
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {**machine, "load_average_1min_after": round(os.getloadavg()[0], 2)},
        "sections": [section.to_json() for section in sections],
    }


def _write(document: dict[str, Any]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{document['at'].replace('-', '').replace(':', '')}.json"
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return file


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
