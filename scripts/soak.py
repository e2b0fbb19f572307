"""Ships releases of worldclock under load for some minutes and watches what each process of the engine keeps.

Memory is a process's own (`RssAnon`): pages of files are shared and the kernel's to drop. A worker and a zygote live as
long as their release, so that for these two kinds the mean of the processes that run is compared. Growth is the median
of the last minute against that of the fifth, or, in a shorter run, of the last quarter against the second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.plots import panels
from benchmarks.report import Part, write

from hitless.charts import Point

ROOT = Path(__file__).resolve().parents[1]
HITLESS = Path(sys.executable).with_name("hitless")
ALLOWED = 0.05
SETTLED_S = 300.0
SAMPLE_S = 4.0
GRAIN = {"memory_kb": 256.0, "descriptors": 2.0}
"""Growth up to this is none: a page or a connection more or less."""
KEYS = ("pid", "gateway_pid", "guardian_pid", "root_zygote_pid", "spooler_pid")

Series = dict[str, dict[str, list[Point]]]


def pids_of(status: dict[str, Any]) -> dict[str, list[int]]:
    """The engine's processes by kind."""
    functions = [one for stage in status["stages"] for one in stage["functions"]]
    engine = {key.removesuffix("_pid").replace("pid", "daemon"): [status["engine"][key]] for key in KEYS}
    workers = [worker["pid"] for one in functions for worker in one["workers"]]
    return {**engine, "zygote": [one["zygote_pid"] for one in functions], "worker": workers}


def figures_of(pid: int) -> dict[str, float]:
    """What a process keeps. Raises OSError if it is gone."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    memory = next(float(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return {"memory_kb": memory, "descriptors": float(len(list(Path(f"/proc/{pid}/fd").iterdir())))}


def sample(series: Series, at_s: float, status: dict[str, Any]) -> None:
    for kind, pids in pids_of(status).items():
        found = []
        for pid in filter(None, pids):
            with suppress(OSError, StopIteration):  # it has just ended
                found.append(figures_of(pid))
        for name in GRAIN if found else ():
            series[name][kind].append((at_s, statistics.fmean(each[name] for each in found)))


def growth_of(line: list[Point]) -> tuple[float, float]:
    """The median of the minute from which on nothing may grow, and of the last one."""
    end_s = line[-1][0]
    from_s, width_s = (SETTLED_S - 60, 60.0) if end_s >= SETTLED_S + 60 else (end_s / 4, end_s / 4)
    early = [value for at_s, value in line if from_s <= at_s < from_s + width_s]
    late = [value for at_s, value in line if at_s >= end_s - width_s]
    return statistics.median(early), statistics.median(late)


def plots(name: str, lines: dict[str, list[Point]]) -> list[str]:
    """One plot for each process, because the daemon's megabytes would hide the guardian's."""
    return [panels("", {f"{kind}: {name}": {"line": line}}) for kind, line in lines.items()]


def hitless(*words: str) -> dict[str, Any]:
    done = subprocess.run([str(HITLESS), *words, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def main() -> int:
    parser = argparse.ArgumentParser(description="Releases under load, for MINUTES; nothing may fail or grow.")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--rate", type=int, default=200, help="requests per second")
    parser.add_argument("--per-minute", type=float, default=6, help="releases per minute")
    parser.add_argument("--report", type=Path, default=ROOT / "soak-report.html")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hitless-soak-") as temporary:
        service = Path(temporary) / "worldclock"
        ignored = shutil.ignore_patterns(".hitless", "__pycache__", ".pytest_cache")
        shutil.copytree(ROOT / "examples" / "worldclock", service, ignore=ignored)
        where = f"--service-dir={service}"
        hitless("up", "--detach", "--listen", "127.0.0.1:0", where)
        try:
            return soak(options, where, Path(temporary))
        finally:
            hitless("down", where)


def soak(options: argparse.Namespace, where: str, folder: Path) -> int:
    words = ["drill", "--rate", options.rate, "--duration", options.minutes * 60, "--json", where]
    words += ["--releases", round(options.minutes * options.per_minute), "--report", folder / "drill.html"]
    series: Series = {name: defaultdict(list) for name in GRAIN}
    with (folder / "drill.json").open("w") as out:
        drill = subprocess.Popen([str(HITLESS), *map(str, words)], stdout=out)
        began_s = time.monotonic()
        while drill.poll() is None:
            with suppress(subprocess.CalledProcessError):
                sample(series, time.monotonic() - began_s, hitless("status", where))
            time.sleep(SAMPLE_S)
    document = json.loads((folder / "drill.json").read_text())
    return conclude(options.report.resolve(), document, series)


def conclude(path: Path, document: dict[str, Any], series: Series) -> int:
    """Print and write the table of all processes; the exit code."""
    head, rows = ("process", "figure", "settled", "at the end", "growth"), []
    grown = []
    for name, lines in series.items():
        for kind, line in lines.items():
            early, late = growth_of(line)
            rows.append((kind, name, f"{early:,.0f}", f"{late:,.0f}", f"{100 * (late / early - 1):+.1f} %"))
            if late > early * (1 + ALLOWED) and late > early + GRAIN[name]:
                grown.append(f"{name} of {kind}")
    live = sum(one["outcome"] == "live" for one in document["releases"])
    failed = document["failed"]
    headline = f"{failed:,} of {document['requests']:,} requests failed while {live} releases shipped"
    headline += f"; grew by more than 5 %: {', '.join(grown)}" if grown else "; no process grew by more than 5 %"
    failing = bool(failed or grown or document["surprises"])
    table = Part("Processes", "Growth is the last minute's median against the settled one.", (), head, rows)
    drawn = [Part(name, plots=plots(name, lines)) for name, lines in series.items()]
    write(path, headline, [table, *drawn], ok=not failing)
    print("\n".join("  ".join(cell.rjust(12) for cell in row) for row in (head, *rows)))
    print(f"{headline}; report {path}", flush=True)
    return int(failing)


if __name__ == "__main__":
    sys.exit(main())
