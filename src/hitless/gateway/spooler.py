"""The spooler: a process that waits for slow clients, so that no worker has to.

HAProxy sends it each request that does not fit HAProxy's buffer. The spooler reads the whole request, passes it to
HAProxy's inner frontend, receives the whole response, and sends that as fast as the client reads. A worker hands over a
connection whose large response the kernel did not accept at once, with the rest of the response in a file.

Invariants: a request is passed on once, and only when it is complete; bodies are in memory up to `IN_MEMORY_BYTES` in
total, and otherwise in unnamed files; together they stay within a budget; a transfer slower than `TransferPace` allows
is cut off. It outlives the daemon. If it dies, HAProxy bypasses it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import math
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Final

from hitless.gateway.life import daemonize
from hitless.worker.paths import HANDED
from hitless.worker.request import LARGEST_BODY_BYTES, REFUSALS, Request, RequestReader
from hitless.worker.response import CLOSE, api_gateway_error, http_response

UPLOADS, LOCK, LOG = "spool.sock", "spool.lock", "spool.log"
"""Files in the gateway's folder: the sockets for requests and for workers' connections; the lock holds the pid."""

RETIRE: Final = signal.SIGUSR1
"""Makes a spooler free its lock for another one, and end when that has bound the sockets and no transfer is left."""

IN_MEMORY_BYTES: Final = 64 << 20
BUDGET_BYTES: Final = 2 << 30
"""Limit of all bodies together. Beyond it an upload gets 503, and the oldest response in progress is cut off."""

LINGER_S: Final = 1.0
"""Wait after a response that came before the upload's end: HAProxy must not find a closed socket while it writes."""
PROBE: Final = b"x-hl-probe"
"""A request with this header checks that the spooler responds. HAProxy removes it from clients' requests."""
_CHUNK_BYTES: Final = 64 * 1024
_PASSED_ON_BYTES: Final = 1024 * 1024
_BACKLOG: Final = 4096
_RETIRED_LOOK_S: Final = 0.2
_DROPPED: Final = frozenset({b"connection", b"content-length", b"transfer-encoding", b"expect"})
_REASONS: Final = {**REFUSALS, 408: "Request Timeout", 502: "Internal server error", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class TransferPace:
    """How slow a transfer may be."""

    grace_s: float = 30.0
    least_bytes_per_s: float = 2_000
    longest_s: float = 300.0

    def allowed_s(self, done_bytes: int) -> float:
        """Seconds that a transfer may have taken when that many bytes are through."""
        return min(self.longest_s, self.grace_s + done_bytes / self.least_bytes_per_s)


class RefusedRequest(Exception):
    """The request gets this status instead of being passed on."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Budget:
    """Bytes that all bodies together may still use, and how many of them may be in memory."""

    def __init__(self, left_bytes: int, memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self.left_bytes = left_bytes
        self.memory_bytes = memory_bytes


class Body:
    """The bytes of a request or response, counted against the budget until it is closed."""

    def __init__(self, budget: Budget, folder: str) -> None:
        self._budget = budget
        self._file: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(dir=folder)  # noqa: SIM115
        self._in_memory = True
        self.full = False
        self.size = 0

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.left_bytes += self.size
        self._budget.memory_bytes += self.size * self._in_memory
        self._file.close()

    def put(self, data: bytes) -> bool:
        """Append; False, and `full` from then on, if it exceeds the budget or the disk is full."""
        self.full = self.full or len(data) > self._budget.left_bytes
        if self.full:
            return False
        try:
            if self._in_memory and len(data) > self._budget.memory_bytes:
                self._file.rollover()
                self._budget.memory_bytes += self.size
                self._in_memory = False
            self._file.write(data)
        except OSError:
            self.full = True
            return False
        self.size += len(data)
        self._budget.left_bytes -= len(data)
        self._budget.memory_bytes -= len(data) * self._in_memory
        return True

    def chunks(self, size_bytes: int) -> Iterator[bytes]:
        """All bytes from the start, in chunks of that size. OSError if the last ones could not be written."""
        self._file.seek(0)
        return iter(lambda: self._file.read(size_bytes), b"")


class UploadReader(RequestReader):
    """Reads a request as a worker does, but puts its body into `body`."""

    __slots__ = ("_into", "over")

    def __init__(self, into: Body) -> None:
        super().__init__()
        self._into = into
        self.over = 0
        """The status to refuse with before the request is complete; 0 for none."""

    def on_body(self, chunk: bytes) -> None:
        """Called by the parser."""
        if self.over:
            return
        if self._into.size + len(chunk) > LARGEST_BODY_BYTES:
            self.over = 413
        elif not self._into.put(chunk):
            self.over = 503


class Spooler:
    """Serves both sockets forever."""

    def __init__(self, inner: str, folder: str, budget: Budget, pace: TransferPace) -> None:
        """`inner`: the socket for complete requests; `folder`: where files for bodies are made."""
        self._inner, self._folder, self._budget, self._pace = inner, folder, budget, pace
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._readers: dict[asyncio.Task[None], int] = {}
        """Handed-over responses in the order in which they came, with their bytes."""

    async def accept(self, uploads: socket.socket) -> None:
        """Accept requests forever."""
        while True:
            try:
                client, _ = await self._loop.sock_accept(uploads)
            except OSError:  # out of descriptors: requests in progress will free some
                await asyncio.sleep(0.05)
                continue
            client.setblocking(False)
            self._begin(self._upload(client))

    async def finish(self, replaced: Callable[[], bool]) -> None:
        """Return at the second look in a row that finds the sockets replaced and no transfer."""
        idle = 0
        while idle < 2:
            await asyncio.sleep(_RETIRED_LOOK_S)
            idle = idle + 1 if replaced() and not self._tasks else 0

    def take_over(self, handed: socket.socket) -> None:
        """Receive the connections that workers hand over: each message has a connection and a file."""
        with suppress(BlockingIOError):
            while True:
                _, descriptors, _, _ = socket.recv_fds(handed, 64, 2)
                if len(descriptors) != 2:
                    for descriptor in descriptors:
                        os.close(descriptor)
                    continue
                try:
                    client = socket.socket(fileno=descriptors[0])
                except OSError:  # a handler has sent another descriptor
                    for descriptor in descriptors:
                        os.close(descriptor)
                    continue
                client.setblocking(False)
                size = os.fstat(descriptors[1]).st_size
                task = self._begin(self._send_rest(client, descriptors[1], size))
                task.add_done_callback(partial(self._reader_ended, client, descriptors[1]))
                self._readers[task] = size
                self._budget.left_bytes -= size
                while self._budget.left_bytes < 0 and self._readers:
                    oldest = next(iter(self._readers))
                    oldest.cancel()
                    self._budget.left_bytes += self._readers.pop(oldest)

    def _reader_ended(self, client: socket.socket, file: int, task: asyncio.Task[None]) -> None:
        """A callback, because the task may be cancelled before it has begun."""
        client.close()
        os.close(file)
        self._budget.left_bytes += self._readers.pop(task, 0)

    def _begin(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _upload(self, client: socket.socket) -> None:
        body, response = Body(self._budget, self._folder), Body(self._budget, self._folder)
        with suppress(OSError), client, body, response:
            try:
                request = await self._read_request(client, body)
                if PROBE in request.internal:
                    client.send(http_response(204, b"", CLOSE))
                    return
                chunks = await self._forward(request, body, response)
            except (RefusedRequest, OSError) as error:
                status = error.status if isinstance(error, RefusedRequest) else 503
                await self._send(client, api_gateway_error(status, _REASONS[status], CLOSE), self._loop.time(), 0)
                await self._linger(client)
            else:
                await self._send_chunks(client, chunks)

    async def _read_request(self, client: socket.socket, body: Body) -> Request:
        """The complete request; ConnectionError if the client leaves before."""
        reader = UploadReader(body)

        def take(data: bytes) -> bool:
            reader.feed(data)
            if reader.interim:
                client.send(reader.interim)
                reader.interim = b""
            return not reader.ready and not reader.over

        began = self._loop.time()
        try:
            await self._receive(client, take, lambda: began + self._pace.allowed_s(body.size))
        except TimeoutError:
            raise RefusedRequest(408) from None
        if not reader.ready and not reader.over:
            raise ConnectionError
        if reader.over or reader.ready[0].refusal:
            raise RefusedRequest(reader.over or reader.ready[0].refusal)
        return reader.ready[0]

    async def _forward(self, request: Request, body: Body, response: Body) -> Iterator[bytes]:
        """Pass the request on and return the chunks of its response.

        Raises OSError if it was not passed on, RefusedRequest if there was no response.
        """
        chunks = body.chunks(_PASSED_ON_BYTES)
        head = f"{request.method} {request.target} HTTP/1.1\r\n".encode("latin-1")
        kept = (pair for pair in request.headers if pair[0].lower() not in _DROPPED)
        head += b"".join(b"%s: %s\r\n" % pair for pair in (*kept, *request.internal.items()))
        head += b"content-length: %d\r\nconnection: close\r\n\r\n" % body.size
        with socket.socket(socket.AF_UNIX) as inner:
            inner.setblocking(False)
            await self._loop.sock_connect(inner, self._inner)
            with suppress(OSError):  # it responded before it read everything; the response can be read
                await self._loop.sock_sendall(inner, head)
                for chunk in chunks:
                    await self._loop.sock_sendall(inner, chunk)
            with suppress(OSError):
                await self._receive(inner, response.put, lambda: math.inf)
        with suppress(OSError):
            if response.size and not response.full:
                return response.chunks(_CHUNK_BYTES)
        raise RefusedRequest(502)

    async def _receive(self, source: socket.socket, take: Callable[[bytes], bool], until: Callable[[], float]) -> None:
        """Pass received data to `take`, until it returns False or the other side closes.

        `until`: the deadline in the loop's time, which may grow with the data; then TimeoutError. Raises OSError.
        """
        ended: asyncio.Future[None] = self._loop.create_future()
        descriptor = source.fileno()

        def readable() -> None:
            try:
                data = source.recv(_CHUNK_BYTES)
                if data and take(data):
                    return
                ended.set_result(None)
            except BlockingIOError:
                return
            except OSError as error:
                ended.set_exception(error)
            self._loop.remove_reader(descriptor)

        self._loop.add_reader(descriptor, readable)
        try:
            while not ended.done():
                left_s = until() - self._loop.time()
                if left_s <= 0:
                    raise TimeoutError
                await asyncio.wait([ended], timeout=min(left_s, self._pace.longest_s))
        finally:
            self._loop.remove_reader(descriptor)
        ended.result()

    async def _send_chunks(self, client: socket.socket, chunks: Iterator[bytes]) -> None:
        began, sent_bytes = self._loop.time(), 0
        for chunk in chunks:
            sent_bytes += await self._send(client, chunk, began, sent_bytes)

    async def _send(self, client: socket.socket, data: bytes, began: float, sent_bytes: int) -> int:
        """Send all; TimeoutError (an OSError) if the client reads too slowly."""
        async with asyncio.timeout_at(began + self._pace.allowed_s(sent_bytes)):
            await self._loop.sock_sendall(client, data)
        return len(data)

    async def _linger(self, client: socket.socket) -> None:
        client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER_S):
            while await self._loop.sock_recv(client, _CHUNK_BYTES):
                pass

    async def _send_rest(self, client: socket.socket, file: int, size: int) -> None:
        began, sent_bytes = self._loop.time(), 0
        with suppress(OSError):
            while sent_bytes < size:
                if not (data := os.pread(file, _CHUNK_BYTES, sent_bytes)):
                    return  # a handler has cut off the file
                sent_bytes += await self._send(client, data, began, sent_bytes)


def _bind(path: str, kind: socket.SocketKind, mode: int = 0o600) -> socket.socket:
    """Bind a socket, in place of another spooler's: at each instant there is one."""
    new = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(new)
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(new)
    if kind is socket.SOCK_STREAM:
        listener.listen(_BACKLOG)
    listener.setblocking(False)
    os.chmod(new, mode)
    os.rename(new, path)
    return listener


def _inode(path: str) -> int:
    with suppress(FileNotFoundError):
        return os.stat(path).st_ino
    return 0


async def _serve(uploads: socket.socket, handed: socket.socket, settings: dict[str, str], lock: int) -> None:
    spooler = Spooler(settings["inner"], settings["bodies"], Budget(int(settings["budget_bytes"])), TransferPace())
    loop, retired = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handed, spooler.take_over, handed)
    loop.add_signal_handler(RETIRE, retired.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {RETIRE})
    path = os.path.join(settings["folder"], UPLOADS)
    ours = _inode(path)
    accepting = asyncio.create_task(spooler.accept(uploads))
    await retired.wait()
    os.close(lock)
    await spooler.finish(lambda: _inode(path) != ours)
    accepting.cancel()


def main(argument: str) -> None:
    """`argument`: JSON with `folder` (of the sockets), `bodies` (for files), `inner` (HAProxy's frontend) and
    `budget_bytes`.

    The parent exits with 0 when both sockets are bound, also if another spooler has them.
    """
    settings = json.loads(argument)
    folder: str = settings["folder"]
    os.umask(0o177)
    lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    uploads = _bind(os.path.join(folder, UPLOADS), socket.SOCK_STREAM)
    handed = _bind(os.path.join(folder, HANDED), socket.SOCK_DGRAM, 0o666)  # isolated workers have another user
    os.ftruncate(lock, 0)  # the pid of an earlier spooler may be in use again
    signal.pthread_sigmask(signal.SIG_BLOCK, {RETIRE})  # until it has a handler
    daemonize(os.path.join(folder, LOG))
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_serve(uploads, handed, settings, lock))
