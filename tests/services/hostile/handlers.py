"""A handler that tries to leave its sandbox. Each attempt returns if it succeeds, and raises if the kernel refuses.

As a program, for builds and strangers, it makes the attempts of its standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
ROOT = os.environ.get("LAMBDA_TASK_ROOT", "/")
_KEPT: list[Any] = []


class Held(Exception):
    """The attempt was refused."""


def call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def connect(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + address[1:] if address.startswith("@") else address)


def bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


def share_port(port: str) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", int(port)))


def read(path: str) -> None:
    if Path(path).is_dir():
        os.listdir(path)
    else:
        with open(path, "rb") as file:
            file.read(1)


def write(path: str) -> None:
    """Open for writing; nothing is written, so that a sandbox with a hole costs no more than an empty file."""
    with open(path, "a"):
        pass


def write_memory(pid: str) -> None:
    with open(f"/proc/{pid}/mem", "r+b"):
        pass


def mount(path: str) -> None:
    """Without a sandbox this would hide the folder from the whole machine, so it is undone."""
    call(LIBC.mount(b"tmpfs", path.encode(), b"tmpfs", 0, None))
    LIBC.umount(path.encode())


def make_device(path: str) -> None:
    os.mknod(path, 0o20666, os.makedev(1, 3))
    os.unlink(path)


def trace(pid: str) -> None:
    seize, detach = 0x4206, 17
    call(LIBC.ptrace(seize, int(pid), None, None))
    LIBC.ptrace(detach, int(pid), None, None)


def system_call(name: str) -> None:
    """A call that the kernel allows to users without privileges, as far as its settings do."""
    nothing = ctypes.create_string_buffer(256)
    numbers = {  # x86_64, aarch64, and arguments
        "keyctl": (250, 219, 0, -3, 0),
        "io_uring_setup": (425, 425, 1, nothing),
        "userfaultfd": (323, 282, 1),
        "perf_event_open": (298, 241, ctypes.create_string_buffer(struct.pack("IIQ", 1, 112, 0), 112), 0, -1, -1, 0),
        "bpf": (321, 280, 0, ctypes.create_string_buffer(struct.pack("IIII", 2, 4, 4, 1), 72), 72),
        "kcmp": (312, 272, os.getpid(), os.getpid(), 1, 0, 0),
        "getpid of another ABI": (0x40000000 | 39, 0x40000000 | 172),
    }
    x86, arm, *arguments = numbers[name]
    call(LIBC.syscall(arm if os.uname().machine == "aarch64" else x86, *arguments))


def trace_child(_: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        trace(str(child.pid))
    finally:
        child.kill()
        child.wait()


def start_threads(most: str) -> None:
    end, started = threading.Event(), []
    threading.stack_size(65536)
    try:
        for _ in range(int(most)):
            started.append(threading.Thread(target=end.wait, daemon=True))
            started[-1].start()
    finally:
        end.set()
        for thread in started[:-1]:
            thread.join()


def fill(megabytes: str) -> None:
    """In two files, because the size of one is limited, too."""
    files = [Path(f"/tmp/fill-{number}") for number in range(2)]
    try:
        for file in files:
            with file.open("wb") as opened:
                os.posix_fallocate(opened.fileno(), 0, int(megabytes) * 2**20 // 2)
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def grow_log(megabytes: str) -> None:
    with Path(os.readlink("/proc/self/fd/1")).with_name("w9.log").open("wb") as file:
        try:
            file.truncate(int(megabytes) * 2**20)
        finally:
            os.unlink(file.name)


def link_log(target: str) -> None:
    link = Path(os.readlink("/proc/self/fd/1")).with_name("w8.log")
    link.symlink_to(target)
    link.unlink()


def raise_limit(name: str) -> None:
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    if hard == resource.RLIM_INFINITY:
        return
    resource.setrlimit(kind, (hard + 1, hard + 1))


def descriptors_of_a_child(_: str) -> None:
    shown = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True).stdout
    if not any(word in shown for word in ("socket:", ".lock", ".sock", "/page")):
        raise Held(shown)


def own_capabilities(_: str) -> None:
    lines = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    if not any(int(lines[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")):
        raise Held("none")


def lower_score(_: str) -> None:
    Path("/proc/self/oom_score_adj").write_text("0")


def plant(pid: str) -> dict[str, Any]:
    """Leave a process in a session of its own, and write another process's id into the stats page for the engine."""
    number, started = pid.split(":")
    line = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("/page"))
    first, last = (int(part, 16) for part in line.split()[0].split("-"))
    page = (ctypes.c_uint64 * ((last - first) // 8)).from_address(first)
    workers = page[1]
    for slot in range(2 * workers):
        at = len(page) - (2 * workers - slot) * mmap.PAGESIZE // 8
        if page[at + 1] != os.getpid():
            page[at + 1], page[at + 2], page[at + 16] = int(number), int(started), 1
    reading, writing = os.pipe()
    if not LIBC.fork():
        os.setsid()
        if not LIBC.fork():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, str(os.getpid()).encode())
            while True:
                signal.pause()
        os._exit(0)
    return {"daemon": int(os.read(reading, 20))}


ATTEMPTS: dict[str, Callable[[str], object]] = {
    "read": read,
    "write": write,
    "connect": connect,
    "bind": bind,
    "share_port": share_port,
    "write_memory": write_memory,
    "trace": trace,
    "signal": lambda pid: os.kill(int(pid), 0),
    "remove": os.unlink,
    "chmod": lambda path: os.chmod(path, 0o777),
    "system_call": system_call,
    "trace_child": trace_child,
    "start_threads": start_threads,
    "fill": fill,
    "grow_log": grow_log,
    "link_log": link_log,
    "setuid": lambda uid: os.setuid(int(uid)),
    "setgroups": lambda group: os.setgroups([int(group)]),
    "mount": mount,
    "unshare": lambda flags: call(LIBC.unshare(int(flags, 16))),
    "chroot": os.chroot,
    "mknod": make_device,
    "raise_limit": raise_limit,
    "descriptors_of_a_child": descriptors_of_a_child,
    "own_capabilities": own_capabilities,
    "lower_score": lower_score,
}


def api(event: dict[str, Any], context: Any) -> dict[str, Any]:
    query = event["queryStringParameters"] or {}
    target = query.get("target", "").replace("ROOT", ROOT)
    if event["path"] == "/plant":
        return {"statusCode": 200, "body": json.dumps(plant(target))}
    return {"statusCode": 200, "body": json.dumps(attempt(query["attempt"], target))}


def attempt(what: str, target: str) -> dict[str, Any]:
    try:
        ATTEMPTS[what](target)
    except (OSError, Held, RuntimeError, ValueError) as error:
        return {"out": False, "why": f"{type(error).__name__}: {error}"}
    return {"out": True}


def use(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """What every handler may do."""
    with open("/tmp/own", "a") as file, contextlib.closing(socket.socket()):
        file.write("x")
    done = subprocess.run(["/bin/sh", "-c", "echo from a child; cat /etc/hosts"], capture_output=True, check=True)
    found = socket.getaddrinfo("localhost", 80)
    body = {"child": done.stdout.decode()[:12], "found": len(found) > 0, "uid": os.getuid(), "pid": os.getpid()}
    return {"statusCode": 200, "body": json.dumps(body)}


if __name__ == "__main__":
    for name, what, target in json.load(sys.stdin):
        print("tried", json.dumps({"name": name, **attempt(what, target)}))
