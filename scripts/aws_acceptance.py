"""The acceptance on a real account, step by step, on a copy of worldclock under a name of its own.

It always ends with destroy, whatever happened before, and says so where that failed: what is left costs money. The
pipeline is left out, for it needs a repository on GitHub and a person's click; docs/aws.md says how to try it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HITLESS = Path(sys.executable).with_name("hitless")
SERVICE = "worldclock-acceptance"
STAGE = "dev"
HOURS = 2
CANARY = "Canary10Percent5Minutes"
BROKEN = """

_whole = handler


def handler(event, context):
    if event["path"].endswith("/UTC"):  # no smoke request asks for it: only the alarm can find out
        raise RuntimeError("broken on purpose")
    return _whole(event, context)
"""
REQUESTS = (
    {"method": "GET", "path": "/version", "weight": 2},
    {"method": "GET", "path": "/zones/UTC", "weight": 2},
    {"method": "GET", "path": "/convert?instant=2026-11-24T12:00:00Z&to=Asia/Tokyo"},
)


@dataclass(frozen=True)
class Step:
    """A command and how it should end. `edit` is appended to a file of the service before; `load` runs meanwhile."""

    title: str
    words: tuple[str, ...]
    exits: int = 0
    edit: tuple[str, str] | None = None
    load: bool = False


ZONES = "worldclock/handlers/zones.py"
STEPS = (
    Step("network, bucket, roles", ("bootstrap", "--no-pipeline", "--yes")),
    Step("the first release", ("deploy", "--yes")),
    Step("nothing changed, nothing done", ("deploy", "--yes")),
    Step("a second release by canary", ("deploy", "--strategy", CANARY), edit=(ZONES, "\n# the second\n"), load=True),
    Step("a broken release goes back by its alarm", ("deploy", "--strategy", CANARY), 3, (ZONES, BROKEN), load=True),
    Step("back to the first release at once", ("rollback", "1"), load=True),
    Step("what is live", ("status",)),
)
LAST = Step("everything goes", ("destroy", "--confirm", STAGE, "--with-data"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="show the cost and every step; touch nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before money is spent")
    parser.add_argument("--rate", type=int, default=20, help="requests per second while releases ship")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hitless-acceptance-") as temporary:
        service = copy_of_worldclock(Path(temporary))
        print(cost_in_words(service))
        for number, step in enumerate((*STEPS, LAST), 1):
            load = f"  (under {options.rate} requests/s)" if step.load else ""
            print(f"  {number}. {step.title}{load}\n     $ {shlex.join(command(step))}   → exit {step.exits}")
        if options.dry_run:
            return 0
        if not options.yes and input("type the name of the service to begin: ").strip() != SERVICE:
            print("not begun")
            return 1
        return walk(service, options.rate)


def copy_of_worldclock(place: Path) -> Path:
    """The example under another name, so that nobody's worldclock is touched."""
    folder = place / "worldclock"
    ignored = shutil.ignore_patterns(".hitless", "__pycache__", ".pytest_cache")
    shutil.copytree(ROOT / "examples" / "worldclock", folder, ignore=ignored)
    file = folder / "serverless.yml"
    text = file.read_text("utf-8")
    assert "service: worldclock\n" in text, "the example's serverless.yml has changed"
    file.write_text(text.replace("service: worldclock\n", f"service: {SERVICE}\n"), "utf-8")
    (folder.parent / "requests.jsonl").write_text("\n".join(map(json.dumps, REQUESTS)) + "\n", "utf-8")
    return folder


def command(step: Step) -> list[str]:
    return ["hitless", "aws", *step.words, "--stage", STAGE]


def run(service: Path, words: list[str]) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([str(HITLESS), *words, "--json"], cwd=service, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, json.loads(done.stdout or "{}")


def cost_in_words(service: Path) -> str:
    """What two hours cost, by the price file of `hitless aws plan`; asks no AWS."""
    code, plan = run(service, ["aws", "plan", "--offline", "--no-pipeline", "--stage", STAGE])
    if code:
        raise SystemExit("hitless aws plan failed")
    costs = plan["costs"]
    fixed = costs["fixed_usd_a_month"] / 730 * HOURS
    return (
        f"This makes {SERVICE} in {plan['region']}, releases it and deletes it again: about an hour, at most {HOURS}.\n"
        f"Cost: about ${fixed:.2f} for {HOURS} hours of NAT and addresses, and less than $0.50 for requests, logs and "
        f"builds.\nLeft standing it would cost ${costs['fixed_usd_a_month']:.2f} a month. {costs['source']}.\n"
    )


def walk(service: Path, rate: int) -> int:
    """Every step, then destroy; 0 if each ended as it should and no request of a healthy release failed."""
    wrong: list[str] = []
    try:
        for step in STEPS:
            ended = take(service, step, rate)
            if ended:
                wrong.append(f"{step.title}: {ended}")
                break
    finally:
        ended = take(service, LAST, rate)
        if ended:
            wrong.append(f"{LAST.title}: {ended}. WHAT IS LEFT COSTS MONEY: {shlex.join(command(LAST))}")
    print("\n" + ("\n".join(wrong) or "accepted"))
    return 1 if wrong else 0


def take(service: Path, step: Step, rate: int) -> str | None:
    """Take one step; what is wrong with how it ended, or None."""
    print(f"\n{step.title}\n$ {shlex.join(command(step))}", flush=True)
    if step.edit:
        with (service / step.edit[0]).open("a", encoding="utf-8") as file:
            file.write(step.edit[1])
    load = start_load(service, rate) if step.load else None
    try:
        code, document = run(service, command(step)[1:])
    finally:
        if load is not None:
            load.terminate()
    drill = json.loads(load.communicate(timeout=120)[0]) if load is not None else {}
    print(json.dumps(document)[:2000])
    if code != step.exits:
        return f"exit {code} instead of {step.exits}"
    if drill:
        print(f"{drill['requests']} requests, {drill['failed']} failed")
    if drill and step.exits == 0 and drill["failed"]:
        return f"{drill['failed']} of {drill['requests']} requests failed; see {drill['report']}"
    return None


def start_load(service: Path, rate: int) -> subprocess.Popen[str]:
    """A drill on the stage's URL until it is terminated."""
    _, status = run(service, ["aws", "status", "--stage", STAGE])
    words = ["drill", "--target", status["url"], "--requests", str(service.parent / "requests.jsonl")]
    words += ["--rate", str(rate), "--duration", "7200", "--stage", STAGE, "--json"]
    return subprocess.Popen(
        [str(HITLESS), *words], cwd=service, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


if __name__ == "__main__":
    sys.exit(main())
