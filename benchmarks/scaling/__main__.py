"""The scaler's decisions under computed loads: `python -m benchmarks.scaling [--out FOLDER] [SCENARIO …]`.

Prints a line a scenario and, with `--out`, writes a plot `SCENARIO.svg` there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.scaling.plot import summary, svg_of
from benchmarks.scaling.scenarios import SCENARIOS
from benchmarks.scaling.simulator import simulate
from hitless.scaling.decide import ScaleInPace


def main() -> None:
    """Run the scenarios that are named, else all."""
    known = {scenario.name: scenario for scenario in SCENARIOS}
    parser = argparse.ArgumentParser(description="The scaler's decisions under computed loads.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(known))
    parser.add_argument("--out", type=Path, help="a folder for the plots")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for name in options.scenarios or known:
        if name not in known:
            parser.error(f"there is no scenario {name}; there are {', '.join(known)}")
    for name in options.scenarios or known:
        scenario = known[name]
        outcome = simulate(
            scenario.workload, scenario.bounds, workers=scenario.workers, pace=ScaleInPace(), seed=options.seed
        )
        sys.stdout.write(f"{name:<14}{summary(outcome)}\n")
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"{name}.svg").write_text(svg_of(scenario, outcome), encoding="utf-8")


if __name__ == "__main__":
    main()
