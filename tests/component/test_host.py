"""A host's units are hardened, and installing, repeating and uninstalling touch only what belongs to hitless."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hitless.cli.host import (
    CONFIG,
    DATA,
    LENT,
    LENT_WITHIN,
    TEMPLATE,
    TEMPLATES,
    UNITS,
    USERS_SERVICE,
    HostUnits,
    stable_python,
)
from hitless.cli.owner import read_environment
from hitless.engine.folders import Folders
from hitless.errors import MachineError, UsageError
from hitless.workers.isolation import SUBORDINATE

pytestmark = pytest.mark.component


@dataclass
class FakeSystem:
    """Records commands; one that starts with a word of `failing` fails."""

    ran: list[str] = field(default_factory=list)
    failing: tuple[str, ...] = ()

    def __call__(self, words: Sequence[str]) -> str:
        self.ran.append(" ".join(words))
        if words[0] in self.failing:
            raise MachineError(f"{words[0]} failed")
        return "ActiveState=active\nUnitFileState=enabled\nNRestarts=2\nMemoryCurrent=[not set]\n"


def host_in(root: Path, system: FakeSystem) -> HostUnits:
    return HostUnits(root, system, python="/opt/hitless/bin/python")


def files_in(root: Path) -> set[str]:
    return {str(found.relative_to(root)) for found in root.rglob("*") if found.is_file()}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize(("template", "most"), [(TEMPLATE, 30), (USERS_SERVICE, 10)])
def test_systemd_accepts_the_units_and_finds_them_hardened(tmp_path: Path, template: str, most: int) -> None:
    for each in TEMPLATES:
        text = HostUnits(tmp_path, python=sys.executable).unit_text(each)
        (tmp_path / each.replace("@", "@clock")).write_text(text)
    unit = tmp_path / template.replace("@", "@clock")
    for words in (["verify"], ["security", "--offline=true", f"--threshold={most}"]):
        done = subprocess.run(["systemd-analyze", *words, unit], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-300:] + done.stderr
        assert not done.stderr


def test_the_unit_allows_the_calls_by_which_handlers_isolate_themselves() -> None:
    """systemd 252's @system-service has none of these, and a forbidden call only shows as a missing measure."""
    lines = HostUnits(python=sys.executable).unit_text().splitlines()
    allowed = next(line for line in lines if line.startswith("SystemCallFilter=@")).split("=", 1)[1].split()
    landlock = {f"landlock_{call}" for call in ("create_ruleset", "add_rule", "restrict_self")}
    assert {"@mount", "seccomp", *landlock} <= {*allowed}


def test_the_unit_with_capabilities_has_two_and_may_not_use_them_to_change_its_user() -> None:
    """They are for the maps of user namespaces. Its settings are root's alone: the engine's user writes engine.env."""
    lines = HostUnits(python=sys.executable).unit_text(USERS_SERVICE).splitlines()
    assert {"AmbientCapabilities=CAP_SETUID CAP_SETGID", "CapabilityBoundingSet=CAP_SETUID CAP_SETGID"} <= {*lines}
    denied = next(line for line in lines if line.startswith("SystemCallFilter=~")).split("~", 1)[1].split()
    assert {"@setuid", "setfsuid", "setfsgid", "@privileged"} <= {*denied}
    assert "NoNewPrivileges=yes" in lines
    assert not [line for line in lines if line.startswith(("EnvironmentFile", "ReadWritePaths"))]
    assert " -I " in next(line for line in lines if line.startswith("ExecStart="))
    daemon = HostUnits(python=sys.executable).unit_text().splitlines()
    assert "CapabilityBoundingSet=CAP_NET_BIND_SERVICE" in daemon


def lending(host: HostUnits, system: FakeSystem) -> list[range]:
    """The ranges that `usermod` was asked to lend, which it writes as it does on a machine."""
    spans = []
    for words in [one.split() for one in system.ran if one.startswith("usermod")]:
        first, last = map(int, words[2].split("-"))
        spans.append(range(first, last + 1))
        assert words[1:5] == ["--add-subuids", words[2], "--add-subgids", words[2]]
        for file in SUBORDINATE:
            with host.at(file).open("a") as opened:
                opened.write(f"{words[-1]}:{first}:{last - first + 1}\n")
    system.ran.clear()
    return spans


def test_each_engine_gets_a_range_of_ids_that_nobody_else_has(tmp_path: Path) -> None:
    system = FakeSystem()
    host = host_in(tmp_path, system)
    top = LENT_WITHIN.stop
    (tmp_path / "etc").mkdir()
    host.at(SUBORDINATE[1]).write_text(f"someone:{top - 2 * LENT - 5}:10\n")  # of the second range, and of the third
    host.install("clock")
    assert lending(host, system) == [range(top - LENT, top)]
    host.install("main")
    assert lending(host, system) == [range(top - 4 * LENT, top - 3 * LENT)]
    host.install("main")
    assert lending(host, system) == []
    host.at(SUBORDINATE[1]).write_text(f"hitless-clock:{top - LENT}:{LENT}\n")  # the power was cut between the files
    host.install("main")
    assert lending(host, system) == [range(top - 4 * LENT, top - 3 * LENT)]
    assert host.status()[0]["handler_users"] == f"{top - LENT}-{top - 1}"
    host.uninstall("clock")
    assert f"pkill --signal KILL --uid hitless-clock,{top - LENT},{top - LENT + 1}," in "\n".join(system.ran)
    host.at(SUBORDINATE[0]).write_text(f"all:{LENT_WITHIN.start}:{len(LENT_WITHIN)}\n")
    with pytest.raises(MachineError, match="user ids below 524288 are free"):
        host.install("late")


def test_the_unit_of_the_debian_package_outlives_the_version_that_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "1.0").mkdir()
    assert stable_python(str(tmp_path / "1.0")) is None
    (tmp_path / "current").symlink_to("1.0")
    assert stable_python(str(tmp_path / "1.0")) == str(tmp_path / "current/bin/python")
    (tmp_path / "2.0").mkdir()
    assert stable_python(str(tmp_path / "2.0")) is None
    (tmp_path / "1.0").rmdir()
    assert stable_python(str(tmp_path / "2.0")) is None, "a broken link beside any virtual environment"


def test_only_one_install_runs_at_a_time(tmp_path: Path) -> None:
    """Two could lend the same user ids to two engines."""
    free: list[bool] = []

    class Looking(FakeSystem):
        def __call__(self, words: Sequence[str]) -> str:
            folder = os.open(host.at(UNITS), os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free.append(True)
            except BlockingIOError:
                free.append(False)
            finally:
                os.close(folder)
            return super().__call__(words)

    host = host_in(tmp_path, Looking())
    host.install("clock")
    assert free
    assert not any(free)


def test_install_may_be_repeated_and_uninstall_leaves_nothing(tmp_path: Path) -> None:
    system = FakeSystem()
    host = host_in(tmp_path, system)
    (tmp_path / "etc").mkdir()
    for file in SUBORDINATE:
        host.at(file).touch()
    machine = files_in(tmp_path)
    host.install("clock")
    environment = host.at(CONFIG / "clock/engine.env")
    environment.write_text(environment.read_text() + "MORE=1\n")
    before = files_in(tmp_path)
    host.install("clock")
    assert files_in(tmp_path) == before
    assert read_environment(environment)["MORE"] == "1"
    assert "systemctl enable --now hitless@clock.service" in system.ran
    chowned = [one for one in system.ran if one.startswith("chown")]
    assert all(one.startswith("chown -h --from=root ") for one in chowned), "services' users keep their files"
    assert len(chowned) == 2
    data = Folders.of(host.at(DATA / "clock"), {})
    assert data.is_managed
    assert data.run.parent == Path("/run/hitless-clock")
    assert host.names() == ["clock"]
    assert host.status()[0]["restarts"] == 2
    host.uninstall("clock")
    host.remove_template()
    assert files_in(tmp_path) == machine
    assert not host.at(DATA).exists()
    assert not host.at(CONFIG).exists()


def test_an_install_that_was_cut_off_is_known_to_uninstall(tmp_path: Path) -> None:
    system = FakeSystem(failing=("chown",))
    host = host_in(tmp_path, system)
    with pytest.raises(MachineError):
        host.install("clock")
    assert host.names() == ["clock"]
    host.uninstall("clock")
    assert host.names() == []


def test_bad_names_and_a_private_python_are_refused_before_anything_changes(tmp_path: Path) -> None:
    system = FakeSystem()
    for name in ("Clock", "a/b", "../x", "x" * 21, "-a", "a"):
        with pytest.raises(UsageError, match="not a valid name"):
            host_in(tmp_path, system).install(name)
    with pytest.raises(MachineError, match="other users do not see"):
        HostUnits(tmp_path, system, python="/root/.local/bin/python").install("clock")
    assert not system.ran
    assert not files_in(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_root_acts_as_the_owner_of_a_service(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "unit").write_text("hitless@data.service\n/run/hitless-data\n")
    os.chown(data, 65534, 65534)
    script = (
        "import os; from pathlib import Path; from hitless.cli.owner import become_owner;"
        f"become_owner(Path({str(data)!r}), Path('/nowhere'));"
        "print(os.getresuid(), os.getresgid(), os.environ['HOME'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == f"(65534, 65534, 65534) (65534, 65534, 65534) {data}".split()


def test_the_template_names_the_folders_of_the_host() -> None:
    text = HostUnits(python="/opt/hitless/bin/python").unit_text()
    assert "{" not in text.replace("${", "")
    assert f"--data-dir {DATA}/%i" in text
    assert (UNITS / TEMPLATE).name == "hitless@.service"
