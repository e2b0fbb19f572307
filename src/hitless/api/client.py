"""The command line's side of the daemon's API: HTTP over the engine's own socket, by the standard library.

No heavier client: a deploy's time counts from the command, and this import costs a few milliseconds.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from hitless.documents import to_text
from hitless.errors import EngineError, EngineNotRunningError, HitlessError

CALL_TIMEOUT_S = 60.0


class RemoteError(HitlessError):
    """An error that the daemon gave; its code and exit code are the daemon's."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(
            str(document.get("message", "the engine failed")),
            hint=str(document.get("hint", "")),
            details=document.get("details") or {},
        )
        self.code = str(document.get("code", "failed"))  # type: ignore[misc]
        self.exit_code = int(document.get("exit_code", 1))  # type: ignore[misc]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class EngineClient:
    """Talks to one engine. EngineNotRunningError if nothing listens, RemoteError for the engine's own errors."""

    def __init__(self, api_socket: Path) -> None:
        self._socket = api_socket

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """One request, one JSON document."""
        with self._response(method, path, body, query, CALL_TIMEOUT_S) as response:
            return json.loads(response.read() or b"null")

    def text(self, path: str) -> str:
        """A response in plain text."""
        with self._response("GET", path, None, {}, CALL_TIMEOUT_S) as response:
            return response.read().decode()

    def stream(self, method: str, path: str, body: Any = None, **query: Any) -> Iterator[dict[str, Any]]:
        """One request, one JSON document a line until the engine ends it; a line `{"error": …}` is raised."""
        with self._response(method, path, body, query, None) as response:
            for line in _lines(response):
                document = json.loads(line)
                if "error" in document:
                    raise RemoteError(document["error"])
                yield document

    def begin(self, method: str, path: str, body: Any = None) -> None:
        """Return when the engine has accepted long work; it continues after that."""
        with self._response(method, path, body, {}, CALL_TIMEOUT_S):
            pass

    @contextmanager
    def _response(
        self, method: str, path: str, body: Any, query: dict[str, Any], timeout_s: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        """The response, to read. Raises the engine's own error, or EngineError if it does not respond or goes away."""
        connection = _UnixConnection(self._socket, timeout_s)
        target = quote(path) + (f"?{urlencode({k: v for k, v in query.items() if v is not None})}" if query else "")
        try:
            try:
                payload = None if body is None else to_text(body).encode()
                connection.request(method, target, payload, {"content-type": "application/json"} if payload else {})
                response = connection.getresponse()
            except (FileNotFoundError, ConnectionRefusedError) as error:
                raise EngineNotRunningError("no engine is running here", hint="start it with `hitless up`") from error
            except (OSError, http.client.HTTPException) as error:
                raise EngineError(
                    f"the engine does not respond on {self._socket} ({error})",
                    hint="run `hitless up` again, or see `hitless doctor`",
                ) from error
            try:
                if response.status >= 400:
                    raise _refusal(response)
                yield response
            except (OSError, http.client.HTTPException) as error:
                raise EngineError(
                    f"the connection to the engine broke ({error})",
                    hint="run `hitless up`: it adopts the running processes, and finishes or rolls back the rollout",
                ) from error
        finally:
            connection.close()


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The response's lines as they come. Not by readline, which takes a response that is cut off for a complete one."""
    rest = b""
    while data := response.read1(65536):
        *lines, rest = (rest + data).split(b"\n")
        yield from filter(None, lines)


def _refusal(response: http.client.HTTPResponse) -> RemoteError:
    """The daemon's own error, or its web server's response to an unknown path or an unexpected failure."""
    try:
        return RemoteError(json.loads(response.read())["error"])
    except (ValueError, KeyError, TypeError):
        message = f"the engine responded {response.status} {response.reason}"
        return RemoteError({"message": message, "hint": "see engine.log in the data folder"})
