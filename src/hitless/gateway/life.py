"""Whether HAProxy is alive and its pid; how the gateway's processes leave the daemon. Standard library only, because
the guardian uses it.

HAProxy inherits the writing end of a FIFO and never uses it. The reading end reports end of file exactly when HAProxy
is gone, whichever process started it, so its death is noticed without a pid.
"""

from __future__ import annotations

import os
import socket

from hitless.gateway.logfiles import open_log

LIFE, LIFE_BEFORE = "life", "life.before"
"""The FIFOs of the newest HAProxy and of the one before it, which may still finish its requests."""


def daemonize(log_path: str) -> None:
    """Exit with 0 in the parent; continue in a child with its own session, no terminal, and that log."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    log = open_log(log_path)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(log, 2)
    os.close(null)
    os.close(log)


def haproxy_is_alive(folder: str) -> bool:
    """Whether a process holds the writing end of the folder's FIFO."""
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


def haproxy_pid(runtime_socket: str) -> int | None:
    """The pid that HAProxy reports; None if it does not respond (yet)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
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
