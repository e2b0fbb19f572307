"""HAProxy's runtime socket: one connection a command, which HAProxy closes after its answer (70 µs each, measured).

An answer ends with a line feed, even an empty one: without it HAProxy died while it spoke, and nothing is known of
the command.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from hitless.errors import EngineError

_ACCEPTED = frozenset({"", "New server registered.", "Server deleted."})
_LARGEST_ANSWER_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 18


class UnreachableError(EngineError):
    """HAProxy did not answer on its runtime socket; whether it carried out the command is unknown."""


class RejectedError(EngineError):
    """HAProxy refused a command; the message is its own."""


class RuntimeSocket:
    """A client of one runtime socket. Holds no connection."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self._path = str(path)
        self._timeout_s = timeout_s

    async def ask(self, command: str) -> str:
        """The whole answer. Several commands may be joined by `;` where their answers can be told apart.
        UnreachableError.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._exchange(command)
        except (OSError, TimeoutError) as error:
            reason = error.strerror or "no answer in time"
            raise UnreachableError(
                f"HAProxy does not answer on {self._path}: {reason}", details={"command": command}
            ) from error
        if not answer.endswith(b"\n"):
            raise UnreachableError(f"HAProxy ended while it answered to: {command}", details={"command": command})
        return answer.decode("utf-8", "replace")

    async def tell(self, command: str) -> None:
        """Carry out a command that changes something. RejectedError with HAProxy's words, UnreachableError."""
        answer = (await self.ask(command)).strip()
        if answer not in _ACCEPTED:
            raise RejectedError(
                f"HAProxy refused «{command}»: {' '.join(answer.split())}", details={"command": command}
            )

    async def _exchange(self, command: str) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, self._path)
            await loop.sock_sendall(connection, command.encode() + b"\n")
            answer = bytearray()
            while chunk := await loop.sock_recv(connection, _CHUNK_BYTES):
                answer += chunk
                if len(answer) > _LARGEST_ANSWER_BYTES:
                    raise UnreachableError(f"HAProxy's answer to «{command}» does not end")
            return bytes(answer)
