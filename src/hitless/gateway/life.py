"""Whether a HAProxy lives, and which process it is. Standard library only: the guardian uses it.

HAProxy inherits the writing end of a FIFO and never uses it, so that the reading end reports its end of file exactly
when HAProxy is gone, whoever started it: a dead one is told from a living one without a pid.
"""

from __future__ import annotations

import os
import socket

LIFE = "life"


def is_alive(folder: str) -> bool:
    """Whether some process holds the writing end of the folder's FIFO: a HAProxy lives."""
    try:
        reader = os.open(os.path.join(folder, LIFE), os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        return os.read(reader, 1) != b""
    except BlockingIOError:
        return True
    finally:
        os.close(reader)


def pid_behind(runtime_socket: str, timeout_s: float = 1.0) -> int | None:
    """HAProxy's pid in its own words; None where it does not answer (yet)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        answer = b""
        try:
            connection.connect(runtime_socket)
            connection.sendall(b"show info\n")
            while chunk := connection.recv(65536):
                answer += chunk
        except OSError:
            return None
    for line in answer.decode("utf-8", "replace").splitlines():
        if line.startswith("Pid: "):
            return int(line[5:])
    return None
