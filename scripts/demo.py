"""The demo: worldclock comes up, releases ship under load, five of them broken, one is taken back; then the sum.

Everything goes through the `hitless` command, as a user would type it. Work happens on a copy of examples/worldclock
in a temporary folder; only the report stays.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HITLESS = Path(sys.executable).with_name("hitless")
SCENARIOS = (
    *("good", "canary", "import-crash", "good", "raises-on-route", "linear", "never-ready"),
    *("good", "exits", "rollback", "slow", "good", "good"),
)


def hitless(*words: str, show: bool = True, check: bool = True) -> dict[str, Any]:
    """Run a verb with --json; its document. With `show` the command line is printed first, as a user would type it."""
    if show:
        print(f"$ hitless {' '.join(word for word in words if not word.startswith('--service-dir'))}", flush=True)
    done = subprocess.run([str(HITLESS), *words, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if check and done.returncode != 0:
        raise SystemExit(f"hitless {words[0]} ended with {done.returncode}: {done.stdout}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


FULL_RATE_PER_S, LEAST_RATE_PER_S = 1000, 125
BEARABLE_P99_MS = 250


def bearable_rate_per_s(where: str, report: str) -> int:
    """What this machine serves at twice the rate without falling behind, while nothing ships; it may be busy.

    Load comes by schedule and does not wait for a machine that has more to do than it can: what it could never serve
    would be told as failed, and say nothing of releases.
    """
    rate = FULL_RATE_PER_S
    while rate > LEAST_RATE_PER_S:
        look = ("drill", "--rate", str(2 * rate), "--duration", "3", "--releases", "0", "--report", report, where)
        drill = hitless(*look, show=False, check=False)
        if drill.get("failed") == 0 and drill["latency_ms"]["p99"] <= BEARABLE_P99_MS:
            break
        rate //= 2
        print(f"this machine is too busy for twice {2 * rate} requests a second; trying {rate}", flush=True)
    return rate


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the engine, as Ctrl-C does
    parser = argparse.ArgumentParser(
        description="Ships releases of a real service under load and counts every request."
    )
    parser.add_argument(
        "--rate", type=int, help=f"requests per second (default: {FULL_RATE_PER_S}, or what the machine bears)"
    )
    parser.add_argument("--duration", type=int, default=105, help="seconds of load")
    parser.add_argument("--report", type=Path, default=ROOT / "demo-report.html")
    options = parser.parse_args()
    report = options.report.resolve()
    with tempfile.TemporaryDirectory(prefix="hitless-demo-") as temporary:
        service = Path(temporary) / "worldclock"
        ignored = shutil.ignore_patterns(".hitless", "__pycache__", ".pytest_cache")
        shutil.copytree(ROOT / "examples" / "worldclock", service, ignore=ignored)
        where = f"--service-dir={service}"
        try:
            status = hitless("up", "--detach", "--listen", "127.0.0.1:0", where)
            url = next(stage["url"] for stage in status["stages"] if stage["stage"] == "dev")
            rate = options.rate or bearable_rate_per_s(where, str(report))
            print(f"worldclock serves at {url}; now load, and releases over it", flush=True)
            drill = hitless(
                *("drill", "--rate", str(rate), "--duration", str(options.duration)),
                *("--releases", str(len(SCENARIOS)), "--scenarios", ",".join(SCENARIOS), "--idempotency-key"),
                *("--report", str(report), where),
                check=False,
            )
        finally:
            hitless("down", where, show=False, check=False)
    if "requests" not in drill:
        raise SystemExit(f"the drill did not run: {drill}")
    return account(drill, report)


def account(drill: dict[str, Any], report: Path) -> int:
    """Print what happened; 0 only if no request failed and every release ended as its scenario expects."""
    print()
    for release in drill["releases"]:
        mark = "ok " if release.get("as_expected", True) else "NOT"
        what = f"release {release['release']}: {release['scenario']:<15} {release['outcome']:<12}"
        counts = f"{release['requests']} requests, {release['failed']} failed, {release['shielded']} shielded"
        print(f"  {mark} {what} {release['duration_s']:6.2f} s, {counts}")
    live = sum(release["outcome"] == "live" for release in drill["releases"])
    p99 = [drill[key]["p99"] for key in ("latency_steady_ms", "latency_releasing_ms")]
    print(f"\n  p99 {p99[0]} ms steady, {p99[1]} ms while releases ship\n")
    print(f"{drill['requests']} requests, {drill['failed']} failed, {live} releases; report {report}")
    expected = all(release.get("as_expected", True) for release in drill["releases"])
    return 0 if drill["failed"] == 0 and expected and live > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
