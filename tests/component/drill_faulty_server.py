"""An HTTP server that misbehaves on purpose, as the path of a request says. It uses raw sockets, so that no library
corrects it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType

LIVE = b"x-hitless-release: 5\r\n"


class FaultyServer:
    """Listens on a free port of 127.0.0.1 in a thread of its own; `with FaultyServer() as server: server.port`.

    `/every/3/drop` behaves for two requests and misbehaves at each third; `seen` counts the requests by path.
    """

    def __init__(self, release: Callable[[], int] = lambda: 5) -> None:
        self.port = 0
        self.seen: Counter[str] = Counter()
        self.connections = 0
        self.bodies: Counter[bytes] = Counter()
        self.keys: list[bytes] = []
        self._release = release
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._open: set[asyncio.Task[None]] = set()

    def __enter__(self) -> FaultyServer:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        accepting = asyncio.create_task(self._accept(listener))
        self._ready.set()
        await self._stop.wait()
        for task in (accepting, *self._open):
            task.cancel()
        await asyncio.gather(accepting, *self._open, return_exceptions=True)
        listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = await self._loop.sock_accept(listener)
            connection.setblocking(False)
            self.connections += 1
            task = asyncio.create_task(self._talk(connection))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _talk(self, connection: socket.socket) -> None:
        pending = b""
        try:
            while True:
                while b"\r\n\r\n" not in pending:
                    data = await self._loop.sock_recv(connection, 65536)
                    if not data:
                        return
                    pending += data
                head, _, pending = pending.partition(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"idempotency-key:"):
                        self.keys.append(line)
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                while len(pending) < length:
                    pending += await self._loop.sock_recv(connection, 65536)
                body, pending = pending[:length], pending[length:]
                if not await self._answer(connection, head, body):
                    return
        except OSError:
            return
        finally:
            connection.close()

    async def _answer(self, connection: socket.socket, head: bytes, body: bytes) -> bool:
        """Answer one request as its path says; False to close the connection."""
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        close = b"connection: close" in head.lower()
        self.seen[path] += 1
        self.bodies[body] += 1
        name = path.strip("/").split("?")[0]
        if name.startswith("every/"):
            _, every, name = name.split("/")
            if self.seen[path] % int(every):
                name = "ok"
        if name == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if name == "stall":
            await asyncio.sleep(3600)
        if name == "slow":
            await asyncio.sleep(0.05)
        for part in self._parts(name, method, body, close=close):
            if part is None:
                await asyncio.sleep(0.02)
            else:
                await self._loop.sock_sendall(connection, part)
        broken = {"drop", "cut-head", "cut-body", "cut-chunk", "until-close", "idle-close"}
        return not close and name not in broken

    def _parts(self, name: str, method: str, body: bytes, *, close: bool) -> list[bytes | None]:
        """The parts to write, in order; None is a pause."""
        release = str(self._release()).encode()
        live = b"x-hitless-release: " + release + b"\r\n" + (b"Connection: close\r\n" if close else b"")
        json_body = json.dumps({"release": release.decode(), "got": len(body)}).encode()
        whole = _answer(200, live, json_body)
        statuses = {"404": 404, "500": 500, "503": 503}
        match name:
            case "drop":
                return []
            case "cut-head":
                return [whole[:40]]
            case "cut-body":
                return [whole[:-5]]
            case "cut-chunk":
                return [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n0123"]
            case "chunked":
                return [
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + live + b'\r\n5\r\n{"a":\r',
                    None,
                    b"\n2\r\n1}\r\n0\r\n\r\n",
                ]
            case "surplus":
                return [whole + b"and more"]
            case "late-surplus":
                return [whole, None, b"and more"]
            case "lie":
                return [_answer(200, live, json.dumps({"release": str(self._release() - 1)}).encode())]
            case "garbage":
                return [b"\x16\x03\x01 this is no answer\r\n\r\n"]
            case "bad-length":
                return [b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"]
            case "204":
                return [b"HTTP/1.1 204 No Content\r\n" + live + b"\r\n"]
            case "continue":
                return [b"HTTP/1.1 100 Continue\r\n\r\n", None, whole]
            case "until-close":
                return [b"HTTP/1.1 200 OK\r\n\r\n", None, b'{"a": 1}']
            case "shielded":
                return [_answer(200, live + b"x-hitless-shielded: 1\r\n", json_body)]
            case _ if name in statuses:
                return [_answer(statuses[name], live, b'{"message": "no"}')]
            case _:
                return [_answer(200, live, b"" if method == "HEAD" else json_body)]


def _answer(status: int, headers: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s" % (
        status,
        len(body),
        headers,
        body,
    )
