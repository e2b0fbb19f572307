"""Finding osls and Node, and the errors if one is missing or too old."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hitless.aws.osls import INSTALL_HINT, VERSION, find_osls
from hitless.errors import MachineError
from tests.support import eventually

pytestmark = pytest.mark.component

ROOT = Path(__file__).resolve().parents[2]


def program(path: Path, said: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {said}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder of programs that contains only a Node that is new enough."""
    return program(tmp_path / "bin" / "node", "v20.19.0").parent


def test_our_buildspecs_install_the_pinned_version_of_osls() -> None:
    pinned = json.loads((ROOT / "node" / "package.json").read_text("utf-8"))["dependencies"]["osls"]
    assert pinned == VERSION
    for file in ("src/hitless/templates/service", "examples/worldclock"):
        text = (ROOT / file / "buildspec-deploy.yml").read_text("utf-8")
        assert re.findall(r"osls@(\S+)", text) == [VERSION], file
    assert f"osls@{VERSION}`" in INSTALL_HINT


def test_the_services_own_osls_takes_precedence_over_the_one_beside_hitless(tmp_path: Path, beside: Path) -> None:
    service = tmp_path / "service"
    program(beside / "osls")
    assert find_osls(service, {}, beside=beside).command == (str(beside / "osls"),)
    own = program(service / "node_modules" / ".bin" / "osls")
    assert find_osls(service, {}, beside=beside).command == (str(own),)
    named = program(tmp_path / "elsewhere" / "osls")
    assert find_osls(service, {"HITLESS_OSLS": str(named)}, beside=beside).command == (str(named),)


def test_in_a_checkout_osls_is_found_without_a_link_beside_the_command(tmp_path: Path, beside: Path) -> None:
    (found,) = find_osls(tmp_path, {}, beside=beside).command
    assert found == str(ROOT / "node" / "node_modules" / ".bin" / "osls")


def test_osls_ends_with_the_hitless_process_that_started_it(tmp_path: Path) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    osls = tmp_path / "osls"
    osls.write_text(f"#!/bin/sh\nexec 3>{ended}.lock\nflock 3\ntouch {started}\nexec sleep 60\n")
    osls.chmod(0o755)
    code = (
        "import os; from pathlib import Path; from hitless.aws.osls import Osls; "
        f"Osls(({str(osls)!r},), dict(os.environ)).package(Path({str(tmp_path / 'overlay')!r}), "
        "stage='dev', region='eu-central-1', params={})"
    )
    (tmp_path / "overlay").mkdir()
    with subprocess.Popen([sys.executable, "-c", code]) as hitless:
        eventually(started.exists, what="osls began")
        hitless.kill()
    free = ["flock", "--nonblock", f"{ended}.lock", "true"]
    eventually(lambda: subprocess.run(free, check=False).returncode == 0, what="osls has ended")


def test_a_configured_osls_that_is_not_a_program_is_refused(tmp_path: Path, beside: Path) -> None:
    with pytest.raises(MachineError, match="HITLESS_OSLS=/nowhere/osls is not an executable file"):
        find_osls(tmp_path, {"HITLESS_OSLS": "/nowhere/osls"}, beside=beside)


def test_missing_node_is_an_error_that_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="Node is not installed") as missing:
        find_osls(tmp_path, {"PATH": str(tmp_path)}, beside=tmp_path)
    assert "scripts/setup --aws" in missing.value.hint
    assert "20.19" in missing.value.hint


@pytest.mark.parametrize("said", ["v18.19.1", "v20.18.3", "nonsense"])
def test_a_too_old_node_is_an_error_that_names_its_version(tmp_path: Path, beside: Path, said: str) -> None:
    program(beside / "node", said)
    with pytest.raises(MachineError, match=f"{beside}/node is Node {said}"):
        find_osls(tmp_path, {}, beside=beside)
