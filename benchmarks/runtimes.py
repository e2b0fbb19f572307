"""The same route by each runtime: throughput with two workers, start-up and memory; and Go beside its own net/http.

Start-up is the log's Init Duration: the import of a Python handler, or the start of a program until it asks for its
first event. Memory is the log's Max Memory Used after load. A further runtime is one entry of RUNTIMES.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from benchmarks.figures import Figure, Section, Spread
from benchmarks.load import CONNECTIONS, wrk
from benchmarks.machine import BenchmarkError
from benchmarks.running import START_LIMIT_S, free_port, started
from benchmarks.site import Site, plain_service
from hitless.cli.init import scaffold

PATH = "/hello/bench"
WARM_UP_S = 1.0
SERVICE = """service: bench
provider: {name: aws, runtime: %s, region: eu-central-1, environment: {}}
functions: {api: {handler: %s, events: [{http: 'GET /hello/{name}'}]}}
package: {patterns: ['!**', bootstrap, handlers.py]}
custom: {hitless: {workers: 2, stages: {dev: {smoke: [{path: /hello/smoke}]}}}}
"""
PYTHON = """import json


def handler(event, context):
    body = json.dumps({"greeting": f"Hello, {event['pathParameters']['name']}!"})
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": body}
"""
BASH = """#!/bin/bash
API="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
HEADERS=$(mktemp)
while EVENT=$(curl -sS -D "$HEADERS" "$API/next"); do
  ID=$(grep -Fi Lambda-Runtime-Aws-Request-Id "$HEADERS" | tr -d '[:space:]' | cut -d: -f2)
  curl -sS "$API/$ID/response" -d '{"statusCode": 200, "body": "{\\"greeting\\": \\"Hello, bench!\\"}"}' >/dev/null
done
"""


def _python(folder: Path) -> None:
    (folder / "handlers.py").write_text(PYTHON)
    (folder / "serverless.yml").write_text(SERVICE % ("python3.11", "handlers.handler"))


def _bash(folder: Path) -> None:
    (folder / "bootstrap").write_text(BASH)
    (folder / "bootstrap").chmod(0o755)
    (folder / "serverless.yml").write_text(SERVICE % ("provided.al2023", "bootstrap"))


def _go(folder: Path) -> None:
    go = build_go(folder.with_name("go"))
    shutil.copy(go / "bootstrap", folder)
    (folder / "serverless.yml").write_text(SERVICE % ("provided.al2023", "bootstrap"))


RUNTIMES: Mapping[str, Callable[[Path], None]] = {"Python": _python, "Go": _go, "bash": _bash}


def build_go(folder: Path) -> Path:
    """The service of `hitless init --template go`, built. Raises BenchmarkError without Go."""
    if not shutil.which("go"):
        raise BenchmarkError("go is missing: put Go 1.24 or newer into the PATH")
    scaffold(folder, "hello", "go")
    subprocess.run(["sh", "build.sh"], cwd=folder, check=True)
    return folder


@contextmanager
def by_net_http(folder: Path) -> Iterator[str]:
    """The URL of the same Go program as a server of its own."""
    url = f"http://127.0.0.1:{free_port()}"
    environ = {"ADDRESS": url.removeprefix("http://")}
    with started([str(folder / "bootstrap")], folder=folder, environ=environ):
        limit = time.monotonic() + START_LIMIT_S
        while time.monotonic() < limit:
            with suppress(OSError), urlopen(url + PATH, timeout=5):
                break
            time.sleep(0.02)
        yield url


def run(rounds: int, seconds: float, say: Callable[[str], None]) -> tuple[Section, ...]:
    """Every runtime once a round, in turn. Raises BenchmarkError."""
    own = "Go, net/http alone"
    rates: dict[str, list[float]] = {name: [] for name in (*RUNTIMES, own)}
    with ExitStack() as stack:
        sites = {name: stack.enter_context(plain_service(edit=edit)) for name, edit in RUNTIMES.items()}
        plain = stack.enter_context(by_net_http(sites["Go"].folder))
        urls = {**{name: site.url() for name, site in sites.items()}, own: plain}
        for number in range(rounds):
            for name, url in urls.items():
                wrk(url + PATH, seconds=WARM_UP_S)
                rates[name].append(wrk(url + PATH, seconds=seconds).requests_per_s)
                say(f"round {number + 1}/{rounds}: {name} {rates[name][-1]:,.0f}/s")
        reports = {name: _reports(site) for name, site in sites.items()}
    key = {name: name.lower().replace(", ", "_").replace("/", "_").replace(" ", "_") for name in rates}
    how = f"2 workers, {CONNECTIONS} kept connections, {seconds:g} s after {WARM_UP_S:g} s to warm up, {rounds} rounds"
    figures = [
        Figure(f"runtime_{key[name]}_rate", name, "requests/s", Spread.of(found), 1) for name, found in rates.items()
    ]
    ratio = Spread.of_ratios(rates["Go"], rates[own])
    figures.append(Figure("go_to_net_http", "Go by hitless ÷ the same handler by net/http", "×", ratio))
    costs = []
    for name, (starts_ms, used_mb) in reports.items():
        costs.append(Figure(f"runtime_{key[name]}_start_ms", f"{name}: start-up", "ms", Spread.of(starts_ms)))
        costs.append(Figure(f"runtime_{key[name]}_memory_mb", f"{name}: memory", "MB", Spread.of(used_mb), 0))
    return (
        Section("throughput of runtimes", how, tuple(figures)),
        Section("cost of runtimes", "by the log: Init Duration, Max Memory Used", tuple(costs)),
    )


def _reports(site: Site) -> tuple[list[float], list[float]]:
    """Start-ups in ms, and the most memory in MB, of the service's workers."""
    logs = sorted((site.folder / ".hitless" / "logs").rglob("*.log*"))
    text = "\n".join(path.read_text(errors="replace") for path in logs)
    starts = [float(found) for found in re.findall(r"Init Duration: ([\d.]+) ms", text)]
    used = [float(found) for found in re.findall(r"Max Memory Used: (\d+) MB", text)]
    if not (starts and used):
        raise BenchmarkError(f"no REPORT lines in {site.folder}")
    return starts, [max(used)]
