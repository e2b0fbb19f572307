"""The stages' listening sockets: binding them, and taking them back from a HAProxy whose guardian died.

hitless binds them itself, so that they outlive HAProxy. HAProxy would bind with SO_REUSEPORT and silently share a port
with another program of the same user; without it the system refuses. With an inherited descriptor (`bind fd@N`) HAProxy
neither binds nor sets the option. The backlog holds clients while HAProxy restarts.

HAProxy does not hand out inherited listeners (`expose-fd listeners` leaves them out). So they are duplicated by
`pidfd_getfd`, on Linux and where the kernel's ptrace rules allow it between processes of one user.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hitless.documents import decode
from hitless.errors import EngineError, MachineError
from hitless.gateway import guardian

BACKLOG = 4096
"""Connections that may wait to be accepted; Linux limits it to net.core.somaxconn."""


def listen(host: str, port: int, *, purpose: str = "") -> socket.socket:
    """A listening TCP socket; port 0 selects a free one. `purpose` names the stage in errors. Raises MachineError."""
    where = f"{host}:{port}" + (f" ({purpose})" if purpose else "")
    if not 0 <= port <= 65_535:  # getaddrinfo would truncate it to 16 bits
        raise MachineError(f"cannot listen on {where}: the highest port is 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
    except OSError as error:
        raise MachineError(f"cannot listen on {where}: unknown host ({error})") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # For a port with connections of an earlier run in TIME_WAIT; it does not share the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        why = "another program listens there" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
        raise MachineError(f"cannot listen on {where}: {why}", hint=_hint(error, port)) from error
    return listener


def address_of(listener: socket.socket) -> tuple[str, int]:
    """The socket's host and port, also if port 0 was asked for."""
    name = listener.getsockname()
    return str(name[0]), int(name[1])


def _hint(error: OSError, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"stop it (`ss -ltnp 'sport = :{port}'` shows it), or choose another port: "
                "`hitless up --listen 127.0.0.1:0` takes a free one, `listen` in serverless.yml sets a fixed one"
            )
        case errno.EACCES:
            return "ports below 1024 need root; choose a higher one with `listen`"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; choose another with `listen`"
    return ""


_PIDFD_GETFD = 438
"""The same number on every architecture (Linux 5.6)."""


class InheritedSocket(msgspec.Struct, frozen=True, array_like=True):
    """A listening socket of HAProxy: its descriptor there, and its address."""

    stage: str
    descriptor: int
    host: str
    port: int


class _HaproxyRecord(msgspec.Struct, frozen=True):
    """`haproxy.json`, as the guardian writes it when it starts HAProxy."""

    pid: int
    listeners: tuple[InheritedSocket, ...]


def recorded_listeners(folder: Path, pid: int) -> tuple[InheritedSocket, ...]:
    """The listeners that this HAProxy inherited; none if the guardian's record is of another process or unreadable."""
    try:
        record = decode((folder / guardian.RECORD).read_bytes(), _HaproxyRecord, guardian.RECORD)
    except (OSError, EngineError):
        return ()
    return record.listeners if record.pid == pid else ()


def take_listeners(pid: int, inherited: Iterable[InheritedSocket]) -> dict[str, socket.socket] | None:
    """Duplicates of HAProxy's listening sockets by stage, which the caller owns; None if they cannot be taken."""
    if not hasattr(os, "pidfd_open"):
        return None
    taken: dict[str, socket.socket] = {}
    try:
        process = os.pidfd_open(pid)
        try:
            for item in inherited:
                taken[item.stage] = socket.socket(fileno=_duplicate(process, item.descriptor))
                if not _listens(taken[item.stage], item):
                    raise OSError(f"descriptor {item.descriptor} has changed")
        finally:
            os.close(process)
    except OSError:
        for listener in taken.values():
            listener.close()
        return None
    return taken


def _duplicate(process: int, descriptor: int) -> int:
    if not sys.platform.startswith("linux"):
        raise OSError("no pidfd_getfd here")
    duplicate = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, descriptor, 0)
    if duplicate < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return int(duplicate)


def _listens(candidate: socket.socket, item: InheritedSocket) -> bool:
    return (
        candidate.family in (socket.AF_INET, socket.AF_INET6)
        and bool(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        and candidate.getsockname()[:2] == (item.host, item.port)
    )
