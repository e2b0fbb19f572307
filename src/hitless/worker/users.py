"""Maps ids of an engine's range into the user namespaces of its processes, so that each service has a user of its own.

`newuidmap` as a service: the only process of a host with the right to do so, started by `hitless-users@.socket` for
each engine, under the engine's user. A process that has left its user namespace connects and names a place in the
range. Both of its maps then have two ids: the engine's own and the one at this place. Nothing else can be asked for.
The range is the user's line in /etc/subuid, which must be in /etc/subgid as well.

The kernel lets this process write only the maps of its own user's processes, because it has no other capabilities than
CAP_SETUID and CAP_SETGID. It ends when it is idle. Standard library only.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

SUBORDINATE: Final = (Path("/etc/subuid"), Path("/etc/subgid"))
REPLY_WITHIN_S: Final = 20.0
"""The time in which a reply comes, also if systemd must start the process first."""
_LISTENER = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_IDLE_S = _REQUEST_WITHIN_S = 5.0
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid


def main(files: Sequence[Path]) -> None:
    """Serve the inherited listening socket until it is idle. `files`: SUBORDINATE, or others in tests."""
    with socket.socket(fileno=_LISTENER) as listener:
        listener.settimeout(_IDLE_S)
        with suppress(TimeoutError):
            while True:
                caller = listener.accept()[0]
                with caller, suppress(OSError):  # it has gone
                    caller.settimeout(_REQUEST_WITHIN_S)
                    caller.sendall(_serve(caller, files).encode())


def lent(user: str, uid: int, files: Sequence[Path]) -> range:
    """The ids that the files lend to a user, who is named there by name or id; empty unless all files lend the same."""
    found: set[range] = set()
    for file in files:
        rows = re.findall(rf"(?m)^(?:{re.escape(user)}|{uid}):(\d+):(\d+)$", file.read_text() if file.exists() else "")
        found.add(range(int(rows[0][0]), int(rows[0][0]) + int(rows[0][1])) if rows else range(0))
    return found.pop() if len(found) == 1 else range(0)


def borrow(lender: str, place: int) -> int:
    """Have this process's new user namespace mapped by the process behind the socket; returns the service's user id.

    Raises RuntimeError: without a user of its own, a service that was promised one must not run.
    """
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(REPLY_WITHIN_S)
            asking.connect(lender)
            asking.sendall(b"%d\n" % place)
            reply = asking.recv(1000).decode()
    except OSError as error:
        reply = error.strerror or str(error)
    if not reply.isdecimal():
        raise RuntimeError(f"the service gets no user of its own: {lender}: {reply or 'no reply'}")
    return int(reply)


def _serve(caller: socket.socket, files: Sequence[Path]) -> str:
    pid, uid, _ = _CREDENTIALS.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    request = caller.recv(16)
    if uid != os.getuid():
        return "only the engine's user may ask"
    try:
        place, ids = int(request), lent(_name(uid), uid, files)
        if not 0 <= place < len(ids):
            return f"no user id is left: {' and '.join(map(str, files))} lend {len(ids)}, and this is service {place}"
        process = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY)
        try:
            for name, own in (("gid_map", os.getgid()), ("uid_map", uid)):
                _write(process, name, f"{own} {own} 1\n{ids[place]} {ids[place]} 1\n")
        finally:
            os.close(process)
    except (OSError, ValueError) as error:
        return f"the user id is not mapped: {error}"
    return str(ids[place])


def _write(process: int, name: str, text: str) -> None:
    file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=process)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


if __name__ == "__main__":
    main([*map(Path, sys.argv[1:])] or SUBORDINATE)
