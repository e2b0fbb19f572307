"""Shares of the processors: where they have an effect, what is refused, and what the kernel then has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hitless.errors import MachineError
from hitless.worker.process import join_share
from hitless.worker.spec import PoolSpec
from hitless.workers.shares import Shares, nice_of

pytestmark = pytest.mark.component

V2 = "25 20 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
PRIO_TO_WEIGHT = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916,
    9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277,
    1024, 820, 655, 526, 423, 335, 272, 215, 172, 137,
    110, 87, 70, 56, 45, 36, 29, 23, 18, 15,
]  # fmt: skip
"""Linux's sched_prio_to_weight (kernel/sched/core.c), from nice -20 to 19; 1024 is the default."""


def pool_spec(**changes: Any) -> PoolSpec:
    return cast(PoolSpec, SimpleNamespace(**{"service": "shop", "cpu_weight": 0, **changes}))


class FakeKernel:
    """The files that Linux shows to a process: `group` is what /proc/self/cgroup has."""

    def __init__(self, root: Path, *, group: str, mounts: str, autogroup: str | None = "1") -> None:
        self.root = root
        self.write("proc/self/cgroup", group)
        self.write("proc/self/mountinfo", f"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n{mounts}")
        if autogroup is not None:
            self.write("proc/sys/kernel/sched_autogroup_enabled", autogroup)

    def write(self, path: str, text: str) -> Path:
        (file := self.root / path).parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text.rstrip()}\n")
        return file

    def group(self, path: str, *, type_: str | None = "domain", weight: bool = False) -> Path:
        if type_ is not None:
            self.write(f"sys/fs/cgroup{path}/cgroup.type", type_)
        if weight:
            self.write(f"sys/fs/cgroup{path}/cpu.weight", "100")
        return self.write(f"sys/fs/cgroup{path}/cgroup.controllers", "memory").parent

    def shares(self) -> Shares:
        return Shares(self.root)


@pytest.mark.parametrize("nice", range(-20, 20))
def test_a_weight_becomes_the_nice_value_that_the_kernel_gives_this_weight(nice: int) -> None:
    assert nice_of(100 * PRIO_TO_WEIGHT[nice + 20] / 1024) == nice


def test_weights_beyond_the_kernels_are_its_least_and_most() -> None:
    assert (nice_of(10_000), nice_of(100), nice_of(1)) == (-20, 0, 19)


SERVICE = "/system.slice/hitless@main.service"


@pytest.mark.parametrize(
    ("group", "mounts", "autogroup", "why"),
    [
        ("0::/\n", "", "1", "no cgroup v2, and the engine runs in the control group /, which counts as one"),
        ("4:cpu,cpuacct:/docker/1\n", V1, "1", "no cgroup v2, and the engine runs in the control group /docker/1"),
        # a container sees its own group as the root, which has no release_agent (cgroup-v1/cgroups.txt, 1.4)
        ("4:cpu,cpuacct:/\n", V1, "1", "no cgroup v2, and the engine runs in the control group /, which counts as one"),
        ("4:cpu,cpuacct:/\n", V1, "0", "no cgroup v2, and kernel.sched_autogroup_enabled is not 1"),
        ("4:cpu,cpuacct:/\n", V1, None, "no cgroup v2, and kernel.sched_autogroup_enabled is not 1"),
        (f"0::{SERVICE}\n", V2, "1", f"{SERVICE} has no cpu controller of cgroup v2, and the engine runs in"),
    ],
)
def test_a_weight_without_an_effect_is_refused_with_the_reason(
    group: str, mounts: str, autogroup: str | None, why: str, tmp_path: Path
) -> None:
    kernel = FakeKernel(tmp_path, group=group, mounts=mounts, autogroup=autogroup)
    kernel.group("", type_=None)
    kernel.group("/system.slice", weight=True)
    kernel.group(SERVICE)
    shares = kernel.shares()
    with pytest.raises(MachineError, match="cpu_weight of shop would have no effect") as refused:
        shares.admit("shop", 50, 1)
    assert why in refused.value.message
    assert refused.value.hint
    shares.admit("shop", None, 1)
    assert shares.apply({"shop": None}) == ""
    assert why in shares.apply({"shop": 50})


@pytest.mark.parametrize("mounts", [V1, V2])
def test_sessions_share_in_the_root_group_alone(mounts: str, tmp_path: Path) -> None:
    kernel = FakeKernel(
        tmp_path, group=f"4:cpu,cpuacct:/\n0::{SERVICE}" if mounts == V1 else f"0::{SERVICE}", mounts=mounts
    )
    kernel.group("", type_=None)
    kernel.group(SERVICE)
    kernel.write("sys/fs/cgroup/cpu,cpuacct/release_agent", "")
    kernel.shares().admit("shop", 50, 1)
    kernel.group("/system.slice", weight=True)  # now its processes are one share
    if mounts == V2:
        with pytest.raises(MachineError, match="counts as one session"):
            kernel.shares().admit("shop", 50, 1)


@pytest.mark.parametrize(("capabilities", "share"), [("0000000000800000", {"nice": -6}), ("0000000000000000", {})])
def test_a_session_gets_more_than_the_default_only_from_an_engine_that_may_raise_it(
    capabilities: str, share: dict[str, int], tmp_path: Path
) -> None:
    """An engine that lost CAP_SYS_NICE must still start the workers of a running release."""
    kernel = FakeKernel(tmp_path, group="0::/\n", mounts=V2)
    kernel.group("", type_=None)
    kernel.write("proc/self/status", f"Name:\tpython\nCapEff:\t{capabilities}")
    assert kernel.shares().of(pool_spec(cpu_weight=400)) == share
    assert kernel.shares().of(pool_spec(cpu_weight=50)) == {"nice": 3}


@pytest.mark.parametrize(("type_", "joins"), [("threaded", True), ("domain invalid", False)])
def test_no_process_joins_a_group_that_was_not_made_completely(type_: str, joins: bool, tmp_path: Path) -> None:
    shares = FakeKernel(tmp_path, group="0::/\n", mounts="").shares()
    shares.group = tmp_path
    (tmp_path / "service-shop").mkdir()
    (tmp_path / "service-shop" / "cgroup.type").write_text(f"{type_}\n")
    assert shares.of(pool_spec()) == ({"group": str(tmp_path / "service-shop")} if joins else {})


def test_the_kernel_keeps_the_nice_value_of_a_session(tmp_path: Path) -> None:
    """sched(7): /proc/PID/autogroup shows it. A process of another session keeps its own."""
    own = Path("/proc/self/autogroup")
    if not own.exists():
        pytest.skip("this kernel has no autogroup")
    before, reading, writing = own.read_text(), *os.pipe()
    if (pid := os.fork()) == 0:
        os.setsid()
        join_share({"nice": 7})
        os.write(writing, own.read_text().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100).decode().split()[1:] == ["nice", "7"]
    assert own.read_text() == before
    os.close(reading)
    os.close(writing)


BURN = """
import json, os, sys, time
from hitless.worker.process import join_share
os.sched_setaffinity(0, {int(sys.argv[1])})
os.setsid()
join_share(json.loads(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
while True:
    pass
"""


def burn(shares: Sequence[dict[str, object]], until_s: float) -> list[float]:
    """CPU seconds of processes with these shares that compete for one CPU, until they have used that many together."""
    cpu = str(min(os.sched_getaffinity(0)))
    words = [[sys.executable, "-c", BURN, cpu, json.dumps(share)] for share in shares]
    burning = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for command in words]
    try:
        for one in burning:
            assert one.stdout is not None
            assert one.stdout.readline() == b"ready\n"
        before = [used_s(one.pid) for one in burning]
        for one in burning:
            assert one.stdin is not None
            one.stdin.write(b"\n")
            one.stdin.flush()
        while True:
            used = [used_s(one.pid) - start for one, start in zip(burning, before, strict=True)]
            if sum(used) >= until_s:
                return used
    finally:
        for one in burning:
            one.kill()
            one.communicate()


def used_s(pid: int) -> float:
    """The first field of /proc/PID/schedstat: nanoseconds on a CPU."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


@pytest.mark.long
def test_the_kernel_divides_a_busy_cpu_by_the_weights(tmp_path: Path) -> None:
    """Nice 10 is 110 of 1024 parts, so the other session should get nine times as much."""
    shares = Shares()
    if shares.group is not None or shares.trouble:
        pytest.skip(f"sessions have no share here: {shares.trouble or 'the engine may make groups'}")
    default, low = burn([{}, {"nice": nice_of(10)}], 1.0)
    assert default > 4 * low


GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A control group that was delegated as systemd delegates one, with this process's child in it."""
    controllers = GROUPS / "cgroup.controllers"
    if os.geteuid() or not controllers.exists() or "cpu" not in controllers.read_text().split():
        pytest.skip("it needs root, and the cpu controller of cgroup v2")
    (GROUPS / "cgroup.subtree_control").write_text("+cpu")
    group = GROUPS / f"hitless-test-{os.getpid()}"
    group.mkdir()
    os.setxattr(group, "trusted.delegate", b"1")
    yield group
    for folder in (*group.iterdir(), group):
        if folder.is_dir():
            folder.rmdir()


def run_in(group: Path, script: str) -> str:
    """Run Python in that group, as systemd starts a process there."""
    first = f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid()))"
    done = subprocess.run([sys.executable, "-c", f"{first}\n{script}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_threaded_control_groups_divide_a_busy_cpu(delegated: Path) -> None:
    """Processes can still enter the parent, and a delegated unit's group for ExecStop, as systemd moves them there."""
    main = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (delegated / "cgroup.procs").write_text(str(main.pid))
    daemon = """
from hitless.workers.shares import Shares
shares = Shares()
shares.admit("shop", 100, 3)
shares.admit("users", 1000, 1)
print(shares.apply({"shop": None, "users": 900}))
"""
    assert run_in(delegated, daemon) == "\n"
    groups = [delegated / f"service-{name}" for name in ("shop", "users")]
    assert [(one / "cpu.weight").read_text() for one in groups] == ["100\n", "900\n"]
    shop, users = burn([{"group": str(one)} for one in groups], 1.0)
    assert users > 4 * shop
    assert run_in(delegated / ".control", "print('stopped')") == "stopped\n"
    assert run_in(delegated, daemon) == "\n"
    main.communicate()
