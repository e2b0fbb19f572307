"""The root zygote: a small process without any handler's code, from which every pool's zygote is forked.

It imports the modules that every worker needs once, so that workers share their memory. The daemon starts it in its own
session, and it outlives the daemon. Only the owner can connect to `root.sock`; every client may request a zygote. A
connected client is notified when one of its zygotes dies; end of file means that the root zygote itself died.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from setproctitle import setproctitle

from hitless.worker import zygote
from hitless.worker.compiled import LIBRARY
from hitless.worker.layout import MAGIC
from hitless.worker.paths import GenerationPaths
from hitless.worker.process import adopt_orphans, end_children, fork, join_share, take_lock

VERSION: Final = f"{MAGIC.decode()}-4"
"""A client of another version does not use this root zygote; it starts a new one beside it."""


def main(argument: str, own_paths: list[str]) -> NoReturn:
    """Listen, fork into the background (the process that was started exits), serve. `argument` is JSON."""
    settings = json.loads(argument)
    folder = Path(settings["folder"])
    os.umask(0o077)
    with suppress(OSError, ValueError):  # a handler that aborts must not leave core files
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    take_lock(folder / "root.lock")
    listener = _listen(folder / "root.sock")
    if fork():
        os._exit(0)
    os.setpgid(0, 0)
    adopt_orphans()
    setproctitle(f"hitless: root zygote {folder}")
    Root(folder, settings["libraries"], own_paths, listener).serve()
    os._exit(0)


def _listen(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)
    return listener


class Root:
    """Forks zygotes on request and reaps them."""

    def __init__(self, folder: Path, libraries: dict[str, str], own_paths: list[str], listener: socket.socket) -> None:
        self._folder, self._libraries, self._own_paths, self._listener = folder, libraries, own_paths, listener
        self._callers: dict[int, tuple[socket.socket, bytearray]] = {}
        self._children: dict[int, int] = {}  # pid → descriptor of the client that asked for it
        self._poll = select.poll()
        self._wake_out, self._wake_in = socket.socketpair()
        self._stopping = self._ends_all = False

    def serve(self) -> None:
        """Serve until `stop` or SIGTERM. Zygotes keep running; `stop` with `all` ends them and their orphans too."""
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._listener.setblocking(False)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._on_term)
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._wake_out, select.POLLIN)
        while not self._stopping:
            for fd, _ in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._wake_out.fileno():
                    with suppress(BlockingIOError):
                        self._wake_out.recv(4096)
                elif fd in self._callers:
                    self._read_caller(fd)
            self._reap()
        (self._folder / "root.sock").unlink(missing_ok=True)
        if self._ends_all:
            end_children()

    def _on_term(self, number: int, frame: object) -> None:
        self._stopping = True

    def _accept(self) -> None:
        with suppress(OSError):
            caller, _ = self._listener.accept()
            self._callers[caller.fileno()] = caller, bytearray()
            self._poll.register(caller, select.POLLIN)

    def _read_caller(self, fd: int) -> None:
        caller, buffer = self._callers[fd]
        try:
            data = caller.recv(65536)
        except OSError:
            data = b""
        if not data:
            return self._drop(fd)
        buffer += data
        while (end := buffer.find(b"\n")) >= 0:
            message = json.loads(bytes(buffer[:end]))
            del buffer[: end + 1]
            self._handle(fd, message)
        return None

    def _drop(self, fd: int) -> None:
        if fd in self._callers:
            self._poll.unregister(fd)
            self._callers.pop(fd)[0].close()

    def _send(self, fd: int, message: dict[str, Any]) -> None:
        try:
            self._callers[fd][0].sendall(json.dumps(message).encode() + b"\n")
        except (KeyError, OSError):
            self._drop(fd)

    def _handle(self, fd: int, message: dict[str, Any]) -> None:
        match message["op"]:
            case "hello":
                self._send(fd, {"version": VERSION, "pid": os.getpid(), "compiled": LIBRARY in sys.modules})
            case "spawn":
                self._spawn(fd, message)
            case "stop":
                self._stopping, self._ends_all = True, message.get("all", False)

    def _spawn(self, fd: int, message: dict[str, Any]) -> None:
        """Fork a pool's zygote. Its control socket listens before the reply is sent."""
        boot = zygote.ZygoteStart(
            Path(message["pool"]),
            message["generation"],
            message["size"],
            message["fresh"],
            self._libraries,
            self._own_paths,
            message.get("isolation", {}),
        )
        try:
            control = _listen(GenerationPaths(boot.pool, boot.generation).control)
            pid = os.fork()
        except OSError as error:
            return self._send(fd, {"error": str(error)})
        if pid == 0:
            self._become_zygote(boot, control, message.get("share", {}))
        control.close()
        self._children[pid] = fd
        return self._send(fd, {"pid": pid})

    def _become_zygote(self, boot: zygote.ZygoteStart, control: socket.socket, share: dict[str, Any]) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            # Of its own session, because Linux shares processors by session (autogroup): else an import of the next
            # release would take turns with each worker that serves.
            os.setsid()
            join_share(share)
            for caller, _ in self._callers.values():
                caller.close()
            for private in (self._listener, self._wake_in, self._wake_out):
                private.close()
            zygote.run(boot, control)
        except BaseException:  # noqa: BLE001 - nothing may return into the root's loop
            sys.excepthook(*sys.exc_info())
        os._exit(1)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            caller = self._children.pop(pid, None)
            if caller is not None:
                self._send(caller, {"died": pid, "status": status})
