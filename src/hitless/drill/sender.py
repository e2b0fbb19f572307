"""A sending process of a drill, driven over its standard input and output (see `wire`).

It imports little, so that it starts quickly. Invariants: requests are sent on schedule, whatever happened to earlier
ones; nothing waits for the coordinator; when the coordinator exits, this process exits.

It waits by `select` on the selector's own descriptor, with a precision of microseconds instead of epoll's milliseconds,
so that a request is sent when it is due.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import selectors
import time
from collections.abc import Callable
from typing import Any

from hitless.documents import decode, to_text
from hitless.drill.connection import READ, Client
from hitless.drill.recorder import RecordSink
from hitless.drill.wire import NOTE, RECORDS, Note, SenderPlan, frame

FLUSH_EVERY_NS = 100_000_000
QUIET_NS = 100_000_000
MAX_BURST = 32  # at most this many overdue requests are sent at once, so that responses are read in between


class Commands:
    """Lines from the coordinator."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._bytes = bytearray()

    def next(self) -> bytes:
        """The next line; empty if the descriptor does not block and none is complete. BrokenPipeError at the end."""
        seen = 0
        while (end := self._bytes.find(b"\n", seen)) < 0:
            seen = len(self._bytes)
            try:
                data = os.read(self.fd, 65_536)
            except BlockingIOError:
                return b""
            if not data:
                raise BrokenPipeError("the coordinator has exited")
            self._bytes += data
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        return line


class Output:
    """Frames to the coordinator. Never blocks before `close`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._records = bytearray()
        self._pending = bytearray()
        os.set_blocking(fd, False)

    def record(self, record: bytes) -> None:
        self._records += record

    def note(self, note: Note) -> None:
        self._pending += frame(NOTE, to_text(note).encode())

    def flush(self) -> None:
        """Write as much as the pipe accepts. Raises BrokenPipeError when the coordinator has exited."""
        if self._records:
            self._pending += frame(RECORDS, bytes(self._records))
            self._records.clear()
        while self._pending:
            try:
                del self._pending[: os.write(self._fd, self._pending)]
            except BlockingIOError:
                return

    def close(self) -> None:
        """Write all that is left, however long the coordinator takes to read it."""
        os.set_blocking(self._fd, True)
        self.flush()


ClientFactory = Callable[[SenderPlan, selectors.BaseSelector, RecordSink, int], Client[Any]]


class Sender:
    """Sends its share of the schedule, from `start_ns` (monotonic) until told to end."""

    def __init__(
        self, plan: SenderPlan, commands: Commands, output: Output, start_ns: int, make_client: ClientFactory
    ) -> None:
        self._stride = plan.senders
        self._pace = plan.pace
        self._commands = commands
        self._output = output
        self._start_ns = start_ns
        self._selector = selectors.DefaultSelector()
        self._client = make_client(plan, self._selector, output, start_ns)
        self._n = plan.first
        self._next_due_ns = start_ns + self._pace.due_ns(self._n)
        self._end: int | None = None
        self._quiet_since_ns = start_ns

    def run(self) -> dict[str, int]:
        """Send, and return counts about connections when the last request is accounted for."""
        os.set_blocking(self._commands.fd, False)
        self._selector.register(self._commands.fd, READ, None)
        self._read_commands()
        next_flush_ns = self._start_ns
        while True:
            now = time.monotonic_ns()
            burst = self._send_due(now)
            self._client.expire(now)
            if now >= next_flush_ns:
                self._output.flush()
                next_flush_ns = now + FLUSH_EVERY_NS
            if self._is_done(now):
                return dict(self._client.counts)
            self._wait(0.0 if burst == MAX_BURST else self._idle_s(next_flush_ns))

    def _is_done(self, now: int) -> bool:
        """Whether every request has its record, and nothing has arrived for QUIET_NS."""
        if not self._has_ended() or self._client.under_way:
            self._quiet_since_ns = now
        return now - self._quiet_since_ns >= QUIET_NS

    def _has_ended(self) -> bool:
        return self._end is not None and self._n >= self._end

    def _send_due(self, now: int) -> int:
        burst = 0
        while self._next_due_ns <= now and burst < MAX_BURST and not self._has_ended():
            self._client.send(self._n, self._next_due_ns)
            self._n += self._stride
            self._next_due_ns = self._start_ns + self._pace.due_ns(self._n)
            burst += 1
        return burst

    def _idle_s(self, next_flush_ns: int) -> float:
        """Seconds until the next request, flush or deadline."""
        until = next_flush_ns
        if not self._has_ended():
            until = min(until, self._next_due_ns)
        deadline = self._client.next_deadline_ns()
        if deadline is not None:
            until = min(until, deadline)
        return max(0.0, (until - time.monotonic_ns()) / 1e9)

    def _wait(self, timeout_s: float) -> None:
        if timeout_s > 0 and not select.select([self._selector], [], [], timeout_s)[0]:
            return
        for key, mask in self._selector.select(0):
            if key.data is None:
                self._read_commands()
            else:
                self._client.handle(key.data, mask)

    def _read_commands(self) -> None:
        while line := self._commands.next():
            word, _, value = line.partition(b" ")
            if word == b"end":
                self._end = int(value)


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as possible, because a stalled service leaves many requests open at once."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        pass  # macOS refuses its own "unlimited"; requests beyond the limit are recorded as not sent


def raise_priority() -> None:
    """Run at a higher priority if permitted: a delay in waiting for a CPU would be counted against the service."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    except OSError:
        pass  # only root may do this; the report shows the delay


def main(make_client: ClientFactory) -> int:
    """Read the plan, report ready, wait for the start time, send the load, report the counts.

    Exits silently when the coordinator exits.
    """
    raise_descriptor_limit()
    raise_priority()
    commands, output = Commands(0), Output(1)
    try:
        plan = decode(commands.next(), SenderPlan, "the plan")
        output.note(Note(ready=True))
        output.flush()
        _, _, start_ns = commands.next().partition(b" ")
        sender = Sender(plan, commands, output, int(start_ns), make_client)
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        output.note(Note(counts=sender.run()))
        output.close()
    except BrokenPipeError:
        os._exit(0)  # nothing reads what would be flushed
    return 0
