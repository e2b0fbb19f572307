"""Engines that grow along one axis: routes, functions, workers, stages, kept releases, or open connections."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.machine import BenchmarkError
from benchmarks.running import free_port
from benchmarks.site import Site, running
from hitless.clock import SystemClock, timestamp
from hitless.engine.folders import Folders
from hitless.gateway.render import tuning_here
from hitless.release.document import ReleaseDocument
from hitless.store.store import Store

STAGES: Final = ("dev", "staging", "prod")
"""Of each service that an engine of many stages serves."""
_MOST_CONNECTIONS: Final = min(10_000, tuning_here().frontend_maxconn - 100)
"""As far as the limit of open files allows: with `ulimit -n` of 65536 all, with 20000 some 8,700."""
_HANDLERS: Final = """
def main(event, context):
    return {"statusCode": 200, "body": "{}"}
"""


@dataclass(frozen=True, slots=True)
class Grown:
    """An engine and how it grows. `to` brings it to a size; `ready` is called before each measurement.

    `url` is requested, of the host `host` if that is set. The engine has another port after a restart.
    """

    site: Site
    url: Callable[[], str]
    to: Callable[[int], None]
    ready: Callable[[], None] = lambda: None
    host: str = ""
    restarts: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing of which there are more and more, up to `most`, always `step` at once."""

    key: str
    most: int
    start: Callable[[], AbstractContextManager[Grown]]
    step: int = 1


def write(folder: Path, *, routes: int = 1, functions: int = 1, workers: int = 1) -> None:
    """A service; all routes are one function's, half of them with a parameter, the last of those at `/last/x`."""
    paths = [f"/plain{number}" if number % 2 else f"/many{number}/{{id}}" for number in range(1, routes)]
    events = "".join(f"\n      - http: GET {path}" for path in (*paths, "/last/{id}"))
    others = "".join(
        f"\n  other{number}:\n    handler: handlers.main\n    events:\n      - http: GET /other{number}"
        for number in range(1, functions)
    )
    (folder / "serverless.yml").write_text(
        "service: grown\nprovider: {name: aws, runtime: python3.11}\nfunctions:\n"
        f"  main:\n    handler: handlers.main\n    events:{events}{others}\n"
        f"custom:\n  hitless:\n    workers: {workers}\n"
        "    stages: {dev: {listen: '127.0.0.1:0', alarms: {guard_s: 0}, ready_timeout_s: 300}}\n"
    )
    if not (folder / "handlers.py").exists():
        (folder / "handlers.py").write_text(_HANDLERS)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hl-") as name:
        yield Path(name)


def _written(what: str) -> Callable[[], AbstractContextManager[Grown]]:
    """A service that is written anew and shipped at each size."""

    @contextmanager
    def start() -> Iterator[Grown]:
        with _folder() as folder:
            write(folder)
            with running(folder) as site:

                def to(size: int) -> None:
                    write(folder, **{what: size})
                    site.hitless("deploy")

                yield Grown(site, lambda: f"{site.url()}/last/x", to)

    return start


@contextmanager
def _stages() -> Iterator[Grown]:
    """Services of three stages each on one engine that they share."""
    with _folder() as root, ExitStack() as stack:
        port = free_port()
        sites: list[Site] = []
        stack.callback(lambda: sites and sites[0].hitless("down", "--engine", "--force"))

        def to(size: int) -> None:
            while len(sites) * len(STAGES) < size:
                sites.append(_added(root, len(sites) + 1, port))

        to(1)
        yield Grown(sites[0], lambda: f"http://127.0.0.1:{port}/", to, host="dev.s1.example.org")


def _added(root: Path, number: int, port: int) -> Site:
    folder = root / f"s{number}"
    folder.mkdir()
    stages = ", ".join(f"{one}: {{domain: {one}.s{number}.example.org, alarms: {{guard_s: 0}}}}" for one in STAGES)
    (folder / "serverless.yml").write_text(
        f"service: s{number}\nprovider: {{name: aws, runtime: python3.11}}\n"
        "functions: {main: {handler: handlers.main, events: [{http: GET /}]}}\n"
        f"custom: {{hitless: {{workers: 1, stages: {{{stages}}}}}}}\n"
    )
    (folder / "handlers.py").write_text(_HANDLERS)
    site = Site(folder, root / "home")
    for stage in STAGES:
        site.hitless("up", "--detach", "--shared", f"127.0.0.1:{port}", "--stage", stage)
    return site


@contextmanager
def _releases() -> Iterator[Grown]:
    """A stage whose history is written into the state file while the engine is down."""
    with _written("workers")() as grown:
        site = grown.site
        file = Folders.of(site.folder / ".hitless", os.environ).state_file
        site.hitless("deploy")

        def to(size: int) -> None:
            site.hitless("down")
            repeat(file, size)
            site.hitless("up", "--detach")

        yield Grown(site, grown.url, to)


def repeat(file: Path, size: int) -> None:
    """Copy the newest release, its rollout, steps and receipt until the stage dev has `size` releases."""
    store = Store(file)
    try:
        newest = store.rollouts("dev")[0]
        document = ReleaseDocument.from_json(store.releases("dev")[-1].document)
        receipt, steps = store.receipt(newest.rollout), store.steps(newest.rollout)
        at = timestamp(SystemClock().now())
        while (last := store.release_numbers("dev"))[-1:] and len(last) < size:
            number = store.add_release("dev", document, at)
            rollout = store.begin_rollout(
                "dev", number, verb="deploy", strategy=newest.strategy, state="preparing", previous=last[-1], at=at
            )
            for step in steps:
                store.record_step(rollout, step.state, step.weight_percent, step.note, at)
            store.end_rollout(rollout, "live", None, newest.result, at)
            if receipt:
                store.save_receipt(rollout, receipt)
    finally:
        store.close()


@contextmanager
def _connections() -> Iterator[Grown]:
    """Clients that keep a connection open, each with one request every time that something is measured."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with _written("workers")() as grown, ExitStack() as stack:
        address = grown.site.url().removeprefix("http://")
        host, port = address.split(":")
        open_ones: list[socket.socket] = []

        def close() -> None:
            for one in open_ones:
                one.close()

        stack.callback(close)

        def opened() -> socket.socket:
            one = socket.create_connection((host, int(port)), timeout=30)
            if not answers(one):
                raise BenchmarkError(f"connection {len(open_ones) + 1} was not answered")
            return one

        def answers(one: socket.socket) -> bool:
            try:
                one.sendall(f"GET /last/x HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
                return b" 200 " in one.recv(65536)
            except OSError:
                return False

        def to(size: int) -> None:
            while len(open_ones) < size:
                open_ones.append(opened())

        def ready() -> None:
            for index, one in enumerate(open_ones):
                if not answers(one):  # closed by keep-alive's limit of 60 s
                    one.close()
                    open_ones[index] = opened()

        yield Grown(grown.site, grown.url, to, ready, restarts=False)


AXES: Final = (
    Axis("routes", 1000, _written("routes")),
    Axis("functions", 100, _written("functions")),
    Axis("workers", 500, _written("workers")),
    Axis("stages", 20 * len(STAGES), _stages, step=len(STAGES)),
    Axis("releases", 1000, _releases),
    Axis("connections", _MOST_CONNECTIONS, _connections),
)
