"""A fleet of real worker processes for one test, and the check that nothing of it is left."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hitless.clock import SystemClock
from hitless.worker.spec import PoolSpec, RouteSpec
from hitless.workers.fleet import Fleet
from hitless.workers.isolation import PATHS_VARIABLE
from hitless.workers.pool import Pool, PoolEvent
from tests.support import eventually, gone


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float = 10) -> None:
        super().__init__("worker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(
    path: Path,
    target: str = "/x",
    method: str = "GET",
    *,
    body: bytes | None = None,
    request_id: str = "",
    **more: str,
) -> Answer:
    """Send one request on its own connection. Raises OSError or HTTPException if there is no response."""
    connection = UnixConnection(path)
    try:
        sent = {name.replace("_", "-"): value for name, value in more.items()}
        if request_id:
            sent["x-hl-id"] = request_id
        connection.request(method, target, body, sent)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


class Nest:
    """Folders, a fleet and handlers of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "r"
        self.logs = folder / "logs"
        self.fleet = Fleet(self.run, clock=SystemClock())
        self.handlers = 0

    def spec(self, source: str, key: str = "dev-r3-api-1", **changes: Any) -> PoolSpec:
        """A pool whose handler is `app.main` of this source."""
        self.handlers += 1
        root = self.folder / f"task{self.handlers}"
        root.mkdir()
        root.chmod(0o777)  # handlers have a user of their own, and leave marks beside their code
        os.environ[PATHS_VARIABLE] += f":{root}"
        (root / "app.py").write_text(source)
        fields: dict[str, Any] = {
            "key": key, "service": "worldclock", "stage": "dev", "release": 3, "function": "api",
            "handler": "app.main", "task_root": str(root), "environment": {"GREETING": "hello"}, "timeout_s": 5,
            "memory_mb": 128, "workers": 2, "region": "eu-west-1",
            "routes": (RouteSpec("ANY", "/x", "/x"), RouteSpec("ANY", "/{proxy+}", "/(?P<proxy>.+)")),
            "log_dir": str(self.logs / key), "release_header": True, "commit": "abc",
        }  # fmt: skip
        return PoolSpec(**{**fields, **changes})

    async def pool(self, source: str, **changes: Any) -> Pool:
        """Start a pool with this handler."""
        return await self.fleet.start_pool(self.spec(source, **changes), ready_timeout_s=20)

    def log(self, worker: int | str = 0, key: str = "dev-r3-api-1") -> str:
        """A worker's log, or the zygote's."""
        name = f"w{worker}.log" if isinstance(worker, int) else f"{worker}.log"
        return (self.logs / key / name).read_text()

    def read(self, path: str) -> str:
        """A file's text."""
        return Path(path).read_text()

    async def event(self, text: str) -> PoolEvent:
        """The next event whose sentence has this text; earlier ones are dropped."""
        async with asyncio.timeout(15):
            while True:
                event = await self.fleet.events.get()
                if text in event.sentence:
                    return event

    async def restart_daemon(self) -> dict[str, Pool]:
        """Discard the fleet as the daemon's death does, and adopt with a new one."""
        await self.fleet.detach()
        self.fleet = Fleet(self.run, clock=SystemClock())
        await self.fleet.start()
        return await self.fleet.adopt()


def in_a_nest(scenario: Callable[[Nest], Awaitable[None]]) -> None:
    """Run a scenario with a started fleet; afterwards no process, descriptor or file of it may be left."""
    folder = Path(tempfile.mkdtemp(prefix="hlw-", dir="/tmp"))
    nest = Nest(folder)
    fds = open_descriptors()

    async def play() -> None:
        await nest.fleet.start()
        try:
            await scenario(nest)
        finally:
            await nest.fleet.stop()

    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv(PATHS_VARIABLE, "")
            asyncio.run(play())
        eventually(lambda: not processes_below(folder), what="every process has ended")
        assert not (nest.run / "w").exists()
        eventually(lambda: open_descriptors() <= fds, what="every descriptor is closed")
    finally:
        for pid in processes_below(folder):
            with suppress(ProcessLookupError):
                kill(pid)
        shutil.rmtree(folder, ignore_errors=True)


def open_descriptors() -> set[str]:
    """This process's open files and sockets, by what they are and not by number."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return {target for target in found if "hlw-" in target}


def processes_below(folder: Path) -> list[int]:
    """Living processes with an open or mapped file or their working folder below this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid() or gone(int(entry.name)):
            continue
        if any(target.startswith(str(folder)) for target in _files_of(entry)):
            found.append(int(entry.name))
    return found


def _files_of(process: Path) -> Iterator[str]:
    """A descriptor that is closed meanwhile hides no other."""
    with suppress(OSError):
        for link in ((process / "cwd"), *(process / "fd").iterdir()):
            with suppress(FileNotFoundError):
                yield os.readlink(link)


def kill(pid: int) -> None:
    """Send SIGKILL, as from outside."""
    assert pid, "0 is the tests' own process group"
    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether it runs and is not a zombie."""
    return not gone(pid)
