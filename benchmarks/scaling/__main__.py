"""The scaler's decisions under computed loads: `python -m benchmarks.scaling [--out FOLDER] [SCENARIO …]`.

Prints a line a scenario and, with `--out`, writes `scaling.html` and `scaling.md` there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.report import Part, write
from benchmarks.scaling.plot import HEAD, figures_of, plot_of
from benchmarks.scaling.scenarios import SCENARIOS
from benchmarks.scaling.simulator import simulate
from hitless.scaling.decide import ScaleInPace


def main() -> None:
    """Run the scenarios that are named, else all."""
    known = {scenario.name: scenario for scenario in SCENARIOS}
    parser = argparse.ArgumentParser(description="The scaler's decisions under computed loads.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(known))
    parser.add_argument("--out", type=Path, help="a folder for the report")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if unknown := [name for name in options.scenarios if name not in known]:
        parser.error(f"there is no scenario {unknown[0]}; there are {', '.join(known)}")
    rows, parts, lost = [], [], 0
    for scenario in map(known.__getitem__, options.scenarios or known):
        outcome = simulate(
            scenario.workload, scenario.bounds, workers=scenario.workers, pace=ScaleInPace(), seed=options.seed
        )
        rows.append((scenario.name, *figures_of(outcome)))
        parts.append(Part(scenario.name, scenario.title, [plot_of(outcome)]))
        lost += outcome.timed_out
        sys.stdout.write(", ".join(f"{name} {cell}" for name, cell in zip(HEAD, rows[-1], strict=True)) + "\n")
    if options.out is not None:
        headline = f"{lost:,} requests timed out in {len(rows)} scenarios of the scaler"
        summary = Part(
            "Scenarios", "On virtual time. A wait is the time until a worker has the request.", (), HEAD, rows
        )
        write(options.out / "scaling.html", headline, [summary, *parts], ok=not lost)


if __name__ == "__main__":
    main()
