"""A worker's loop: HTTP/1.1 on the connections of one Unix socket, one request at a time, in the main thread.

It blocks in `poll` instead of using an event loop: the handler blocks the process anyway, runs in the main thread as on
Lambda, and each request costs less. Invariants: the worker never closes an idle connection, because the gateway may be
about to use it; after SIGTERM, every received request gets its response before the process ends.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from hitless.worker.heads import Heads
from hitless.worker.process import PRIVATE, notice_signals
from hitless.worker.request import Request, RequestReader
from hitless.worker.response import CLOSE

_READ_BYTES: Final = 64 * 1024
"""The kernel maps and unmaps memory for each read into 128 KiB or more (glibc's `M_MMAP_THRESHOLD`)."""
_MOST_CONNECTIONS: Final = 500
_CROWDED: Final = 100
"""With more connections than this, most belong to clients that read slowly. Each response then closes its connection,
which loses no data, so that slow clients never use up the limit above.
"""
_PUSHED_FOR_S: Final = 0.01
_HAND_OVER_WITHIN_S: Final = 0.1
_UNNAMED: Final = getattr(os, "O_TMPFILE", 0)
"""Creates a file without a name (Linux). Elsewhere opening fails, and the worker sends the rest itself."""
_CLOSE_LINE: Final = b"\r\n" + CLOSE.encode()
_IN: Final = select.POLLIN
_OUT: Final = select.POLLOUT
_ENDED: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL


class RequestHandler(Protocol):
    """Called by the loop for each request."""

    def respond(self, request: Request, last: bool, send: Callable[[bytes], None]) -> None:
        """Pass the whole response to `send`, once."""


@dataclass(frozen=True, slots=True)
class SpoolerClient:
    """Passes the part of a response that the kernel does not accept at once to the spooler, in a file in `folder`."""

    path: str
    folder: str

    def hand_over(self, connection: socket.socket, rest: memoryview) -> bool:
        """Send the spooler the connection and a file with the rest of the response; the caller must then close its own.

        False if there is no spooler or no room for the file.
        """
        file = -1
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as message, suppress(OSError):
            message.settimeout(_HAND_OVER_WITHIN_S)
            message.connect(self.path)
            try:
                file = os.open(self.folder, _UNNAMED | os.O_RDWR, 0o600)
                while rest:
                    rest = rest[os.write(file, rest) :]
                descriptors = struct.pack("2i", connection.fileno(), file)
                message.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            finally:
                if file >= 0:
                    os.close(file)
            return True
        return False


class _Connection:
    __slots__ = ("_spooler", "closing", "out", "reader", "sock")

    def __init__(self, sock: socket.socket, spooler: SpoolerClient | None) -> None:
        self.sock = sock
        self._spooler = spooler
        self.reader = RequestReader()
        self.out: bytes | memoryview = b""
        self.closing = False  # once `out` is sent

    def send(self, data: bytes) -> None:
        """Send as much as the kernel accepts; the rest goes to the spooler (if the connection closes) or into `out`."""
        if self.out:
            self.out = b"".join((self.out, data))
            return
        self.push(data)
        if self.out and data.find(_CLOSE_LINE, 0, data.find(b"\r\n\r\n") + 2) > 0:
            self.closing = True
            self._push_rest()
            if self.out and self._spooler and self._spooler.hand_over(self.sock, memoryview(self.out)):
                self.out = b""

    def _push_rest(self) -> None:
        """Keep sending briefly. Quick readers then need no file, which costs a third of the rate (measured at 1 MB)."""
        end = time.monotonic() + _PUSHED_FOR_S
        writable = select.poll()
        writable.register(self.sock, _OUT)
        while self.out and (left_s := end - time.monotonic()) > 0 and writable.poll(left_s * 1000):
            rest, self.out = self.out, b""
            self.push(rest)

    def push(self, data: bytes | memoryview) -> None:
        """Send as much as the kernel accepts; the rest waits in `out`."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the other side is gone
            self.closing = True
            return
        if sent < len(data):
            self.out = memoryview(data)[sent:]


class Server:
    """Serves until SIGTERM, then until every received request has its response."""

    def __init__(self, listener: socket.socket, handler: RequestHandler, spooler: SpoolerClient | None = None) -> None:
        listener.setblocking(False)
        self._spooler, self._listener, self._handler = spooler, listener, handler
        self._connections: dict[int, _Connection] = {}
        self._heads = Heads()
        self._poll = select.poll()
        self._stopping = self._listening = False
        self.exhausted = False  # the loop ended because no descriptor was free for a new connection
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)

    def install_signals(self) -> None:
        """SIGTERM ends the loop; a handler that blocks finishes first. Only the main thread may call this."""
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda number, frame: self.stop())
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        PRIVATE.update(sock.fileno() for sock in (self._listener, self._wake_in, self._wake_out))

    def stop(self) -> None:
        """Respond to the received requests, then return from `run`. May be called from a signal handler or a thread."""
        self._stopping = True
        with suppress(OSError):  # a handler may have replaced the interpreter's wake-up descriptor
            self._wake_in.send(b"\0")

    def run(self) -> None:
        """The loop. Returns after SIGTERM, or when it is `exhausted`."""
        self._listen(True)
        self._poll.register(self._wake_out, _IN)
        listening, waking = self._listener.fileno(), self._wake_out.fileno()
        connections, poll = self._connections, self._poll.poll
        while not self._stopping:
            for fd, mask in poll():
                connection = connections.get(fd)
                if connection is not None:
                    self._step(fd, connection, mask)
                elif fd == listening:
                    self._accept()
                elif fd == waking:
                    self._drain_wakeups()
            notice_signals()
        self._drain()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.sock.close()
        PRIVATE.difference_update(self._connections)
        self._connections.clear()
        self._wake_in.close()
        self._wake_out.close()

    def _drain(self) -> None:
        self._accept()
        self._listen(False)
        while True:
            unfinished = any(c.out or c.reader.middle or c.reader.ready for c in self._connections.values())
            ready = self._poll.poll(None if unfinished else 0)
            served = [(fd, mask) for fd, mask in ready if fd in self._connections]
            for fd, mask in served:
                self._step(fd, self._connections[fd], mask)
            if not served and not unfinished:
                return
            if not served:
                self._drain_wakeups()

    def _drain_wakeups(self) -> None:
        with suppress(BlockingIOError):
            self._wake_out.recv(4096)

    def _accept(self) -> None:
        try:
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                self._connections[sock.fileno()] = _Connection(sock, self._spooler)
                PRIVATE.add(sock.fileno())
                self._poll.register(sock, _IN)
                if len(self._connections) >= _MOST_CONNECTIONS:
                    return self._listen(False)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # the handler leaks descriptors; end this worker
                self.exhausted = self._stopping = True
            return None

    def _listen(self, wanted: bool) -> None:
        if wanted and not self._listening:
            self._poll.register(self._listener, _IN)
        elif self._listening and not wanted:
            self._poll.unregister(self._listener)
        self._listening = wanted

    def _step(self, fd: int, connection: _Connection, mask: int) -> None:
        if connection.out and mask & _OUT:
            data, connection.out = connection.out, b""
            connection.push(data)
        if mask & _IN and not connection.out:
            self._read(connection)
        elif mask & _ENDED and not mask & _IN:
            connection.closing, connection.out = True, b""
            connection.reader.ready.clear()
        ready = connection.reader.ready
        while ready and not connection.out and not connection.closing:
            self._respond(connection, ready.popleft())
        if connection.closing and not connection.out:
            self._close(fd, connection)
        elif connection.out:
            self._poll.modify(fd, _OUT)
        elif mask & _OUT:
            self._poll.modify(fd, _IN)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            connection.closing = True
            connection.reader.ready.clear()
            return
        reader = connection.reader
        self._heads.feed(reader, data)
        if reader.interim:
            interim, reader.interim = reader.interim, b""
            if not reader.ready:
                connection.send(interim)

    def _respond(self, connection: _Connection, request: Request) -> None:
        last = self._stopping or not request.keep_alive or len(self._connections) > _CROWDED
        self._handler.respond(request, last, connection.send)
        if last or self._stopping:
            connection.closing = True

    def _close(self, fd: int, connection: _Connection) -> None:
        self._poll.unregister(fd)
        del self._connections[fd]
        PRIVATE.discard(fd)
        connection.sock.close()
        if not self._listening and not self._stopping:
            self._listen(True)
