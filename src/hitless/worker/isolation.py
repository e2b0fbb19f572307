"""Isolates a process, and all that it will start, from the rest of the machine, before it imports a handler.

A handler shares its process with the worker's code, so the kernel must stop it: with namespaces, a user of its own (if
the engine is root, or `hitless.worker.users` lends one), no capabilities, Landlock, limits, a filter of system calls.
What the process needs is opened or made visible first. `isolate` returns the measures that this machine does not allow;
nothing is skipped silently. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from hitless.worker import landlock
from hitless.worker.landlock import ALL, LIST, READ, SCOPES, WRITE_FILES, checked, libc
from hitless.worker.process import open_new_files_to_the_engine
from hitless.worker.seccomp import deny_calls
from hitless.worker.spec import PoolSpec
from hitless.worker.users import borrow

OFF: Final = "off"
LAMBDA_TASKS = LAMBDA_FILES = 1024
"""Lambda's limits of processes and threads, and of descriptors (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-
limits.html)."""
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/etc", "/sys")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_TEMPORARY: Final = ("/tmp", "/var/tmp", "/dev/shm")
_ASIDE: Final = "/.aside"
_LINKS: Final = {"/dev/fd": "fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"}

_NEWNS, _NEWIPC, _NEWUSER = 0x00020000, 0x08000000, 0x10000000
_NOSUID, _NODEV, _BIND, _REC, _PRIVATE, _DETACH = 2, 4, 4096, 16384, 1 << 18, 2
_SET_DUMPABLE, _CAPBSET_DROP, _NO_NEW_PRIVS, _MOUNT_SETATTR, _RECURSIVE = 4, 24, 38, 442, 0x8000


@dataclass(frozen=True, slots=True)
class Reach:
    """The files that a process may use besides the system's.

    `rights`: path → Landlock's rights. Files in `kept` can be neither removed nor replaced. `storage_mb` is the room of
    its private /tmp. `given`: folder → its mode; a user of its own may create files there and write to the logs.
    """

    rights: Mapping[str, int]
    kept: Sequence[str] = ()
    storage_mb: int = 512
    given: Mapping[str, int] = field(default_factory=dict)


def readable(spec: PoolSpec, libraries: Mapping[str, str], own_paths: Iterable[str]) -> dict[str, int]:
    """The rights on a function's code, on Python and Node.js, and on the libraries that a handler may import."""
    python = (sys.base_prefix, sys.base_exec_prefix, os.path.dirname(sys.executable), *sys.path)
    node = (spec.node, str(Path(spec.node).resolve().parents[1])) if spec.node else ()
    paths = (spec.task_root, *python, *node, *libraries.values(), *own_paths)
    return dict.fromkeys((path for path in paths if path.startswith("/") and path != "/"), READ)


def _give(folder: Path, mode: int, uid: int) -> None:
    """Let the user's group use the folder, and the logs that the engine's user has there. Both stay the engine's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(folder, -1, uid)
    folder.chmod(mode)
    for found in folder.glob("*.log*"):
        with suppress(OSError):  # a link or a file of the handler's own
            file = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            if stat.S_ISREG((status := os.fstat(file)).st_mode) and status.st_uid == os.geteuid():
                os.fchown(file, -1, uid)
                os.fchmod(file, 0o660)
            os.close(file)


def isolate(settings: Mapping[str, Any], reach: Reach) -> list[str]:
    """Isolate this process, which must have one thread. Returns the measures that are missing, each with its reason.

    `settings`, from the daemon: `mode`, `uid` (0: the engine's own), and `paths` that handlers may read and write.
    With `users`, the socket of `hitless.worker.users`, the service has the user at its `place`. Raises RuntimeError.
    """
    if settings.get("mode") == OFF:
        return ["all measures (switched off)"]
    if sys.platform != "linux":
        return ["all measures (only Linux has them)"]
    chosen: dict[str, Any] = {"uid": 0, "users": "", **settings}
    missing: list[str] = []

    def take(what: str, measure: Callable[..., object], *arguments: object) -> bool:
        try:
            measure(*arguments)
        except (OSError, AttributeError) as error:
            missing.append(f"{what} ({getattr(error, 'strerror', None) or error})")
            return False
        return True

    rights = {**reach.rights, **dict.fromkeys(settings.get("paths", ()), ALL)}
    namespace = os.readlink("/proc/self/ns/user")
    real = os.path.realpath("/etc/resolv.conf")  # systemd-resolved keeps it below /run
    readable = (*_SYSTEM, *(() if real.startswith("/etc/") else (real,)))
    private = take("a private file system", _enter_view, [*readable, *rights], reach, rights, chosen)
    if os.geteuid() == 0 or chosen["users"]:
        became = take("a user of its own", _become, chosen["uid"] if private else 0)
        namespace = os.readlink("/proc/self/ns/user") if became else namespace
        if became and chosen["users"]:
            open_new_files_to_the_engine()
    bounded = take("a limit of processes", _limit_namespaces, namespace)
    _limit(reach.storage_mb, bounded)
    take("no privileges", _drop_privileges)
    rights |= dict.fromkeys((*readable, "/proc"), READ) | dict.fromkeys(_DEVICES, READ | WRITE_FILES)
    rights |= {"/": LIST, **dict.fromkeys(_TEMPORARY, ALL)} if private else {"/tmp": ALL}
    if take("Landlock: files, other processes' memory", landlock.restrict, rights) and landlock.version() < SCOPES:
        missing.append("Landlock: signals and abstract sockets (it needs Linux 6.12)")
    take("a filter of system calls", deny_calls)
    return missing


def main(argument: str, own_paths: Sequence[str]) -> None:
    """Try all measures here, and write the missing ones to standard output. `argument`: the settings, as JSON."""
    try:
        missing = isolate(json.loads(argument), Reach({}))
    except RuntimeError as error:
        missing = [f"a user of its own ({error})"]
    sys.stdout.write(json.dumps(missing))


def is_private(path: str, process: str | int = "self") -> bool:
    """Whether the process has a file system of its own in which the path is shown, so that it belongs to a pool."""
    shown = (path, _ASIDE + path)
    try:
        # First without the kernel listing all mounts, which takes it half a millisecond
        if process != "self" and (
            _root_mount(process) == _own_root_mount() or not any(_may_exist(process, place) for place in shown)
        ):
            return False
        mounts = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    except OSError:
        return False
    places = [place.replace("\\", "\\134").replace(" ", "\\040") for place in shown]
    return any(line.split(" ", 5)[4] in places for line in mounts)


def _may_exist(process: str | int, path: str) -> bool:
    """Whether the process sees something at the path, or the kernel does not tell."""
    try:
        os.lstat(f"/proc/{process}/root{path}")
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def _root_mount(process: str | int) -> bytes:
    file = os.open(f"/proc/{process}/mountinfo", os.O_RDONLY)
    try:
        return os.read(file, 16)  # the ids of the mount and of its parent come first
    finally:
        os.close(file)


@cache
def _own_root_mount() -> bytes:
    return _root_mount("self")


def _enter_view(visible: Iterable[str], reach: Reach, rights: Mapping[str, int], settings: dict[str, Any]) -> None:
    """Replace the root by a new tmpfs, which is also /tmp, with the visible paths in their places.

    Sets the `uid` of the settings if the user is a lent one.
    """
    sources = {path: os.path.realpath(path) for path in (*visible, *_DEVICES, "/proc")}
    if os.geteuid() or libc().unshare(_NEWNS | _NEWIPC):
        _unshare_user(_NEWNS | _NEWIPC, settings)
    for path, mode in reach.given.items() if settings["uid"] else ():
        _give(Path(path), mode, settings["uid"])
    mount = libc().mount
    checked(mount(None, b"/", None, _REC | _PRIVATE, None))
    os.umask(0o022)
    options = f"size={reach.storage_mb}m,mode=0755"
    checked(mount(b"tmpfs", b"/tmp", b"tmpfs", _NOSUID | _NODEV, options.encode()))
    os.mkdir("/tmp/.old")
    checked(libc().pivot_root(b"/tmp", b"/tmp/.old"))
    os.chdir("/")
    for path in _TEMPORARY:
        os.makedirs(path)
        os.chmod(path, 0o1777)
    for path, target in _LINKS.items():
        os.symlink(f"/proc/self/{target}", path)
    for path, allowed in reach.rights.items():
        if allowed & ~READ and path.startswith(tuple(f"{folder}/" for folder in _TEMPORARY)):
            # Landlock's rights hold for all below, so that these must not be below /tmp
            os.makedirs(_ASIDE + path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(_ASIDE + path, path)
    shown: list[str] = []
    for path in sorted(sources):
        writable = rights.get(path, READ) & ~READ
        if (writable or not any(path.startswith(f"{above}/") for above in shown)) and _show(sources[path], path):
            shown.append(path)
            if path != "/proc" and not writable:
                attributes = (ctypes.c_uint64 * 4)(1 | 2, 0, 0, 0)  # read-only, nosuid; Linux 5.12, before Landlock
                libc().syscall(_MOUNT_SETATTR, -100, path.encode(), _RECURSIVE, attributes, ctypes.sizeof(attributes))
    for path in reach.kept:
        checked(mount(path.encode(), path.encode(), None, _BIND, None))
    checked(libc().umount2(b"/.old", _DETACH))
    os.rmdir("/.old")


def _show(source: str, path: str) -> bool:
    """Bind a real path of the old root to a place in the new one; False if it does not exist."""
    old = f"/.old{source}"
    if path.count("/") == 1 and source != path:  # /lib → /usr/lib
        os.symlink(source, path)
        return False
    if not os.path.exists(old):
        return False
    with suppress(FileExistsError):
        os.makedirs(path if os.path.isdir(old) else os.path.dirname(path))
    if not os.path.isdir(old):
        open(path, "a").close()
    checked(libc().mount(old.encode(), path.encode(), None, _BIND | _REC, None))
    return True


def _become(uid: int) -> None:
    if not uid:
        raise OSError(0, "it needs a private file system")
    _drop_bounding_set()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    checked(libc().prctl(_SET_DUMPABLE, 1, 0, 0, 0))  # so that it may read its own files in /proc


def _limit_namespaces(before: str) -> None:
    """Count the pool's processes by themselves, and forbid further user namespaces, which would give capabilities."""
    if os.geteuid() == 0:
        raise OSError(0, "it needs a user of its own")
    if os.readlink("/proc/self/ns/user") == before:
        _unshare_user(0, {})
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def _unshare_user(more: int, settings: dict[str, Any]) -> None:
    uid, gid = os.geteuid(), os.getegid()
    checked(libc().unshare(_NEWUSER | more))
    if settings.get("users"):
        settings["uid"] = borrow(settings["users"], settings["place"])
        return
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text)


def _limit(storage_mb: int, bounded: bool) -> None:
    files = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], LAMBDA_FILES)
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: files, resource.RLIMIT_FSIZE: storage_mb << 20}
    if bounded:  # else it would also count the engine's processes
        limits[resource.RLIMIT_NPROC] = LAMBDA_TASKS
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _drop_bounding_set() -> None:
    for capability in range(64):  # more than there are
        libc().prctl(_CAPBSET_DROP, capability, 0, 0, 0)


def _drop_privileges() -> None:
    _drop_bounding_set()
    checked(libc().capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()))
    checked(libc().prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
