"""Clients that send or read a few bytes a second, and other clients' requests beside them."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Self
from urllib.parse import urlsplit

PACE_S = 0.5
APART_S = 0.05
"""They come one after the other: two hundred large responses at once are work for a handler, whoever reads them."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW_0 = struct.pack("!HI", 4, 0)  # SETTINGS_INITIAL_WINDOW_SIZE


class SlowClients(AbstractContextManager["SlowClients"]):
    """Many connections of one kind, each sending or reading a byte every half second, in the running event loop."""

    def __init__(self, url: str, kind: str, count: int, path: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._address = parts.hostname, parts.port
        self._kind, self._count, self._path = kind, count, path
        self._tasks: list[asyncio.Task[None]] = []
        self.ended = Counter[str]()
        """How those ended that did not stay: the status, or the error's name."""

    def __enter__(self) -> Self:
        act: Callable[[], object] = {"upload": self._upload, "read": self._read, "http2": self._http2}[self._kind]
        self._tasks = [asyncio.ensure_future(self._keep(act, number * APART_S)) for number in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()

    async def _keep(self, act: Callable[[], object], after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            await act()  # type: ignore[misc]
        except OSError as error:
            self.ended[type(error).__name__] += 1

    def _connect(self, receive_bytes: int | None = None) -> socket.socket:
        client = socket.socket()
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.setblocking(False)
        return client

    async def _upload(self) -> None:
        loop = asyncio.get_running_loop()
        with self._connect() as client:
            await loop.sock_connect(client, self._address)
            head = f"POST {self._path} HTTP/1.1\r\nhost: slow\r\ncontent-length: 1000000\r\n\r\n".encode()
            await loop.sock_sendall(client, head + b"x" * 60_000)
            while True:
                await asyncio.sleep(PACE_S)
                with suppress(BlockingIOError):
                    self.ended[client.recv(4096)[9:12].decode()] += 1
                    return
                await loop.sock_sendall(client, b"x")

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        with self._connect(receive_bytes=4096) as client:
            await loop.sock_connect(client, self._address)
            await loop.sock_sendall(client, f"GET {self._path} HTTP/1.1\r\nhost: slow\r\n\r\n".encode())
            first = await loop.sock_recv(client, 64)
            if not first.startswith(b"HTTP/1.1 200"):
                self.ended[first[9:12].decode()] += 1
                return
            while await loop.sock_recv(client, 1):  # noqa: ASYNC110 - it waits for nothing but its own pace
                await asyncio.sleep(PACE_S)
            self.ended["end"] += 1

    async def _http2(self) -> None:
        """A stream whose window is never opened; a PING now and then keeps the connection."""
        loop = asyncio.get_running_loop()
        with self._connect() as client:
            await loop.sock_connect(client, self._address)
            path = self._path.encode()
            # Literal fields without indexing (RFC 7541, 6.2.2): static names 2 (:method GET), 6 (:scheme), 4, 1.
            block = b"\x82\x86\x04" + bytes([len(path)]) + path + b"\x01\x04slow"
            await loop.sock_sendall(client, _PREFACE + _frame(4, 0, 0, _WINDOW_0) + _frame(1, 5, 1, block))
            while data := await loop.sock_recv(client, 65536):
                if data[3:4] == b"\x07":  # GOAWAY
                    self.ended["goaway"] += 1
                    return
            self.ended["end"] += 1


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Beside:
    """Small requests of other clients, one after the other, each on its own connection."""

    def __init__(self) -> None:
        self.results = Counter[str]()
        self.longest_s = 0.0

    async def send(self, url: str, count: int, path: str) -> None:
        """GETs and POSTs in turn."""
        parts = urlsplit(url)
        for number in range(count):
            body = b'{"n": 1}' if number % 2 else b""
            method = "POST" if number % 2 else "GET"
            head = (
                f"{method} {path} HTTP/1.1\r\nhost: quick\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            began = time.monotonic()
            try:
                async with asyncio.timeout(10):
                    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                    writer.write(head.encode() + body)
                    status = (await reader.read())[9:12].decode()
                    writer.close()
            except (OSError, TimeoutError) as error:
                status = type(error).__name__
            self.results[status] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)
