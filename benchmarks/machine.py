"""The machine that is measured: which cores everything shares, which tools there are, what else is going on."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-bench" / "bin"
"""Where `scripts/bench` installs the peers, apart from the project's own environment."""
NODE_PEERS = ROOT / "benchmarks" / "node" / "node_modules"
OSLS = ROOT / "node" / "node_modules" / ".bin" / "osls"
VENV = Path(sys.executable).parent
HITLESS = VENV / "hitless"
CORES = 2
_PYTHON_PEERS = ("granian", "starlette", "uvicorn", "gunicorn", "flask")


class BenchmarkError(Exception):
    """A measurement cannot be made, or was none."""


def tool(name: str) -> str:
    """The path of a program. Raises BenchmarkError where it is not installed."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise BenchmarkError(f"{name} is not installed; scripts/bench installs it on Debian and Ubuntu")
    return found


def share_two_cores() -> int:
    """Put this process, and so all that it starts, on the same two cores; how many there are.

    Without this a machine of many cores would compare how well each server's *client* spreads.
    """
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    return len(os.sched_getaffinity(0))


def described(cores: int) -> dict[str, Any]:
    """What a reader needs in order to compare with another machine."""
    return {
        "cores_used": cores,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "haproxy": _first_line([tool("haproxy"), "-v"]),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "nginx": _first_line([*_found("nginx"), "-v"]).partition("/")[2],
        "caddy": _first_line([*_found("caddy"), "version"]),
        "peers": _versions(),
    }


def _found(name: str) -> list[str]:
    try:
        return [tool(name)]
    except BenchmarkError:
        return [name]


def _versions() -> dict[str, str]:
    """Name → version of each peer that is installed."""
    versions: dict[str, str] = {}
    python = PEERS / "python"
    if python.exists():
        program = f"from importlib.metadata import version as v; print(*(f'{{n}}={{v(n)}}' for n in {_PYTHON_PEERS}))"
        versions |= dict(word.split("=", 1) for word in _first_line([str(python), "-c", program]).split())
    for name, folder in (("serverless-offline", NODE_PEERS), ("osls", OSLS.parents[1])):
        package = folder / name / "package.json"
        if package.exists():
            versions[name] = json.loads(package.read_text())["version"]
    return versions


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except FileNotFoundError:
        return "not installed"
    return (done.stdout.splitlines() or [""])[0]
