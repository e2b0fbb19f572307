"""Sends commands to HAProxy's runtime socket. Each command has its own connection (70 µs, measured).

HAProxy closes the connection after its output, which ends with a line feed even if it is empty. If the line feed is
missing, HAProxy died during the command, and it is unknown whether the command had an effect.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from hitless.errors import ConflictError, EngineError

_ACCEPTED = frozenset({"", "New server registered.", "Server deleted."})
NO_MAP = "Unknown map identifier"
_LARGEST_ANSWER_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 18


class UnreachableError(EngineError):
    """HAProxy did not respond on its runtime socket; it may or may not have run the command."""


class RejectedError(EngineError):
    """HAProxy rejected a command; the message is its own."""


class OutdatedError(ConflictError):
    """HAProxy was started by an earlier version, whose configuration has no such map. A comparison would not help."""


class RuntimeSocket:
    """A client of one runtime socket. Holds no connection."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self._path = str(path)
        self._timeout_s = timeout_s

    async def ask(self, command: str) -> str:
        """The output of a command, or of several joined by `;` that can be told apart. UnreachableError."""
        shown = command.partition("\n")[0]  # without a payload, which may be a private key
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._exchange(command)
        except (OSError, TimeoutError) as error:
            reason = error.strerror or "timed out"
            raise UnreachableError(
                f"HAProxy does not respond on {self._path}: {reason}", details={"command": shown}
            ) from error
        if not answer.endswith(b"\n"):
            raise UnreachableError(f"HAProxy ended while it ran `{shown}`", details={"command": shown})
        return answer.decode("utf-8", "replace")

    async def tell(self, command: str) -> None:
        """Run a command that changes something. Raises RejectedError with HAProxy's message, UnreachableError, or
        OutdatedError for a new entry of a map that HAProxy does not have.
        """
        answer = (await self.ask(command)).strip()
        if answer.startswith(NO_MAP) and command.startswith("add "):
            message = "the running HAProxy is of an earlier version and cannot do this"
            raise OutdatedError(message, hint="run `hitless upgrade`", details={"command": command})
        if answer not in _ACCEPTED:
            raise RejectedError(
                f"HAProxy rejected `{command}`: {' '.join(answer.split())}", details={"command": command}
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
                    limit = f"{_LARGEST_ANSWER_BYTES >> 20} MiB"
                    raise UnreachableError(f"HAProxy's output for `{command}` is longer than {limit}")
            return bytes(answer)
