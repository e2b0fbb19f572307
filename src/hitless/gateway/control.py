"""The server side of the guardian's control socket. Standard library only.

A daemon that connects gets one JSON line (`hello`) with the listening sockets attached, then one line for each event.
It may send `{"do": "stop", "grace_s": 1.0}`, or `{"do": "replace"}` for another HAProxy in place of the running one.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

CONTROL_SOCKET = "guardian.sock"
LONGEST_REQUEST_BYTES = 65536


class GuardianClients:
    """The connected daemons. `greet` returns the hello and its descriptors; `stop` gets the grace time;
    `replace` starts another HAProxy.
    """

    def __init__(
        self,
        control: socket.socket,
        selector: selectors.BaseSelector,
        greet: Callable[[], tuple[Mapping[str, object], Sequence[int]]],
        stop: Callable[[float], None],
        replace: Callable[[], None],
    ) -> None:
        self._control, self._selector = control, selector
        self._greet, self._stop, self._replace = greet, stop, replace
        self._unread: dict[socket.socket, bytes] = {}
        selector.register(control, selectors.EVENT_READ, self._accept)

    def tell(self, event: Mapping[str, object]) -> None:
        """Send one line to each client. A client that does not accept it is dropped."""
        for client in list(self._unread):
            try:
                client.send(_line(event))
            except OSError:
                self._drop(client)

    def _accept(self, _: object) -> None:
        try:
            client, _address = self._control.accept()
        except OSError:
            return
        client.setblocking(False)
        hello, descriptors = self._greet()
        try:
            socket.send_fds(client, [_line(hello)], descriptors)
        except OSError:
            client.close()
            return
        self._unread[client] = b""
        self._selector.register(client, selectors.EVENT_READ, self._read)

    def _read(self, client: Any) -> None:
        if client not in self._unread:  # dropped since the selector reported it
            return
        try:
            data = client.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._unread[client]) > LONGEST_REQUEST_BYTES:
            self._drop(client)
            return
        *lines, self._unread[client] = (self._unread[client] + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                request = json.loads(line)
                if request["do"] == "stop":
                    self._stop(float(request.get("grace_s", 1.0)))
                elif request["do"] == "replace":
                    self._replace()

    def _drop(self, client: socket.socket) -> None:
        del self._unread[client]
        self._selector.unregister(client)
        client.close()


def _line(event: Mapping[str, object]) -> bytes:
    return json.dumps(event).encode() + b"\n"
