"""Divides processor time among the services of one engine, by cgroup v2 or by autogroup.

If the service manager delegated a control group to the engine (systemd's `Delegate=cpu`), each service has a group in
it. The groups are threaded (docs.kernel.org/admin-guide/cgroup-v2.html), so the engine's own processes may stay in
their parent, and systemd can start another daemon there beside running workers. Otherwise each function's processes
are a session, whose nice value decides (sched(7), "The autogroup feature").
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from hitless.errors import MachineError
from hitless.worker.spec import PoolSpec

DEFAULT_WEIGHT: Final = 100
CONTROL: Final = ".control"
"""systemd runs the ExecStop of a delegated unit in this group, and can do so only if it is threaded as well."""
_NICE_CAPABILITY: Final = 1 << 23


class Shares:
    """The shares of an engine's services on this machine. `root`: the folder of /proc and of the mounted groups."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self.group: Path | None = None
        """The engine's control group, in which it has one for each service."""
        self.trouble = ""
        """Why no weight has an effect on this machine."""
        path, folder = _group(root, "") if (root / "proc/self/cgroup").exists() else ("", None)
        if not (trouble := _not_delegated(path, folder)):
            self.group = folder
        elif other := _no_autogroup(root):
            self.trouble = f"{trouble}, and {other}"

    def admit(self, service: str, weight: int | None, functions: int) -> None:
        """Prepare a service's share. Raises MachineError if the weight would have no effect."""
        try:
            if self.group is not None and not self._is_made(service):
                self._create(service, weight or DEFAULT_WEIGHT)
        except OSError as error:
            trouble = f"{self.group} allows no group: {error.strerror}"
        else:
            raises = self.group is None and nice_of((weight or DEFAULT_WEIGHT) / functions) < 0
            may = not raises or _may_raise(self._root)
            denied = "" if may else "a session with more than the default needs CAP_SYS_NICE"
            trouble = self.trouble or denied
        if weight is not None and trouble:
            hint = "remove cpu_weight, or run the engine in the unit of `hitless host install`, with cgroup v2"
            raise MachineError(f"cpu_weight of {service} would have no effect: {trouble}", hint=hint)

    def apply(self, weights: Mapping[str, int | None]) -> str:
        """Give the services these weights; returns why one has no effect, or ""."""
        trouble = self.trouble if any(weights.values()) else ""
        for service, weight in weights.items() if self.group else ():
            try:
                self._create(service, weight or DEFAULT_WEIGHT)
            except OSError as error:
                trouble = f"{self.group} allows no group: {error.strerror}"
        return trouble

    def remove(self, service: str) -> None:
        """Remove the group of a service, if no process is left in it."""
        if self.group is not None:
            with suppress(OSError):
                self._folder(service).rmdir()

    def of(self, spec: PoolSpec) -> dict[str, str | int]:
        """What `hitless.worker.process.join_share` takes, for a process of the pool; empty for the default."""
        if self.group is not None:
            return {"group": str(self._folder(spec.service))} if self._is_made(spec.service) else {}
        nice = nice_of(spec.cpu_weight) if spec.cpu_weight and not self.trouble else 0
        return {"nice": nice} if nice > 0 or (nice < 0 and _may_raise(self._root)) else {}

    def _folder(self, service: str) -> Path:
        assert self.group is not None
        return self.group / f"service-{service}"

    def _is_made(self, service: str) -> bool:
        """Whether processes can join the service's group: not if a crash left one that is not threaded yet."""
        with suppress(OSError):
            return (self._folder(service) / "cgroup.type").read_text().strip() == "threaded"
        return False

    def _create(self, service: str, weight: int) -> None:
        assert self.group is not None
        _write(self.group / "cgroup.subtree_control", "+cpu")
        for folder in (self.group / CONTROL, self._folder(service)):
            folder.mkdir(exist_ok=True)
            if (folder / "cgroup.type").read_text().strip() != "threaded":
                _write(folder / "cgroup.type", "threaded")
        if (present := self._folder(service) / "cpu.weight").read_text().strip() != str(weight):
            _write(present, str(weight))


def nice_of(weight: float) -> int:
    """The nice value whose weight is nearest: each step is a quarter (kernel/sched/core.c, sched_prio_to_weight)."""
    return max(-20, min(19, round(-math.log(weight / DEFAULT_WEIGHT, 1.25))))


def _write(path: Path, text: str) -> None:
    with path.open("r+") as file:  # never makes a file
        file.write(text)


def _group(root: Path, controller: str) -> tuple[str, Path | None]:
    """This process's control group in the hierarchy of a v1 controller, or in v2's (""), and its folder."""
    lines = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    path = next((path for _, names, path in lines if controller in names.split(",")), "")
    for line in (root / "proc/self/mountinfo").read_text().splitlines():  # proc_pid_mountinfo(5)
        left, _, right = line.partition(" - ")
        (_, _, _, base, point, *_), (kind, _, options) = left.split(), right.split(" ", 2)
        ours = kind == "cgroup" and controller in options.split(",") if controller else kind == "cgroup2"
        if path and ours and Path(path).is_relative_to(base):
            return path, root / point[1:] / Path(path).relative_to(base)
    return path, None


def _not_delegated(path: str, folder: Path | None) -> str:
    """Why the engine may not make groups in its own; empty if it may."""
    if folder is None:
        return "this machine has no cgroup v2"
    try:
        if "cpu" not in (folder / "cgroup.controllers").read_text().split():
            return f"the control group {path} has no cpu controller of cgroup v2"
        mine = folder.stat().st_uid == os.geteuid()
        if os.geteuid() == 0:  # root may write everywhere, but systemd owns the groups that it did not delegate
            mine = os.getxattr(folder, "trusted.delegate") == b"1"
    except OSError:
        mine = False
    return "" if mine else f"the control group {path} was not delegated to the engine"


def _no_autogroup(root: Path) -> str:
    """Why a session's nice value has no effect; empty if it has one: only in the root group of the cpu controller."""
    switch = root / "proc/sys/kernel/sched_autogroup_enabled"
    if not switch.exists() or switch.read_text().strip() != "1":
        return "kernel.sched_autogroup_enabled is not 1"
    path, folder = _group(root, "cpu")
    if path:  # only a hierarchy's real root has this file; a container sees its own group as the root
        free = path == "/" and folder is not None and (folder / "release_agent").exists()
    else:
        path, folder = _group(root, "")
        groups = [folder, *list(folder.parents)[: len(Path(path).parts) - 1]] if folder else []
        free = bool(groups) and not any((one / "cpu.weight").exists() for one in groups)
        free = free and not (groups[-1] / "cgroup.type").exists()
    return "" if free else f"the engine runs in the control group {path}, which counts as one session"


def _may_raise(root: Path) -> bool:
    with suppress(OSError, StopIteration):
        lines = (root / "proc/self/status").read_text().splitlines()
        return bool(int(next(line for line in lines if line.startswith("CapEff")).split()[1], 16) & _NICE_CAPABILITY)
    return False
