"""A gateway with stand-in workers, load on it, and the check that nothing is left."""

from __future__ import annotations

import asyncio
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hitless.clock import SystemClock
from hitless.gateway.binary import find_haproxy, version_text
from hitless.gateway.gateway import Gateway
from hitless.gateway.life import haproxy_is_alive
from hitless.gateway.listeners import listen
from hitless.gateway.state import GatewayState, RouteState, ServerState, release_key
from tests.support import eventually

WORKER = Path(__file__).with_name("gateway_worker.py")
HAPROXY = find_haproxy(os.environ)
POOLS = 8
UNVERIFIED = ssl._create_unverified_context()


def haproxy_version() -> tuple[int, int]:
    found = re.search(r"version (\d+)\.(\d+)", version_text(HAPROXY))
    assert found
    return int(found[1]), int(found[2])


@contextmanager
def run_dir() -> Iterator[Path]:
    """A short folder for sockets. Orphaned guardians and HAProxies become our children and are reaped."""
    folder = Path(tempfile.mkdtemp(prefix="hl-", dir="/tmp"))
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    try:
        yield folder
    finally:
        if (folder / "gw").exists():
            # A test that failed half-way; in a thread of its own, since this one may have a loop.
            with ThreadPoolExecutor(1) as executor:
                executor.submit(lambda: asyncio.run(new_gateway(folder).stop(grace_s=0))).result()
        shutil.rmtree(folder, ignore_errors=True)


def gone(pid: int | None) -> bool:
    """Whether that process has ended (and is reaped if it became our child)."""
    assert pid is not None
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def new_gateway(folder: Path, stages: tuple[str, ...] = ("dev", "prod"), **options: Any) -> Gateway:
    return Gateway(folder, clock=SystemClock(), haproxy=HAPROXY, stages=stages, pools=POOLS, **options)


async def started_gateway(folder: Path, **options: Any) -> Gateway:
    """A gateway on free ports."""
    gateway = new_gateway(folder, **options)
    await gateway.start(free_listeners(gateway))
    return gateway


def free_listeners(gateway: Gateway) -> dict[str, socket.socket]:
    return {name: listen("127.0.0.1", 0) for name in gateway.state.listeners}


@asynccontextmanager
async def running_gateway(folder: Path, **options: Any) -> AsyncIterator[Gateway]:
    """A gateway on free ports that is stopped at the end, with all its processes."""
    gateway = await started_gateway(folder, **options)
    try:
        yield gateway
    finally:
        await finish(gateway)


async def finish(gateway: Gateway) -> None:
    """Stop it and check that it is gone."""
    pids = [pid for pid in (gateway.guardian_pid, gateway.haproxy_pid) if pid is not None]
    folder = str(gateway._layout.folder)
    await gateway.stop(grace_s=0.2)
    for pid in pids:
        await asyncio.to_thread(eventually, lambda pid=pid: gone(pid), what=f"end of {pid}")
    assert not haproxy_is_alive(folder)


class Workers:
    """Stand-in workers by socket path; all end with the context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for path in list(self.running):
            self.end(path)

    def start(
        self, release: int, count: int = 2, delay_ms: int = 0, maxconn: int = 8, tag: str = ""
    ) -> list[ServerState]:
        servers = []
        for index in range(count):
            path = str(self._folder / f"r{release}{tag}w{index}.sock")
            command = [sys.executable, "-I", "-S", str(WORKER), path, str(release), str(delay_ms)]
            self.running[path] = subprocess.Popen(command)
            servers.append(ServerState(f"w{index}", path, maxconn))
        for server in servers:
            eventually(lambda path=server.socket: _answers(path), what="a worker that answers")  # type: ignore[misc]
        return servers

    def end(self, path: str) -> None:
        process = self.running.pop(path, None)
        if process is not None:
            process.kill()
            process.wait()
        Path(path).unlink(missing_ok=True)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(path)
    return True


def routes_to(pool: str, release: int, stage: str = "dev") -> list[RouteState]:
    key = release_key(stage, release)
    return [RouteState(key, "ANY", "/{proxy+}", pool), RouteState(key, "GET", "/zones", pool)]


def shipped(
    state: GatewayState, pool: str, release: int, servers: list[ServerState], stage: str = "dev"
) -> GatewayState:
    """Make that release live on the stage, with its servers."""
    key = release_key(stage, release)
    joined = state.with_servers(pool, servers).with_routes(key, routes_to(pool, release, stage))
    return joined.with_stage(stage, live=release)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    address: tuple[str, int],
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    tls: bool = False,
    timeout_s: float = 15,
) -> Answer:
    """Send one request on its own connection."""
    connection = http.client.HTTPConnection(*address, timeout=timeout_s)
    if tls:
        connection = http.client.HTTPSConnection(*address, timeout=timeout_s, context=UNVERIFIED)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def raw(address: tuple[str, int], data: bytes, timeout_s: float = 10.0) -> bytes:
    """Send these bytes; returns everything until the other side closes."""
    with socket.create_connection(address, timeout=timeout_s) as connection:
        connection.sendall(data)
        answer = b""
        with suppress(TimeoutError, ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


@dataclass
class Load:
    """Clients in threads, each sending one request after the other; any result but a complete 200 is a failure."""

    address: tuple[str, int]
    keep_alive: bool = True
    method: str = "GET"
    path: str = "/zones"
    body: bytes | None = None
    clients: int = 2
    tls: bool = False
    host: str = ""
    """The header's and the SNI's host, if it is not the address."""
    sent: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    releases: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._client) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self) -> None:
        connection = http.client.HTTPConnection(*self.address, timeout=15)
        if self.tls:
            name = self.host or self.address[0]
            connection = http.client.HTTPSConnection(name, self.address[1], timeout=15, context=UNVERIFIED)
            connection._create_connection = lambda _, *more: socket.create_connection(self.address, *more)  # type: ignore[attr-defined]
        headers = {} if self.keep_alive else {"connection": "close"}
        headers |= {"host": self.host} if self.host else {}
        while not self._stop.is_set():
            failure = release = ""
            try:
                connection.request(self.method, self.path, self.body, headers)
                response = connection.getresponse()
                response.read()
                release = response.headers.get("x-release") or ""
                if response.status != 200:
                    failure = f"status {response.status}"
            except (OSError, http.client.HTTPException) as error:
                failure = type(error).__name__
                connection.close()
            with self._lock:
                self.sent += 1
                self.releases[release] += 1
                if failure:
                    self.failures[failure] += 1
        connection.close()


async def until(probe: Callable[[], object], what: str, deadline_s: float = 10.0) -> None:
    """Like `eventually`, for asyncio."""
    end = time.monotonic() + deadline_s
    while not probe():
        assert time.monotonic() < end, f"{what} did not become true within {deadline_s} s"
        await asyncio.sleep(0.01)


async def event_of(gateway: Gateway, text: str, deadline_s: float = 10.0) -> str:
    """The next event with that text; earlier ones are dropped."""
    async with asyncio.timeout(deadline_s):
        while True:
            event = await gateway.events.get()
            if text in event:
                return event


def kill(pid: int | None) -> None:
    assert pid, "0 is the tests' own process group"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid), what=f"end of {pid}")


async def with_release(gateway: Gateway, workers: Workers, count: int = 2) -> GatewayState:
    servers = await asyncio.to_thread(workers.start, 1, count)
    state = shipped(gateway.state, "p00", 1, servers)
    await gateway.apply(state)
    return state


def clients(gateway: Gateway) -> Iterator[Load]:
    for keep_alive in (True, False):
        yield Load(gateway.addresses["dev"], keep_alive=keep_alive)


async def busy(gateway: Gateway, pool: str) -> None:
    """Wait until a request is with that pool."""
    end = time.monotonic() + 10
    while not (await gateway.loads([pool]))[pool].scur:
        assert time.monotonic() < end
