"""`python -m benchmarks`: measure, print the tables, write the figures to benchmarks/results/."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import deploys, footprint, releasing, shipping, throughput
from benchmarks.figures import Section, missed
from benchmarks.machine import BenchmarkError, described, share_two_cores

RESULTS = Path(__file__).with_name("results")
PARTS = ("throughput", "shipping", "deploy", "footprint", "drill")


def main() -> int:
    options = _options()
    cores = share_two_cores()
    machine = described(cores)
    _say(f"on {cores} of {machine['cores']} cores, load average {machine['load_average_1min']}")
    measures: dict[str, Callable[[], tuple[Section, ...]]] = {
        "throughput": lambda: throughput.run(options.rounds, options.seconds, _say),
        "shipping": lambda: shipping.run(options.releases, _say),
        "deploy": lambda: (deploys.run(options.deploys, _say),),
        "footprint": lambda: footprint.run(options.rounds, options.rest, _say),
        "drill": lambda: (releasing.run(options.drill_seconds, options.releases, _say),),
    }
    sections: list[Section] = []
    failed = False
    try:
        for part in PARTS:
            if part in options.parts:
                measured = measures[part]()
                sections += measured
                print("".join(f"\n{section.text()}\n" for section in measured), flush=True)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        failed = True
    file = _write(machine, sections)
    behind = missed(sections)
    for figure in behind:
        print(f"missed: {figure.line()}")
    print(f"{len(behind)} goals missed; figures in {file}")
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures what the project claims.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of load for each server in each round")
    parser.add_argument("--deploys", type=int, default=7)
    parser.add_argument("--rest", type=float, default=20, help="seconds at rest")
    parser.add_argument("--drill-seconds", type=float, default=30)
    parser.add_argument("--releases", type=int, default=releasing.RELEASES, help="releases in the drill")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))} (there are {', '.join(PARTS)})")
    options.parts = options.parts or PARTS
    return options


def _write(machine: dict[str, Any], sections: list[Section]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    now = time.gmtime()
    document = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
        "machine": {**machine, "load_average_1min_after": round(os.getloadavg()[0], 2)},
        "sections": [section.to_json() for section in sections],
    }
    file = RESULTS / time.strftime("%Y%m%dT%H%M%SZ.json", now)
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return file


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
