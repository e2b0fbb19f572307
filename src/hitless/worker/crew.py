"""A zygote's workers: their sockets, forks, deaths and replacements.

Invariants: a socket is bound before its worker is forked and stays bound while the worker is replaced, so no connection
is refused. While a worker backs off its socket does not exist, so the gateway uses another worker at once. The last
serving worker is the exception: there is no other, so its requests wait for its short back-off.

A place is a slot for one worker; the first `size` places have workers. Surplus workers are told to end when the gateway
no longer sends them requests; they finish those they have received. At size 0 the first place keeps its socket. It is
the door of a sleeping pool: a worker is forked for the first connection to it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hitless.worker import crash
from hitless.worker.crash import DeathHistory, backoff_after_death
from hitless.worker.layout import FATAL, LOST, SlotField, StatsPage, WorkerState, id_of
from hitless.worker.memory import LOOK_NS, MEASURE_IDLE_NS, children, family, held_mb, pause_ns
from hitless.worker.paths import GenerationPaths
from hitless.worker.process import fork, new_mode
from hitless.worker.spec import PoolSpec

Tell = Callable[[str, int, int, str], None]
"""An event: kind, worker, pid, sentence."""

BACKLOG: Final = 256
_NS: Final = 1_000_000_000
START_LIMIT_S: Final = 30.0
"""A replacement that imports the handler itself and is not ready by then is killed, which counts as its own fault."""
LEAVING_GRACE_S: Final = 2.0
"""Added to the function's timeout; after that a leaving worker is killed."""


@dataclass(slots=True)
class WorkerPlace:
    """One worker's place in the pool; the process in it changes."""

    index: int
    slot: int
    path: Path
    fields: memoryview[int]
    listener: socket.socket | None = None
    pid: int = 0
    forked_ns: int = 0
    retry_ns: int = 0
    timed_out: bool = False
    fault: str = ""
    """Why the zygote ends the process, if not for a timeout."""
    ended: int = 0
    active_ns: int = 0
    """When it was last seen with a request, or with another number of `ended` ones."""
    measured_ns: int = 0
    leave_by_ns: int = 0
    """A leaving worker is killed at this instant; 0 for one that stays."""
    history: DeathHistory = field(default_factory=DeathHistory)

    @property
    def state(self) -> int:
        """The process's layout.WorkerState."""
        return self.fields[SlotField.STATE]


class Crew:
    """All workers of one generation. `run_worker` runs in a forked child and never returns."""

    def __init__(
        self,
        spec: PoolSpec,
        paths: GenerationPaths,
        page: StatsPage,
        size: int,
        run_worker: Callable[[WorkerPlace], None],
        tell: Tell,
    ) -> None:
        self._spec, self._paths, self._page, self._run_worker, self._tell = spec, paths, page, run_worker, tell
        self._measure_ns = 0 if sys.platform == "linux" else sys.maxsize
        self.replacing = False
        """Whether dead workers are replaced: from the time when all were ready until the pool stops."""
        self.size = min(size, spec.workers)
        """The wanted number of workers."""
        self.members = [self._member(index) for index in range(self.size)]
        page.set_size(paths.generation, self.size)

    def _member(self, index: int) -> WorkerPlace:
        slot = self._page.slot_index(self._paths.generation, index)
        return WorkerPlace(index, slot, self._paths.socket(index), self._page.slot(slot))

    def bind_all(self) -> None:
        """Bind every socket before the handler is imported. Raises OSError."""
        for member in self.members or [self._place(0)]:
            self._bind(member)

    def fork_all(self) -> None:
        for member in self.members:
            self._fork(member)

    def all_ready(self) -> bool:
        """Whether all wanted workers are ready."""
        return all(
            member.pid and not member.leave_by_ns and member.state == WorkerState.READY
            for member in self.members[: self.size]
        )

    @property
    def door(self) -> socket.socket | None:
        """The first socket, while the pool has no worker and wants none."""
        return None if self.size or self.members[0].pid or not self.replacing else self.members[0].listener

    def resize(self, size: int) -> str | None:
        """Set the number of workers: forks more at once, or tells surplus ones to end.

        Returns the reason if the system allows no more processes; `size` is then what it allowed.
        """
        size, trouble = min(size, self._spec.workers), None
        for index in range(self.size, size):
            try:
                self._start_worker(self._place(index))
            except OSError as error:
                size, trouble = index, error.strerror or str(error)
                self._unbind(self.members[index])
                break
        self.size = size
        self._page.set_size(self._paths.generation, size)
        for member in self.members[size:]:
            self._retire(member)
        self._drop_empty_places()
        return trouble

    def _place(self, index: int) -> WorkerPlace:
        while len(self.members) <= index:
            self.members.append(self._member(len(self.members)))
        return self.members[index]

    def _start_worker(self, member: WorkerPlace) -> None:
        if member.pid:  # it is about to end, and then `_account_for` forks the next one
            return
        if member.listener is None:
            self._bind(member)
        self._fork(member)

    def _retire(self, member: WorkerPlace) -> None:
        if member.index or self.size:
            self._unbind(member)
        member.retry_ns, member.history = 0, DeathHistory()
        if not member.pid:
            member.fields[SlotField.STATE] = WorkerState.EMPTY
        elif not member.leave_by_ns:
            member.leave_by_ns = time.monotonic_ns() + int((self._spec.timeout_s + LEAVING_GRACE_S) * _NS)
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGTERM)

    def _drop_empty_places(self) -> None:
        while len(self.members) > max(self.size, 1) and not self.members[-1].pid:
            self.members.pop()

    def next_wake_s(self) -> float:
        """Seconds until something may be due: a timeout, a retry. A request that begins later cannot be due earlier."""
        now = time.monotonic_ns()
        timeout_ns = self._spec.timeout_s * _NS
        due = min(now + timeout_ns, self._measure_ns) if self.replacing else now + timeout_ns
        for member in self.members:
            busy = member.fields[SlotField.BUSY_SINCE]
            if member.leave_by_ns:
                due = min(due, member.leave_by_ns)
            if member.retry_ns:
                due = min(due, member.retry_ns)
            elif member.pid and busy and not member.timed_out:
                due = min(due, busy + timeout_ns)
            elif member.pid and member.state == WorkerState.STARTING:
                due = min(due, member.forked_ns + int(START_LIMIT_S * _NS))
        return max(due - now, 0) / _NS

    def tick(self) -> None:
        """End requests that are out of time, and fork workers whose back-off is over."""
        now = time.monotonic_ns()
        if now >= self._measure_ns and self.replacing:
            self.enforce_memory()
        for member in self.members:
            busy = member.fields[SlotField.BUSY_SINCE]
            if member.retry_ns and now >= member.retry_ns:
                if self._restart(member):
                    text = f"worker {member.index} runs again after its back-off"
                    self._tell("backed_on", member.index, member.pid, text)
            elif member.pid and busy and now - busy >= self._spec.timeout_s * _NS and not member.timed_out:
                member.timed_out = self._end_request(member, busy)
            elif member.leave_by_ns and now >= member.leave_by_ns:
                member.leave_by_ns = now + _NS  # again each second, in case the kernel is slow
                _kill(member.pid)
            elif member.pid and member.state == WorkerState.STARTING and now - member.forked_ns > START_LIMIT_S * _NS:
                member.fault = crash.TOO_SLOW
                _kill(member.pid)

    def enforce_memory(self) -> bool:
        """End workers and left-behind processes that hold more than `memorySize`. Returns whether a worker does."""
        now, found, active, measured = time.monotonic_ns(), False, False, not self.size
        began_ns = time.thread_time_ns()
        for member in self.members:
            busy, ended = member.fields[SlotField.BUSY_SINCE], member.fields[SlotField.REQUESTS]
            if not member.pid or member.fault:
                continue
            if busy or ended != member.ended:
                member.ended, member.active_ns = ended, now
            active |= now - member.active_ns < LOOK_NS
            if now - member.active_ns < LOOK_NS or now - member.measured_ns >= MEASURE_IDLE_NS:
                member.measured_ns, measured = now, True
                if trouble := self._excess(family(member.pid)[self._spec.is_program :]):
                    found = True
                    self._end_too_large(member, busy, trouble)
        for pid in {*children(os.getpid())} - {one.pid for one in self.members} if measured else ():
            if trouble := self._excess(left := family(pid)):
                self._tell("orphan", 0, pid, f"a process that a handler left behind {trouble} and was killed")
                for each in left:
                    _kill(each)
        self._measure_ns = now + pause_ns(active=active, spent_ns=time.thread_time_ns() - began_ns)
        return found

    def _excess(self, pids: Sequence[int]) -> str:
        limit_mb = self._spec.memory_mb
        used_mb = held_mb(pids, limit_mb) if pids else 0
        return f"used {used_mb} MB, more than its memorySize of {limit_mb} MB," if used_mb > limit_mb else ""

    def reap(self) -> list[tuple[WorkerPlace, int]]:
        """Collect the dead workers, account for them and replace them. Returns them with their wait status."""
        dead: list[tuple[WorkerPlace, int]] = []
        by_pid = {member.pid: member for member in self.members}
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if member := by_pid.get(ended[0]):  # else an orphan that a handler left behind
                    dead.append((member, ended[1]))
        for member, status in dead:
            self._account_for(member, status)
        self._drop_empty_places()
        return dead

    def begin_stop(self) -> None:
        """Stop replacing, remove the sockets and send SIGTERM: each worker finishes the requests it has received."""
        self.replacing = False
        for member in self.members:
            self._unbind(member)
            member.retry_ns = 0
            if member.pid:
                with suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGTERM)

    def kill_all(self) -> None:
        """SIGKILL every worker and the processes that its handler started."""
        for member in self.members:
            if member.pid:
                _kill(member.pid)

    def living(self) -> int:
        """How many workers have not been reaped."""
        return sum(1 for member in self.members if member.pid)

    def _bind(self, member: WorkerPlace) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o777 & ~new_mode())
        try:
            listener.bind(str(member.path))
        finally:
            os.umask(old)
        listener.listen(BACKLOG)
        member.listener = listener

    @staticmethod
    def _unbind(member: WorkerPlace) -> None:
        if member.listener is not None:
            with suppress(FileNotFoundError):
                member.path.unlink()
            member.listener.close()
            member.listener = None

    def _fork(self, member: WorkerPlace) -> None:
        member.fields[SlotField.BUSY_SINCE] = 0
        member.fields[SlotField.GENERATION] = self._paths.generation
        member.fields[SlotField.STATE] = WorkerState.STARTING
        member.retry_ns, member.leave_by_ns, member.timed_out, member.fault = 0, 0, False, ""
        member.forked_ns = member.active_ns = time.monotonic_ns()
        pid = fork()
        if pid == 0:
            try:
                self._run_worker(member)
            finally:
                os._exit(1)
        member.pid = pid

    def _restart(self, member: WorkerPlace) -> bool:
        """Start the worker again; False if the system allows no process now, and then retry in a second."""
        try:
            self._start_worker(member)
        except OSError as error:
            member.retry_ns = time.monotonic_ns() + _NS
            member.fields[SlotField.STATE] = WorkerState.BACKING_OFF
            why = error.strerror or str(error)
            self._tell("backing_off", member.index, 0, f"cannot fork worker {member.index}: {why}")
            return False
        return True

    def _end_too_large(self, member: WorkerPlace, busy: int, trouble: str) -> None:
        """An idle worker ends by SIGTERM, because it may have received a request that it has not begun."""
        if busy:
            member.fault = f"{trouble} and was killed" if self._end_request(member, busy) else ""
            return
        member.fault = f"{trouble} and was ended"
        member.leave_by_ns = time.monotonic_ns() + int((self._spec.timeout_s + LEAVING_GRACE_S) * _NS)
        with suppress(ProcessLookupError):
            os.kill(member.pid, signal.SIGTERM)

    def _end_request(self, member: WorkerPlace, busy: int) -> bool:
        """Record the request, then kill the worker: whichever worker gets the retry finds the id in the ring. False if
        the request has ended.
        """
        entry = self._page.read_id(member.slot)
        if member.fields[SlotField.BUSY_SINCE] != busy:
            return False
        self._page.ring_add(self._paths.generation, entry, FATAL)
        _kill(member.pid)
        return True

    def _account_for(self, member: WorkerPlace, status: int) -> None:
        pid, member.pid = member.pid, 0
        _kill_group(pid)
        request_id = ""
        if member.fields[SlotField.BUSY_SINCE]:
            entry = self._page.read_id(member.slot)
            request_id = id_of(entry)
            if not member.timed_out:
                own_doing = crash.own_fault(status, timed_out=False, fault=member.fault)
                self._page.ring_add(self._paths.generation, entry, FATAL if own_doing else LOST)
            took_ms = (time.monotonic_ns() - member.fields[SlotField.BUSY_SINCE]) / 1e6
            logged = bool(member.fields[SlotField.START_LOGGED])
            death = crash.Death(status, request_id, took_ms, member.timed_out, logged, bool(member.fault))
            crash.append(crash.log_path(self._spec, member.index), crash.log_lines(self._spec, death))
        member.fields[SlotField.BUSY_SINCE] = 0
        member.fields[SlotField.STATE] = WorkerState.GONE
        member.fields[SlotField.PID] = 0
        leaving, member.leave_by_ns = member.leave_by_ns, 0
        if not self.replacing:
            return
        if member.index >= self.size:
            member.fields[SlotField.STATE] = WorkerState.EMPTY
        elif leaving and not member.fault:
            self._restart(member)
        else:
            self._replace(member, pid, status, request_id)

    def _replace(self, member: WorkerPlace, pid: int, status: int, request_id: str) -> None:
        name = f"worker {member.index}"
        cost = f" in request {request_id}" if request_id else ""
        if member.timed_out:
            member.fields[SlotField.TIMEOUTS] += 1
            text = f"{name} timed out after {self._spec.timeout_s} s{cost} and was replaced"
            self._tell("timed_out", member.index, pid, text)
        else:
            self._tell("worker_died", member.index, pid, f"{name} {crash.death_cause(status, member.fault)}{cost}")
        now = time.monotonic_ns()
        lived_s = (now - member.forked_ns) / _NS
        by_itself = crash.own_fault(status, timed_out=member.timed_out, fault=member.fault)
        alone = not any(other.pid for other in self.members)
        member.history, delay_s = backoff_after_death(
            member.history, now_s=now / _NS, lived_s=lived_s, by_itself=by_itself, alone=alone
        )
        member.fields[SlotField.RESTARTS] += 1
        if not delay_s:
            if not self._restart(member):
                return
            self._tell("worker_restarted", member.index, member.pid, f"{name} was replaced at once")
            return
        if not alone:
            self._unbind(member)
        member.retry_ns = now + int(delay_s * _NS)
        member.fields[SlotField.STATE] = WorkerState.BACKING_OFF
        self._tell("backing_off", member.index, pid, f"{name} backs off for {delay_s:g} s")


def _kill(pid: int) -> None:
    _kill_group(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
