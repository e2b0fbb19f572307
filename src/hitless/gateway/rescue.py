"""Taking the listening sockets out of a HAProxy that was left alone (guardian and daemon both dead). Linux;
elsewhere: none.

HAProxy does not hand out inherited listeners on its own socket (`expose-fd listeners` leaves them out), so they are
duplicated by `pidfd_getfd`, which a process may do to another of the same user where the kernel's ptrace rules allow
it.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hitless.gateway import guardian

_PIDFD_GETFD = 438
"""The same number on every architecture (Linux 5.6)."""


@dataclass(frozen=True, slots=True)
class InheritedSocket:
    """A listening socket of HAProxy's: its descriptor there, and where it listens."""

    stage: str
    descriptor: int
    host: str
    port: int


def inherited_by(folder: Path, pid: int) -> tuple[InheritedSocket, ...]:
    """What that HAProxy inherited, by the record of the guardian that started it; nothing where the record is
    another's.
    """
    try:
        document = json.loads((folder / guardian.RECORD).read_text(encoding="utf-8"))
        if document["pid"] != pid:
            return ()
        return tuple(
            InheritedSocket(str(s), int(d), str(host), int(port)) for s, d, host, port in document["listeners"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def take_listeners(pid: int, inherited: Iterable[InheritedSocket]) -> dict[str, socket.socket] | None:
    """Duplicates of that HAProxy's listening sockets by stage, or None where they cannot be had. The caller owns
    them.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    taken: dict[str, socket.socket] = {}
    try:
        process = os.pidfd_open(pid)
        try:
            for item in inherited:
                taken[item.stage] = socket.socket(fileno=_duplicate(process, item.descriptor))
                if not _listens(taken[item.stage], item):
                    raise OSError(f"descriptor {item.descriptor} is not what it was")
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
