"""Failed requests while each contender takes 20 releases, one upon the other, in its own documented way.

The clients are `hitless drill --target URL`: they send by schedule, count from the scheduled instant and name each
failure alike for all. Three kinds send at the same time: on kept connections, on new ones, and POSTs on kept ones.
Each has the machine for itself: what another one does to start would be counted as its own.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import ALL, BEHIND, HITLESS, PATH, Contender
from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.load import SMALL, Client
from benchmarks.machine import HITLESS as COMMAND
from benchmarks.machine import BenchmarkError
from benchmarks.running import NotTakenError

RATE: Final = 400
"""Requests a second by each kind of client: a tenth of what the slowest contender can do."""
QUIET_S: Final = 1.0
_GET: Final = {"method": "GET", "path": PATH, "status": 200}
_REQUESTS: Final[dict[Client, dict[str, Any]]] = {
    Client.KEEP_ALIVE: _GET,
    Client.NEW_CONNECTIONS: _GET,
    Client.POST: {
        "method": "POST",
        "path": PATH,
        "status": 200,
        "headers": {"content-type": "application/json"},
        "body": '{"name": "world"}',
    },
}
_LONGEST_S: Final = 900


@dataclass(frozen=True, slots=True)
class Shipped:
    """How long each release took that was taken, and what the drill of each kind of client says."""

    seconds: tuple[float, ...]
    drills: dict[Client, dict[str, Any]]

    def failures(self) -> dict[str, int]:
        """Kind of failure → how many, by all clients."""
        found: dict[str, int] = {}
        for drill in self.drills.values():
            for one in drill["failures"]:
                if one["count"]:
                    found[one["kind"]] = found.get(one["kind"], 0) + one["count"]
        return found


def run(releases: int, say: Callable[[str], None], *, gateways: bool = False) -> tuple[Section, ...]:
    """All contenders, one after the other; a peer that could not be loaded is left out. Raises BenchmarkError.

    With `gateways` also the peers behind a gateway.
    """
    shipped: dict[str, Shipped] = {}
    contenders = (*ALL, *BEHIND) if gateways else ALL
    for one in contenders:
        try:
            result = shipped[one.key] = ship(one, releases)
        except BenchmarkError as error:
            if one is HITLESS:
                raise
            say(f"{one.title} is left out: {error}")
            continue
        failed = sum(drill["failed"] for drill in result.drills.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in result.failures().items())
        taken = len(result.seconds)
        say(f"{one.title}: {failed} failed in {taken} of {releases} releases {kinds and f'({kinds})'}")
    how = f"{releases} releases without a pause, {RATE} requests/s by each of three clients; {ways(contenders)}"
    return (Section("failed requests while releases ship", how, tuple(_figures(shipped, releases))),)


def ship(contender: Contender, releases: int) -> Shipped:
    """Start it, load it by all kinds of client, ship, and count. Raises BenchmarkError."""
    seconds = []
    with contender.start() as running, _loaded(running.url) as stop:
        for _ in range(releases):
            began = time.monotonic()
            try:
                running.release()
            except NotTakenError:
                break  # it hangs in its reload: what it lost up to here counts
            seconds.append(time.monotonic() - began)
        time.sleep(QUIET_S)
        return Shipped(tuple(seconds), stop())


def ways(contenders: Sequence[Contender] = ALL) -> str:
    """How each takes a release, in one sentence."""
    return "; ".join(f"{one.title}: {one.way}" for one in contenders)


@contextmanager
def _loaded(url: str) -> Iterator[Callable[[], dict[Client, dict[str, Any]]]]:
    """A drill of each kind of client runs; what is yielded ends them and returns their documents."""
    with tempfile.TemporaryDirectory(prefix="hitless-bench-") as folder:
        drills = {client: _drill(url, client, Path(folder)) for client in SMALL}

        def stop() -> dict[Client, dict[str, Any]]:
            for process in drills.values():
                process.send_signal(signal.SIGINT)
            return {client: _document(process) for client, process in drills.items()}

        try:
            for process in drills.values():
                _await_load(process)
            time.sleep(QUIET_S)
            yield stop
        finally:
            for process in drills.values():
                if process.poll() is None:
                    process.kill()
                    process.communicate()


def _drill(url: str, client: Client, folder: Path) -> subprocess.Popen[str]:
    requests = folder / f"{client.name}.jsonl"
    requests.write_text(json.dumps(_REQUESTS[client]) + "\n")
    percent = 100 if client is Client.NEW_CONNECTIONS else 0
    words = ["drill", "--target", url, "--rate", str(RATE), "--duration", str(_LONGEST_S), "--json"]
    words += ["--requests", str(requests), "--new-connections", str(percent), "--connections", "20"]
    words += ["--report", str(folder / f"{client.name}.html"), "--service-dir", str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen([str(COMMAND), *words], stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def _await_load(process: subprocess.Popen[str]) -> None:
    """Until its sender runs. Raises BenchmarkError where the drill ended instead."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not children.exists() or not children.read_text().strip():
        if process.poll() is not None:
            raise BenchmarkError(f"the drill ended: {process.communicate()[1]}")
        time.sleep(0.02)


def _document(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, said = process.communicate(timeout=60)
    try:
        document: dict[str, Any] = json.loads(output)
    except ValueError as error:
        raise BenchmarkError(f"the drill ended without its document: {said}") from error
    if not document.get("requests"):
        raise BenchmarkError(f"the drill sent nothing: {document}")
    return document


def _figures(shipped: dict[str, Shipped], releases: int) -> Iterator[Figure]:
    """The failures first: they are what it is about."""
    there = [one for one in (*ALL, *BEHIND) if one.key in shipped]
    for one in there:
        drills = shipped[one.key].drills
        total, requests = sum(drill["failed"] for drill in drills.values()), sum(d["requests"] for d in drills.values())
        goal, chart = Goal(Bound.AT_MOST, 0) if one is HITLESS else None, "Failed requests while releases ship"
        unit, spread = f"of {requests:,}", Spread.of([total])
        yield Figure(f"{one.key}_failed", f"failed: {one.title}", unit, spread, 0, goal, chart, one.title)
        for client, drill in drills.items():
            key, unit = f"{one.key}_failed_{client.name.lower()}", f"of {drill['requests']:,}"
            yield Figure(key, f"  {client}", unit, Spread.of([drill["failed"]]), 0)
        for kind, count in shipped[one.key].failures().items():
            yield Figure(f"{one.key}_{kind}", f"  {kind.replace('_', ' ')}", "requests", Spread.of([count]), 0)
    for one in there:
        p99 = Spread.of([drill["latency_ms"]["p99"] for drill in shipped[one.key].drills.values()])
        title, chart = f"p99 meanwhile, by client: {one.title}", "p99 while releases ship"
        yield Figure(f"{one.key}_p99_ms", title, "ms", p99, 1, chart=chart, label=one.title)
    for one in there:
        taken = Spread.of([len(shipped[one.key].seconds)])
        yield Figure(f"{one.key}_taken", f"releases taken: {one.title}", f"of {releases}", taken, 0)
    for one in there:
        if not shipped[one.key].seconds:
            continue
        took, chart = Spread.of(shipped[one.key].seconds), "A release takes"
        title = f"a release takes: {one.title}"
        yield Figure(f"{one.key}_release_s", title, "s", took, 2, chart=chart, label=one.title)
