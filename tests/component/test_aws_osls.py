"""Finding osls and Node, and the errors if one is missing or too old."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


WORKFLOW = ROOT / "src/hitless/templates/github/dot-github/workflows/deploy.yml"
SCAFFOLD, EXAMPLE = ROOT / "src/hitless/templates/service", ROOT / "examples/worldclock"
RELOCK = "run scripts/lock"


def test_the_pinned_version_of_osls_is_the_one_that_scaffolds_lock() -> None:
    pinned = json.loads((ROOT / "node" / "package.json").read_text("utf-8"))["dependencies"]["osls"]
    assert pinned == VERSION
    assert f"osls@{VERSION}`" in INSTALL_HINT
    locked = json.loads((SCAFFOLD / "deploy" / "package-lock.json").read_text("utf-8"))["packages"]
    assert locked.pop("")["dependencies"] == {"osls": VERSION}, RELOCK
    assert locked["node_modules/osls"]["version"] == VERSION, RELOCK
    assert all(one["integrity"].startswith("sha512-") and "resolved" not in one for one in locked.values()), RELOCK


def test_the_deploy_step_installs_only_what_versions_and_hashes_lock() -> None:
    """pip's documentation, secure-installs: `--require-hashes` for all dependencies, and `--no-deps` for what has none.
    npm's, npm-ci: the lock file decides, and is never written.
    """
    for file in (SCAFFOLD / "buildspec-deploy.yml", SCAFFOLD / "buildspec-test.yml", WORKFLOW):
        installs = [line for line in file.read_text("utf-8").splitlines() if "pip install" in line or " npm " in line]
        loose = [
            line for line in installs if not re.search(r"--require-hashes|--no-deps --no-build-isolation|npm ci ", line)
        ]
        assert not [line for line in loose if "-r requirements.txt -r requirements-dev.txt" not in line], file
        assert len(installs) >= 2, file


def test_the_deploy_lock_has_every_dependency_of_hitless() -> None:
    text = (SCAFFOLD / "deploy" / "requirements.txt").read_text("utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; .*)? \\$", text, re.MULTILINE))
    assert text.count("--hash=sha256:") > len(locked) > 30
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = map(Requirement, [*project["project"]["dependencies"], *project["build-system"]["requires"]])
    wrong = [str(one) for one in wanted if not one.specifier.contains(locked.get(canonicalize_name(one.name), "0"))]
    assert not wrong, RELOCK
    for name in ("package.json", "package-lock.json", "requirements.txt"):
        assert (EXAMPLE / "deploy" / name).read_bytes() == (SCAFFOLD / "deploy" / name).read_bytes(), RELOCK


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
