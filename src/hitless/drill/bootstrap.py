"""Runs in a drill's broken release of a program: stands between Lambda's Runtime API and the service's own program.

`Workspace.wrap_program` packs it as `__main__.py` of an executable zip, beside the program and `plan.json`, which names
the scenario (`act`) and the route to break. It uses the standard library alone, and needs Linux.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile

DELAY_S = 0.1
LEAK_BYTES, LEAK_LIMIT_BYTES = 8 << 20, 96 << 20
BASE = "/2018-06-01/runtime/invocation/"
POSTS = {
    "raises-on-route": ("error", b'{"errorType": "Drill", "errorMessage": "broken on purpose by a drill"}'),
    "too-large": ("response", b'"' + b"x" * (7 << 20) + b'"'),
}
_kept: list[bytes] = []


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until one side ends."""
    while data := source.recv(1 << 20):
        target.sendall(data)


def serve(program: socket.socket, plan: dict[str, str]) -> None:
    """Pass a connection of the program on to the API, which spells its headers in one way."""
    host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].partition(":")
    api = socket.create_connection((host, int(port)))
    threading.Thread(target=pass_on, args=(program, api), daemon=True).start()
    while data := api.recv(1 << 20):
        found = data.partition(b"Lambda-Runtime-Aws-Request-Id: ")[2]
        while found and len(data.partition(b"\r\n\r\n")[2]) < int(data.partition(b"Content-Length: ")[2].split()[0]):
            data += api.recv(1 << 20)
        if not found or not spoil(json.loads(data.partition(b"\r\n\r\n")[2]), plan):
            program.sendall(data)
            continue
        kind, posted = POSTS[plan["act"]]
        path = f"{BASE}{found.split()[0].decode()}/{kind}"
        api.sendall(f"POST {path} HTTP/1.1\r\nHost: api\r\nContent-Length: {len(posted)}\r\n\r\n".encode() + posted)
        api.recv(1 << 20)
        api.sendall(f"GET {BASE}next HTTP/1.1\r\nHost: api\r\n\r\n".encode())


def spoil(event: dict[str, object], plan: dict[str, str]) -> bool:
    """Do what the plan says before the program gets the event. Whether the program must not get it."""
    act = plan["act"]
    if act == "slow":
        time.sleep(DELAY_S)
    elif act == "leaks":
        _kept.append(b"x" * LEAK_BYTES)
        if len(_kept) * LEAK_BYTES > LEAK_LIMIT_BYTES:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does with a process beyond its memory limit
    elif (event.get("httpMethod"), event.get("path")) != (plan["method"], plan["path"]):
        return False
    elif act == "exits":
        os._exit(1)
    elif act == "hangs":
        time.sleep(3600)
    return act in POSTS


def main() -> None:
    """Start the program with this process as its API. Each of the two ends with the other."""
    program = os.memfd_create("bootstrap", 0)
    with zipfile.ZipFile(sys.argv[0]) as packed, open(program, "wb", closefd=False) as file:
        plan = json.loads(packed.read("plan.json"))
        file.write(packed.read("bootstrap"))
    listener = socket.create_server(("127.0.0.1", 0))
    prctl = ctypes.CDLL(None).prctl
    child = subprocess.Popen(
        [f"/proc/self/fd/{program}"], pass_fds=[program], preexec_fn=lambda: prctl(1, signal.SIGKILL, 0, 0, 0),
        env={**os.environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{listener.getsockname()[1]}"},
    )  # fmt: skip
    threading.Thread(target=lambda: os._exit(child.wait() & 0xFF), daemon=True).start()
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0], plan), daemon=True).start()
