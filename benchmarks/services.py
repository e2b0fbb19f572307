"""Twenty services of three stages on one engine: what a start, memory and a deploy cost against their number.

    python -m benchmarks.services [--services 20]

It prints processor time and memory, which a busy machine changes less than durations, and their ratio to the number of
stages. `start_s` is the processor time of the engine's processes and of the command, from `up` until all stages serve.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hitless.engine.folders import Folders

STAGES = ("dev", "staging", "prod")
SERVICE = """
service: {name}
provider: {{name: aws, runtime: python3.11}}
functions: {{main: {{handler: h.main, events: [{{http: GET /}}]}}}}
custom: {{hitless: {{workers: 1, stages: {{{stages}}}}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=20)
    services = parser.parse_args().services
    with tempfile.TemporaryDirectory(prefix="hl-") as root:
        marks = {max(1, services // 8), services // 4, services // 2, services}
        try:
            for number in range(1, services + 1):
                folder = make(Path(root), f"s{number}")
                for stage in STAGES:
                    hitless(root, folder, "up", "--detach", "--shared", "127.0.0.1:0", "--stage", stage)
                if number in marks:
                    print(json.dumps(measured(root, number)), flush=True)
        finally:
            hitless(root, Path(root) / "s1", "down", "--engine", "--force")


def make(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir()
    stages = ", ".join(f"{one}: {{domain: {one}.{name}.example.org, alarms: {{guard_s: 0}}}}" for one in STAGES)
    (folder / "serverless.yml").write_text(SERVICE.format(name=name, stages=stages))
    (folder / "h.py").write_text('def main(event, context):\n    return {"statusCode": 200, "body": "{}"}\n')
    return folder


def hitless(root: str, folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "hitless", *words, "--data-dir", f"{root}/home", "--service-dir", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measured(root: str, services: int) -> dict[str, float]:
    """Memory, then three deploys of the first service, then a stop and a start of the engine."""
    folder, stages = Path(root) / "s1", services * len(STAGES)
    memory_mb = sum(pss_kb(pid) for pid in processes(root)) / 1024
    before = cpu_s(root)
    for number in range(3):
        (folder / "marker.txt").write_text(f"{services} {number}")
        hitless(root, folder, "deploy", "--stage", "dev")
    deploy_s = (cpu_s(root) - before) / 3
    hitless(root, folder, "down", "--engine")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    hitless(root, folder, "up", "--detach", "--stage", "dev")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    start_s = cpu_s(root) + now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {
        "stages": stages,
        "memory_mb": round(memory_mb),
        "deploy_s": round(deploy_s, 3),
        "start_s": round(start_s, 2),
        "memory_mb_per_stage": round(memory_mb / stages, 2),
        "start_s_per_stage": round(start_s / stages, 3),
    }


def processes(root: str) -> list[int]:
    """The engine's processes: those with its folders in their command, title or environment."""
    names = (f"{root}/home", str(Folders.of(Path(root) / "home", os.environ).run))
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and any(name in (entry / "cmdline").read_text() + _parent(entry) for name in names):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _parent(entry: Path) -> str:
    """The commands of the process's ancestors: workers and zygotes have short titles."""
    pid, said = entry.name, ""
    while pid not in ("0", "1"):
        pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        said += Path(f"/proc/{pid}/cmdline").read_text() if pid != "0" else ""
    return said


def pss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def cpu_s(root: str) -> float:
    """Processor time of the engine's processes and of their children that have ended."""
    ticks = 0
    for pid in processes(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)
