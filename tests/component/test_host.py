"""A host's units are hardened, and installing, repeating and uninstalling touch only what belongs to hitless."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hitless.cli.host import CONFIG, DATA, TEMPLATE, UNITS, HostUnits, stable_python
from hitless.cli.owner import read_environment
from hitless.engine.folders import Folders
from hitless.errors import MachineError, UsageError

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
def test_systemd_accepts_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "hitless@clock.service"
    unit.write_text(HostUnits(tmp_path, python=sys.executable).unit_text())
    for words in (["verify"], ["security", "--offline=true", "--threshold=30"]):
        done = subprocess.run(["systemd-analyze", *words, unit], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-300:] + done.stderr
        assert not done.stderr


def test_the_unit_allows_the_calls_by_which_handlers_isolate_themselves() -> None:
    """systemd 252's @system-service has none of these, and a forbidden call only shows as a missing measure."""
    lines = HostUnits(python=sys.executable).unit_text().splitlines()
    allowed = next(line for line in lines if line.startswith("SystemCallFilter=@")).split("=", 1)[1].split()
    landlock = {f"landlock_{call}" for call in ("create_ruleset", "add_rule", "restrict_self")}
    assert {"@mount", "seccomp", *landlock} <= {*allowed}


def test_the_unit_of_the_debian_package_outlives_the_version_that_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "1.0").mkdir()
    assert stable_python(str(tmp_path / "1.0")) is None
    (tmp_path / "current").symlink_to("1.0")
    assert stable_python(str(tmp_path / "1.0")) == str(tmp_path / "current/bin/python")
    (tmp_path / "2.0").mkdir()
    assert stable_python(str(tmp_path / "2.0")) is None
    (tmp_path / "1.0").rmdir()
    assert stable_python(str(tmp_path / "2.0")) is None, "a broken link beside any virtual environment"


def test_install_may_be_repeated_and_uninstall_leaves_nothing(tmp_path: Path) -> None:
    system = FakeSystem()
    host = host_in(tmp_path, system)
    host.install("clock")
    environment = host.at(CONFIG / "clock/engine.env")
    environment.write_text(environment.read_text() + "MORE=1\n")
    before = files_in(tmp_path)
    host.install("clock")
    assert files_in(tmp_path) == before
    assert read_environment(environment)["MORE"] == "1"
    assert "systemctl enable --now hitless@clock.service" in system.ran
    data = Folders.of(host.at(DATA / "clock"), {})
    assert data.is_managed
    assert data.run.parent == Path("/run/hitless-clock")
    assert host.names() == ["clock"]
    assert host.status()[0]["restarts"] == 2
    host.uninstall("clock")
    host.remove_template()
    assert files_in(tmp_path) == set()
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
