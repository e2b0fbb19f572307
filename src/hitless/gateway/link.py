"""The daemon's end of the guardian's control socket, and the start of a guardian."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from hitless.documents import decode
from hitless.errors import EngineError
from hitless.gateway import guardian
from hitless.gateway.control import CONTROL_SOCKET

_HELLO_TIMEOUT_S = 5.0
_RUN = (
    "import sys; sys.path.append(sys.argv[1]); from hitless.gateway.guardian import main; sys.exit(main(sys.argv[2]))"
)
_MOST_SOCKETS = 200
"""Linux passes at most 253 descriptors in one message."""


class GuardianEvent(msgspec.Struct, frozen=True):
    """One line of the guardian, or an event of `GuardianKeeper`: `event` says what happened, the rest depends on it."""

    event: str
    pid: int | None = None
    guardian: int = 0
    stages: tuple[str, ...] = ()
    reason: str = ""
    seconds: float = 0.0
    deaths: int = 0
    finishing: int | None = None
    """How many earlier HAProxies still finish their requests; None if the event does not change it."""

    def sentence(self, haproxy: int | None, log_tail: Callable[[], str]) -> str:
        """The event for the operator; `haproxy` is the pid of the HAProxy before it. Empty for a hello and an end."""
        match self.event:
            case "started":
                return f"HAProxy {self.pid} takes over" if self.finishing else f"HAProxy was restarted (pid {self.pid})"
            case "not_replaced":
                return f"a new HAProxy ended early ({self.reason}), the old one keeps serving; its log: {log_tail()}"
            case "finished":
                return f"HAProxy {self.pid or haproxy} has finished its requests"
            case "died":
                return f"HAProxy {haproxy} died: {self.reason}"
            case "backing_off":
                again = f"next start in {self.seconds:g} s; its log: {log_tail()}"
                return f"HAProxy died {self.deaths} times in a row; {again}"
            case "guardian_died":
                return f"guardian {self.pid} ended"
            case "guardian_replaced":
                return f"guardian {self.pid} took over"
            case "guardian_failed":
                return f"cannot start a guardian: {self.reason}"
        return ""


class GuardianLink:
    """One connection to a living guardian. When the guardian dies, `events` returns."""

    def __init__(self, connection: socket.socket, pid: int, listeners: dict[str, socket.socket], rest: bytes) -> None:
        self._connection = connection
        self._buffer = rest
        self.pid = pid
        self.listeners = listeners
        self.finishing = 0
        """How many earlier HAProxies finish their requests, by the events that were read."""

    @classmethod
    async def open(cls, folder: Path) -> GuardianLink | None:
        """Connect to the folder's guardian; None if none is alive. The caller owns the duplicates in `listeners`."""
        return await asyncio.to_thread(cls._open, folder)

    @classmethod
    def _open(cls, folder: Path) -> GuardianLink | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_HELLO_TIMEOUT_S)
        try:
            connection.connect(str(folder / CONTROL_SOCKET))
            data, descriptors, _flags, _address = socket.recv_fds(connection, 1 << 16, _MOST_SOCKETS)
            while b"\n" not in data:
                more = connection.recv(1 << 16)
                if not more:
                    raise ConnectionError
                data += more
        except OSError:
            connection.close()
            return None
        line, _, rest = data.partition(b"\n")
        hello = decode(line, GuardianEvent, CONTROL_SOCKET)
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        connection.setblocking(False)
        link = cls(connection, hello.guardian, dict(zip(hello.stages, sockets, strict=True)), rest)
        link.finishing = hello.finishing or 0
        return link

    async def events(self) -> AsyncIterator[GuardianEvent]:
        """Each event until the guardian is gone."""
        loop = asyncio.get_running_loop()
        while True:
            *lines, self._buffer = self._buffer.split(b"\n")
            for line in lines:
                event = decode(line, GuardianEvent, CONTROL_SOCKET)
                self.finishing = self.finishing if event.finishing is None else event.finishing
                yield event
            try:
                data = await loop.sock_recv(self._connection, 4096)
            except OSError:
                return
            if not data:
                return
            self._buffer += data

    async def stop(self, grace_s: float) -> None:
        """Ask the guardian to stop HAProxy and itself; `events` ends when it has."""
        await self._ask({"do": "stop", "grace_s": grace_s})

    async def replace_haproxy(self) -> None:
        """Ask the guardian to start another HAProxy, which takes over from the running one; `events` tell the rest."""
        await self._ask({"do": "replace"})

    async def _ask(self, request: dict[str, object]) -> None:
        with suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._connection, json.dumps(request).encode() + b"\n")

    def close(self) -> None:
        self._connection.close()

    def close_listeners(self) -> None:
        """Close the listeners; for a caller that has its own duplicates."""
        for listener in self.listeners.values():
            listener.close()
        self.listeners = {}


async def spawn_guardian(
    folder: Path, haproxy: str, listeners: Mapping[str, socket.socket], access_logs: Mapping[str, Path | None]
) -> None:
    """Start a guardian that holds these sockets, in this order; it takes over the folder's HAProxy or starts one.

    Returns when a control socket accepts, also if another guardian was faster. Raises EngineError if it does not start.
    """
    settings = {
        "folder": str(folder),
        "haproxy": haproxy,
        "sockets": [[stage, listener.fileno()] for stage, listener in listeners.items()],
        "access_logs": [str(access_logs[name] or "") for name in listeners],
        "site": _site_of("setproctitle"),
    }
    # -I -S: no environment and no site packages, so that the process stays small.
    command = [sys.executable, "-I", "-S", "-c", _RUN, str(Path(guardian.__file__).parents[2]), json.dumps(settings)]
    descriptors = [listener.fileno() for listener in listeners.values()]
    await start_program("guardian", command, succeeds_with=(0, guardian.EXIT_LOCKED), pass_fds=descriptors)


async def start_program(
    name: str,
    command: Sequence[str],
    *,
    succeeds_with: Container[int] = (0,),
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a program until it has gone to the background. Raises EngineError with the last line of its output."""
    result = await asyncio.to_thread(
        subprocess.run, command, pass_fds=pass_fds, env=env, timeout=30,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    if result.returncode not in succeeds_with:
        lines = result.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        raise EngineError(f"the {name} does not start: {lines[-1]}", hint="run `hitless doctor`")


def _site_of(module: str) -> str:
    found = importlib.util.find_spec(module)
    return os.path.dirname(os.path.dirname(found.origin)) if found and found.origin else ""
