"""Load by wrk and h2load, and what they print as numbers. Both are written in C: Python would measure itself.

A run with a failed request is no measurement and raises.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from benchmarks.machine import BenchmarkError, tool

CONNECTIONS = 32
"""In all. Small enough that two workers answer within milliseconds, large enough that none ever waits for work."""

_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass(frozen=True, slots=True)
class Load:
    """What a run gave. `p99_ms` is 0 where the tool does not tell (h2load)."""

    requests_per_s: float
    requests: int
    p99_ms: float = 0.0


class Client(StrEnum):
    """What a client does: each is measured by itself."""

    KEEP_ALIVE = "keep-alive"
    NEW_CONNECTIONS = "new connections"
    POST = "POST"
    UPLOAD = "upload"


SMALL: Final = (Client.KEEP_ALIVE, Client.NEW_CONNECTIONS, Client.POST)
"""The clients of the small JSON."""


_WORDS: Final[Mapping[Client, tuple[str, ...]]] = {
    Client.KEEP_ALIVE: (),
    Client.NEW_CONNECTIONS: ("-H", "Connection: close"),
    Client.POST: ("-s", str(Path(__file__).with_name("post.lua"))),
    Client.UPLOAD: ("-s", str(Path(__file__).with_name("upload.lua"))),
}


def wrk(
    url: str, *, seconds: float, connections: int = CONNECTIONS, client: Client = Client.KEEP_ALIVE, host: str = ""
) -> Load:
    """Load from two threads, for the URL's host or for another one. Raises BenchmarkError."""
    command = [tool("wrk"), "-t2", f"-c{connections}", "--latency", *_WORDS[client]]
    command += ["-H", f"Host: {host}"] if host else []
    return parse_wrk(_run([*command, f"-d{max(1, round(seconds))}s", url]))


def h2load(targets: Sequence[str | Path], path: str, *, seconds: float, warm_up_s: float) -> Load:
    """Keep-alive HTTP/1.1 load on all the targets at once, by a process each; a target is `host:port` or a Unix socket.

    The connections are shared out evenly; the rates add up. Raises BenchmarkError.
    """
    runs = [
        subprocess.Popen(
            [
                *(tool("h2load"), "--h1", "-t1", f"-c{CONNECTIONS // len(targets)}"),
                *(f"-D{max(1, round(seconds))}", f"--warm-up-time={max(1, round(warm_up_s))}"),
                *_address(target, path),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for target in targets
    ]
    outputs = [run.communicate()[0] for run in runs]
    if any(run.returncode for run in runs):
        raise BenchmarkError(f"h2load failed: {outputs}")
    loads = [parse_h2load(output) for output in outputs]
    return Load(sum(load.requests_per_s for load in loads), sum(load.requests for load in loads))


def parse_wrk(text: str) -> Load:
    """The rate and the 99th percentile of `wrk --latency`. Raises BenchmarkError where a request failed."""
    if trouble := re.search(r"(Socket errors: .*|Non-2xx or 3xx responses: .*)", text):
        raise BenchmarkError(f"wrk: {trouble[1]}")
    count = re.search(r"^\s+(\d+) requests in", text, re.MULTILINE)
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", text, re.MULTILINE)
    p99 = re.search(r"^\s+99%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    if not count or not rate or not p99:
        raise BenchmarkError(f"wrk printed no result: {text}")
    return Load(float(rate[1]), int(count[1]), float(p99[1]) * _US[p99[2]] / 1e3)


def parse_h2load(text: str) -> Load:
    """The rate that h2load measured. Raises BenchmarkError where a request failed."""
    rate = re.search(r"^finished in [\d.]+\w+, ([\d.]+) req/s", text, re.MULTILINE)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    statuses = re.search(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text, re.MULTILINE)
    if not rate or not counts or not statuses or not int(counts[1]):
        raise BenchmarkError(f"h2load printed no result: {text}")
    bad = sum(map(int, (*counts.groups()[1:], *statuses.groups()[1:])))
    if bad:
        raise BenchmarkError(f"h2load: {counts[0]}; {statuses[0]}")
    return Load(float(rate[1]), int(counts[1]))


def _address(target: str | Path, path: str) -> list[str]:
    if isinstance(target, Path):
        return ["-B", f"unix:{target}", f"http://localhost{path}"]
    return [f"http://{target}{path}"]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise BenchmarkError(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout
