"""A pool's zygote: imports the handler once, holds the workers' sockets, forks workers and replaces dead ones.

It does not need the daemon, which may die and come back and finds it by its locks and its control socket. Signals only
enqueue; one loop owns all state. It sleeps until a worker dies, a request may be out of time, or a client connects.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from setproctitle import setproctitle

from hitless.worker.crash import death_cause
from hitless.worker.crew import Crew, WorkerPlace
from hitless.worker.environment import enter_environment
from hitless.worker.handler import Handler, HandlerFailure
from hitless.worker.http_api import event_builder
from hitless.worker.isolation import Reach, is_private, isolate, readable
from hitless.worker.landlock import READ, SOCKETS, WRITE_FILES
from hitless.worker.layout import StatsPage
from hitless.worker.life import WorkerSetup, import_or_exit, redirect_streams, run_worker, write_outcome
from hitless.worker.log import LambdaLogHandler, LogFile
from hitless.worker.paths import GenerationPaths
from hitless.worker.process import (
    PRIVATE,
    adopt_orphans,
    end_children,
    open_sockets,
    start_time,
    take_lock,
    why_forking_is_unsafe,
)
from hitless.worker.spec import PoolSpec

DUMP_SIGNAL: Final = signal.SIGUSR1
"""Makes a zygote or worker write its stack to its log: the daemon sends it when an import does not end."""

_NO_PROCESS_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class ZygoteStart:
    """The root zygote's instructions. With `fresh` each worker imports the handler, and the zygote does not."""

    pool: Path
    generation: int
    size: int
    fresh: bool
    libraries: Mapping[str, str]
    own_paths: Sequence[str]
    isolation: Mapping[str, Any]


def run(boot: ZygoteStart, control: socket.socket) -> NoReturn:
    """Become the pool's zygote; `control` is its listening control socket. Ends the process."""
    paths = GenerationPaths(boot.pool, boot.generation)
    spec = PoolSpec.from_json(paths.spec.read_text())
    setproctitle(f"hitless: zygote {spec.title}")
    take_lock(paths.alive_lock)
    adopt_orphans()
    identity = {"pid": os.getpid(), "started": start_time(os.getpid()), "fresh": boot.fresh, "private": False}
    paths.zygote.write_text(json.dumps(identity))
    log = LogFile()
    log.open(Path(spec.log_dir) / "zygote.log")
    streams = redirect_streams(log)
    faulthandler.enable(file=2)
    faulthandler.register(DUMP_SIGNAL, file=2)
    logging.getLogger().addHandler(LambdaLogHandler(log, streams[1]))
    page = StatsPage(paths.page, writable=True)
    outcome = os.open(paths.outcome, os.O_WRONLY | os.O_CREAT, 0o600)
    PRIVATE.add(outcome)
    try:
        _isolate(boot, spec, paths, log, identity)
    except RuntimeError as error:
        write_outcome(outcome, HandlerFailure("Runtime.NoUser", str(error)))
        os._exit(1)
    enter_environment(spec, boot.libraries, boot.own_paths)
    setup = WorkerSetup(spec, paths, page, log, streams, None, 0.0, outcome)
    zygote = Zygote(setup, boot.size, control)
    zygote.crew.bind_all()
    if not boot.fresh:
        setup.handler, setup.init_ms = _import(setup)
    event_builder(spec)  # fills the cache of `re`, so that no fork has to compile its patterns
    gc.collect()
    gc.freeze()
    zygote.crew.fork_all()
    zygote.loop()
    end_children()
    os._exit(0)


def _isolate(boot: ZygoteStart, spec: PoolSpec, paths: GenerationPaths, log: LogFile, identity: dict[str, Any]) -> None:
    with paths.zygote.open("r+") as file:
        for missing in isolate(boot.isolation, _reach(spec, paths, boot)):
            log.lines(f"hitless: this machine does not isolate the handler by {missing}")
        file.write(json.dumps({**identity, "private": is_private(str(paths.folder))}))
        file.truncate()


def _reach(spec: PoolSpec, paths: GenerationPaths, boot: ZygoteStart) -> Reach:
    """The files that the pool needs after its isolation; the zygote has opened the others."""
    sockets = [paths.spooler.parent]
    if any(route.authorizer for route in spec.routes):
        sockets.append(paths.hop.parent)
    for folder in sockets:  # the gateway may start later
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
    rights = readable(spec, boot.libraries, boot.own_paths) | dict.fromkeys(map(str, sockets), READ)
    rights |= {str(paths.folder): SOCKETS, spec.log_dir: WRITE_FILES}
    kept = [str(path) for path in (paths.alive_lock, paths.zygote, paths.control)]
    return Reach(rights, kept, spec.storage_mb, {str(paths.folder): 0o1770, spec.log_dir: 0o770})


def _import(setup: WorkerSetup) -> tuple[Handler, float]:
    sockets = open_sockets()
    imported = import_or_exit(setup)
    reason = why_forking_is_unsafe(sockets)
    if reason is not None:
        setup.log.lines(f"{reason}: each worker of this pool is a fresh process that imports the handler itself")
        write_outcome(setup.outcome, None, unsafe=reason)
        os._exit(0)
    return imported


class Zygote:
    """The loop over control connections, dead workers, and deadlines."""

    def __init__(self, setup: WorkerSetup, size: int, control: socket.socket) -> None:
        self._setup = setup
        self._control = control
        self._callers: dict[int, tuple[socket.socket, bytearray]] = {}
        self._ready_out, self._ready_in = os.pipe()
        os.set_blocking(self._ready_out, False)
        self._poll = select.poll()
        self._wake_out, self._wake_in = socket.socketpair()
        self._ready = False
        self._terminated = False
        self._deadline_s: float | None = None
        self._asked: dict[int, tuple[int, str | None]] = {}  # client that asked for a size → its number, the obstacle
        self._door: int | None = None
        self.crew = Crew(setup.spec, setup.paths, setup.page, size, self._become_worker, self._report)

    def loop(self) -> None:
        """Run until the pool was stopped and the last worker has ended."""
        self._install_signals()
        for source in (self._control, self._wake_out, self._ready_out):
            self._poll.register(source, select.POLLIN)
        self._control.setblocking(False)
        while self._deadline_s is None or self.crew.living():
            self._reap()
            self._check_ready()
            self.crew.tick()
            self._watch_door()
            for fd, mask in self._poll.poll(self._wait_ms()):
                self._serve(fd, mask)
            if self._terminated and self._deadline_s is None:
                self._stop(self._setup.spec.timeout_s + 1.0)
            if self._deadline_s is not None:
                if time.monotonic() >= self._deadline_s:
                    self.crew.kill_all()
                self.crew.reap()

    def _install_signals(self) -> None:
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)

        def on_term(number: int, frame: object) -> None:
            self._terminated = True

        signal.signal(signal.SIGTERM, on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        os.kill(os.getpid(), signal.SIGCHLD)  # for workers that died before the signal was caught

    def _wait_ms(self) -> int:
        wait_s = self.crew.next_wake_s()
        if self._deadline_s is not None:
            left_s = self._deadline_s - time.monotonic()
            wait_s = min(wait_s, left_s if left_s > 0 else 0.05)
        return int(wait_s * 1000) + 1

    def _serve(self, fd: int, mask: int) -> None:
        if fd == self._control.fileno():
            self._accept()
        elif fd == self._wake_out.fileno():
            with suppress(BlockingIOError):
                self._wake_out.recv(4096)
        elif fd == self._ready_out:
            with suppress(BlockingIOError):
                os.read(self._ready_out, 4096)
        elif fd in self._callers:
            self._read_caller(fd)
        elif fd == self._door:
            self._wake()

    def _watch_door(self) -> None:
        """Poll the door only while the pool sleeps: otherwise a second worker would be started for its socket."""
        door = self.crew.door.fileno() if self.crew.door else None
        if door == self._door:
            return
        if self._door is not None:
            with suppress(KeyError):  # its socket was closed
                self._poll.unregister(self._door)
        if door is not None:
            self._poll.register(door, select.POLLIN)
        self._door = door

    def _wake(self) -> None:
        """Fork a worker for a connection to a pool without workers, whether a daemon is alive or not."""
        if self.crew.door is None:
            return
        if trouble := self.crew.resize(1):
            time.sleep(_NO_PROCESS_PAUSE_S)
            self._setup.log.lines(f"hitless: cannot fork a worker for a waiting request: {trouble}")
        else:
            self._report("woken", 0, self.crew.members[0].pid, "woken by a request; worker 0 runs")

    def _accept(self) -> None:
        with suppress(OSError):
            caller, _ = self._control.accept()
            caller.setblocking(False)
            self._callers[caller.fileno()] = caller, bytearray()
            self._poll.register(caller, select.POLLIN)
            self._send(caller.fileno(), {"kind": "hello", "ready": self._ready})

    def _read_caller(self, fd: int) -> None:
        caller, buffer = self._callers[fd]
        try:
            data = caller.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data or len(buffer) > 65536:
            return self._drop(fd)
        buffer += data
        while (end := buffer.find(b"\n")) >= 0:
            message = json.loads(bytes(buffer[:end]))
            del buffer[: end + 1]
            if message.get("op") == "stop":
                self._stop(float(message["grace_s"]))
            elif message.get("op") == "scale" and self._ready and self._deadline_s is None:
                self._asked[fd] = int(message["number"]), self.crew.resize(int(message["size"]))
        return None

    def _drop(self, fd: int) -> None:
        caller, _ = self._callers.pop(fd)
        self._asked.pop(fd, None)
        self._poll.unregister(fd)
        caller.close()

    def _send(self, fd: int, message: dict[str, Any]) -> None:
        try:
            self._callers[fd][0].send(json.dumps(message).encode() + b"\n")
        except OSError:  # do not wait for a client that does not read or is gone
            self._drop(fd)

    def _report(self, kind: str, worker: int, pid: int, sentence: str) -> None:
        sentence = f"{self._setup.spec.title}: {sentence}"
        self._setup.log.lines(f"hitless: {sentence}")
        for fd in list(self._callers):
            self._send(fd, {"kind": kind, "worker": worker, "pid": pid, "sentence": sentence})

    def _stop(self, grace_s: float) -> None:
        deadline = time.monotonic() + grace_s
        if self._deadline_s is None:
            self.crew.begin_stop()
            self._deadline_s = deadline
        self._deadline_s = min(self._deadline_s, deadline)

    def _check_ready(self) -> None:
        if not self._ready and self.crew.all_ready() and not self.crew.enforce_memory():
            self._ready = self.crew.replacing = True
            for fd in list(self._callers):
                self._send(fd, {"kind": "ready"})
        if self._asked and self.crew.all_ready():
            asked, self._asked = self._asked, {}
            for fd, (number, trouble) in asked.items():
                self._send(fd, {"kind": "scaled", "number": number, "trouble": trouble})

    def _reap(self) -> None:
        dead = self.crew.reap()
        if dead and not self._ready and self._deadline_s is None:
            member, status = dead[0]
            message = f"worker {member.index} {death_cause(status, member.fault)} before it was ready"
            self._setup.log.lines(f"hitless: {message}")
            write_outcome(self._setup.outcome, HandlerFailure("Runtime.ExitError", message))
            self.crew.kill_all()
            os._exit(1)

    def _become_worker(self, member: WorkerPlace) -> NoReturn:
        signal.set_wakeup_fd(-1)
        os.setpgid(0, 0)
        for sibling in self.crew.members:
            if sibling is not member and sibling.listener is not None:
                sibling.listener.close()
        for caller, _ in self._callers.values():
            caller.close()
        for private in (self._control, self._wake_in, self._wake_out):
            private.close()
        os.close(self._ready_out)

        def say_ready() -> None:
            os.write(self._ready_in, b"\0")
            os.close(self._ready_in)

        try:
            run_worker(self._setup, member, say_ready)
        except BaseException:  # noqa: BLE001 - nothing may return into the zygote's frames
            sys.excepthook(*sys.exc_info())
            os._exit(1)
