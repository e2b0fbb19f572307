"""The guardian: holds the stages' listening sockets and restarts HAProxy when it dies. A program of its own.

It outlives the daemon (own session, reparented at once), and HAProxy outlives it. It watches HAProxy by a FIFO
(`life`), so a new guardian can take over a running HAProxy. Daemons talk to it by a socket (`control`).

Invariants: it uses the standard library and of hitless only `life`, `control` and `logfiles`, so that it stays small
and a new version of hitless need not restart it; one guardian per folder (a lock); it never changes a file that HAProxy
reads; clients' connections wait in the sockets' backlog while HAProxy starts, however long that takes; a full disk
stops no process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time

from hitless.gateway.control import CONTROL_SOCKET, GuardianClients
from hitless.gateway.life import LIFE, LIFE_BEFORE, daemonize, haproxy_is_alive, haproxy_pid
from hitless.gateway.logfiles import PipedLog, open_log

LOCK = "guardian.lock"
RECORD = "haproxy.json"
GUARDIAN_LOG = "guardian.log"
HAPROXY_LOG = "haproxy.log"
SHIELDED_LOG = "shielded.log"
"""HAProxy's standard output: a JSON line for each request that the live release answered in place of a candidate."""

_LARGEST_SHIELDED_BYTES = 4 << 20

EXIT_LOCKED = 3
"""Another guardian is alive in this folder."""

STEADY_S = 5.0
"""If HAProxy ran this long, its start did not cause its death, so it is restarted at once."""

FIRST_DELAY_S, LONGEST_DELAY_S = 0.05, 2.0

_KILL_AFTER_S = 1.0


def restart_delay_s(quick_deaths: int) -> float:
    """Seconds before the next start, after that many deaths in a row within STEADY_S: 0, 0.05, 0.1, … 2."""
    return 0.0 if quick_deaths <= 1 else min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (quick_deaths - 2))


class _Haproxy:
    """A running HAProxy; `pid` is None until it is needed if another guardian started it."""

    def __init__(self, pid: int | None, started_at: float, *, own_child: bool) -> None:
        self.pid, self.started_at, self.own_child = pid, started_at, own_child


class Guardian:
    """One loop over HAProxy's life, the control socket and its clients, and two deadlines (restart, kill)."""

    def __init__(
        self,
        folder: str,
        haproxy: str,
        listeners: dict[str, socket.socket],
        access_logs: list[str],
        control: socket.socket,
    ) -> None:
        self._folder, self._haproxy, self._listeners = folder, haproxy, listeners
        self._access_logs = [
            PipedLog(self._path(f"access{index}.fifo"), path) if path else None
            for index, path in enumerate(access_logs)
        ]
        shielded = self._path(SHIELDED_LOG)
        self._shielded = PipedLog(f"{shielded}.fifo", shielded, _LARGEST_SHIELDED_BYTES, kept=1)
        self._selector = selectors.DefaultSelector()
        self._clients = GuardianClients(control, self._selector, self._greeting, self._stop, self._replace)
        self._running: dict[int, _Haproxy] = {}
        """By the reading end of their FIFO, oldest first. All but the last one finish their requests."""
        self._quick_deaths = 0
        self._restart_at: float | None = None
        self._stopping = False
        self._kill_at: float | None = None
        self._kill_with = signal.SIGTERM

    def run(self) -> None:
        """Run until a client asks to stop and HAProxy has ended."""
        for log in filter(None, (self._shielded, *self._access_logs)):
            self._selector.register(log.reader, selectors.EVENT_READ, lambda _, log=log: log.take())
        if haproxy_is_alive(self._folder):
            self._take_over()
        else:
            self._start()
        while not self._stopping or self._running:
            for key, _ in self._selector.select(self._timeout_s()):
                key.data(key.fileobj)
            now = time.monotonic()
            if self._restart_at is not None and now >= self._restart_at:
                self._start()
            if self._kill_at is not None and now >= self._kill_at:
                self._escalate()
        self._tell({"event": "stopped"})

    def _timeout_s(self) -> float | None:
        due = [instant for instant in (self._restart_at, self._kill_at) if instant is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _take_over(self) -> None:
        reader = os.open(self._path(LIFE), os.O_RDONLY | os.O_NONBLOCK)
        self._watch(reader, _Haproxy(None, time.monotonic() - STEADY_S, own_child=False))

    def _start(self) -> None:
        self._restart_at = None
        started_at = time.monotonic()
        try:
            reader, pid = self._spawn_with_fifo()
        except OSError as error:
            reason = f"{self._haproxy} cannot be started: {error.strerror}"
            if not self._one_before_serves(reason):
                self._died(reason, started_at)
            return
        self._watch(reader, _Haproxy(pid, started_at, own_child=True))
        self._tell({"event": "started", "pid": pid, "finishing": self._finishing})

    def _replace(self) -> None:
        """Start another HAProxy beside the running one, which then finishes its requests and ends."""
        if self._running and not self._stopping and self._restart_at is None:
            self._start()

    @property
    def _finishing(self) -> int:
        return max(0, len(self._running) - 1)

    def _spawn_with_fifo(self) -> tuple[int, int]:
        """Start a HAProxy with a new FIFO; returns the FIFO's reading end and the pid."""
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._path(LIFE), self._path(LIFE_BEFORE))
        os.mkfifo(self._path(LIFE), 0o600)
        reader = os.open(self._path(LIFE), os.O_RDONLY | os.O_NONBLOCK)
        writer = None
        try:
            writer = os.open(self._path(LIFE), os.O_WRONLY | os.O_NONBLOCK)
            os.set_inheritable(writer, True)
            return reader, self._spawn()
        except OSError:
            os.close(reader)
            raise
        finally:
            if writer is not None:
                os.close(writer)

    def _spawn(self) -> int:
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        for index, listener in enumerate(self._listeners.values()):
            listener.set_inheritable(True)
            environment[f"HITLESS_FD_{index}"] = str(listener.fileno())
        log, shielded = open_log(self._path(HAPROXY_LOG)), self._shielded.writer()
        access = {index: log.writer() for index, log in enumerate(self._access_logs) if log}
        environment |= {f"HITLESS_ACCESS_{index}": str(descriptor) for index, descriptor in access.items()}
        # Whichever HAProxy responds finishes its requests as soon as the new one accepts connections, and not before.
        before = haproxy_pid(self._path("adm.sock"))
        for haproxy in list(self._running.values())[-1:]:
            haproxy.pid = haproxy.pid or before
        finish = ["-sf", str(before)] if before is not None else []
        try:
            pid = os.posix_spawn(
                self._haproxy,
                [self._haproxy, "-db", "-f", self._path("boot/haproxy.cfg"), *finish],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, shielded, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setpgroup=0,
                setsigmask=[],
            )
        finally:
            for descriptor in (log, shielded, *access.values()):
                os.close(descriptor)
        self._record(pid)
        return pid

    def _record(self, pid: int) -> None:
        """Record HAProxy's descriptors and addresses: a daemon takes the sockets back if the guardian dies."""
        listeners = [[stage, item.fileno(), *item.getsockname()[:2]] for stage, item in self._listeners.items()]
        temporary = self._path(RECORD + ".new")
        with contextlib.suppress(OSError):
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump({"pid": pid, "listeners": listeners}, file)
            os.rename(temporary, self._path(RECORD))

    def _watch(self, reader: int, haproxy: _Haproxy) -> None:
        self._running[reader] = haproxy
        self._selector.register(reader, selectors.EVENT_READ, self._haproxy_ended)

    def _haproxy_ended(self, reader: object) -> None:
        assert isinstance(reader, int)
        try:
            if os.read(reader, 1):
                return
        except BlockingIOError:
            return
        newest = reader == next(reversed(self._running))
        self._selector.unregister(reader)
        os.close(reader)
        ended = self._running.pop(reader)
        reason = self._exit_reason(ended)
        if not newest:
            self._tell({"event": "finished", "pid": ended.pid, "finishing": self._finishing})
        elif not self._one_before_serves(reason):
            self._died(reason, ended.started_at)

    def _one_before_serves(self, reason: str) -> bool:
        """Whether a new HAProxy failed before it told the one that it was to replace, which therefore serves on."""
        if self._stopping or not self._running or haproxy_pid(self._path("adm.sock")) is None:
            return False
        os.replace(self._path(LIFE_BEFORE), self._path(LIFE))
        self._tell({"event": "not_replaced", "reason": reason, "finishing": self._finishing})
        return True

    def _exit_reason(self, ended: _Haproxy) -> str:
        if not (ended.own_child and ended.pid):
            return "it ended"
        with contextlib.suppress(ChildProcessError):
            code = os.waitstatus_to_exitcode(os.waitpid(ended.pid, 0)[1])
            return f"signal {-code}" if code < 0 else f"exit status {code}"
        return "it ended"

    def _died(self, reason: str, started_at: float) -> None:
        now = time.monotonic()
        self._kill_at = None if not self._running else self._kill_at
        self._tell({"event": "died", "reason": reason})
        if self._stopping:
            return
        self._quick_deaths = 1 if now - started_at >= STEADY_S else self._quick_deaths + 1
        delay_s = restart_delay_s(self._quick_deaths)
        self._restart_at = now + delay_s
        if delay_s:
            self._tell({"event": "backing_off", "seconds": delay_s, "deaths": self._quick_deaths})

    def _stop(self, grace_s: float) -> None:
        self._stopping = True
        self._restart_at = None
        for listener in self._listeners.values():
            listener.close()
        self._signal(signal.SIGUSR1)
        self._kill_at = time.monotonic() + grace_s
        self._kill_with = signal.SIGTERM

    def _escalate(self) -> None:
        self._signal(self._kill_with)
        self._kill_with = signal.SIGKILL
        self._kill_at = time.monotonic() + _KILL_AFTER_S

    def _signal(self, number: signal.Signals) -> None:
        for haproxy in self._running.values():
            if haproxy.pid is None:
                haproxy.pid = haproxy_pid(self._path("adm.sock"))
            if haproxy.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(haproxy.pid, number)

    def _greeting(self) -> tuple[dict[str, object], list[int]]:
        hello = {
            "event": "hello",
            "guardian": os.getpid(),
            "pid": next((one.pid for one in reversed(self._running.values())), None),
            "stages": list(self._listeners),
            "finishing": self._finishing,
            "backing_off": self._restart_at is not None,
        }
        return hello, [listener.fileno() for listener in self._listeners.values()]

    def _tell(self, event: dict[str, object]) -> None:
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {json.dumps(event)}\n"
        with contextlib.suppress(OSError):  # a full disk loses the line
            os.write(2, line.encode())
        self._clients.tell(event)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


def _set_title(folder: str, site: str) -> None:
    """Set the process's title if setproctitle is in the folder `site`: this interpreter has no site packages."""
    sys.path.append(site)
    try:
        from setproctitle import setproctitle  # noqa: PLC0415 (only after the path was extended)

        setproctitle(f"hitless: guardian {folder}")
    except ImportError:
        pass
    finally:
        sys.path.remove(site)


def main(argument: str) -> int:
    """`argument`: JSON with folder, haproxy, sockets ([[stage, descriptor], …]), access_logs and site.

    Returns in the parent when the control socket accepts; EXIT_LOCKED if a guardian is alive already.
    """
    settings = json.loads(argument)
    folder: str = settings["folder"]
    lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return EXIT_LOCKED
    # systemd-tmpfiles does not clean a folder that is locked, however old its files are.
    fcntl.flock(os.open(os.path.dirname(folder), os.O_RDONLY), fcntl.LOCK_SH)
    os.umask(0o177)  # sockets 0600, from their first instant
    path = os.path.join(folder, CONTROL_SOCKET)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind(path)
    control.listen(16)
    control.setblocking(False)
    daemonize(os.path.join(folder, GUARDIAN_LOG))
    _set_title(folder, settings["site"])
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listeners = {stage: socket.socket(fileno=descriptor) for stage, descriptor in settings["sockets"]}
    Guardian(folder, settings["haproxy"], listeners, settings["access_logs"], control).run()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return 0
