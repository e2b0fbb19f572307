"""`hitless upgrade` under load: from an earlier version to this one and back, and killed at each of its steps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hitless
from tests.process.conftest import SERVICES, Site
from tests.process.load import Wrk
from tests.support import eventually, gone

pytestmark = [pytest.mark.process, pytest.mark.long]

ROOT = Path(__file__).parents[2]
NEWER = "9.9.9"
EARLIER = "e1a6ead3094beae68a8132c207192c9a01dce24a"
"""0.1.0."""
BUILT_FROM = (".gitignore", "src", "scripts", "pyproject.toml", "README.md", "LICENSE", "sbom.cdx.json")


def build_wheel(version: str, folder: Path, commit: str | None = None) -> Path:
    """A wheel of this tree, or of a commit, under another version number.

    It has no compiled modules: to compile them takes minutes.
    """
    tree = folder / f"tree-{version}"
    tree.mkdir()
    if commit is not None:
        words = ["git", "-C", str(ROOT), "archive", commit, *BUILT_FROM]
        archive = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    for name in BUILT_FROM if commit is None else ():
        source = ROOT / name
        copy: Callable[[Path, Path], Any] = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tree / name)
    for file, line in (("pyproject.toml", 'version = "{}"'), ("src/hitless/__init__.py", '__version__ = "{}"')):
        text = (tree / file).read_text()
        assert text.count(line.format(hitless.__version__)) == 1
        (tree / file).write_text(text.replace(line.format(hitless.__version__), line.format(version)))
    words = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / version)]
    environ = {**os.environ, "HITLESS_COMPILED": "0"}
    done = subprocess.run(words, cwd=tree, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    return next((folder / version).glob("*.whl"))


@dataclass
class Installation:
    """An environment with one version of hitless at a time, and its dependencies."""

    folder: Path

    def __post_init__(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.folder)], check=True)

    def install(self, wheel: Path) -> None:
        """Install a wheel in place of the version that is there."""
        words = ["uv", "pip", "install", "--quiet", "--reinstall-package", "hitless", "--python", str(self.folder)]
        subprocess.run([*words, str(wheel)], check=True, env={**os.environ, "PATH": _path()})

    def command(self, *words: str) -> list[str]:
        return [str(self.folder / "bin" / "python"), "-m", "hitless", *words]

    def run(self, *words: str) -> Any:
        """Run a verb with --json; returns its document."""
        done = subprocess.run(self.command(*words, "--json"), capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def _path() -> str:
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


def processes(site: Site) -> dict[str, int]:
    """The pid of each process that an upgrade replaces."""
    status = site.status()
    found = {name: pid for name, pid in status["engine"].items() if name.endswith("pid") and pid}
    for function in status["stages"][0]["functions"]:
        found[f"zygote of {function['name']}"] = function["zygote_pid"]
        found |= {f"{function['name']} {i}": worker["pid"] for i, worker in enumerate(function["workers"])}
    return found


def listener_of(port: int) -> set[str]:
    """The inodes of the sockets that listen on a port (proc(5), /proc/net/tcp; state 0A is LISTEN)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}


def holds(pid: int, inode: str) -> bool:
    names = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()]
    return f"socket:[{inode}]" in names


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_installed_version_is_upgraded_to_another_and_back_and_no_request_fails(site: Site, tmp_path: Path) -> None:
    wheels = {
        hitless.__version__: build_wheel(hitless.__version__, tmp_path, EARLIER),
        NEWER: build_wheel(NEWER, tmp_path),
    }
    installed = Installation(tmp_path / "venv")
    installed.install(wheels[hitless.__version__])
    at = ("--service-dir", str(site.folder))
    site.url = installed.run("up", "--detach", *at)["stages"][0]["url"]
    port = int(site.url.rpartition(":")[2])
    (inode,) = listener_of(port)
    with Wrk(site.url, connections=8, slow_one_in=50) as load:
        for number, version in enumerate((NEWER, hitless.__version__)):
            before = processes(site)
            installed.install(wheels[version])
            upgraded = installed.run("upgrade", *at)
            after = processes(site)
            assert upgraded["version"] == version == site.status()["engine"]["version"]
            assert not set(before.values()) & set(after.values()), (before, after)
            assert before.keys() == after.keys()
            assert listener_of(port) == {inode}, "handed over, not bound again"
            assert all(holds(after[name], inode) for name in ("pid", "guardian_pid", "gateway_pid"))
            for pid in before.values():
                eventually(lambda pid=pid: gone(pid), what=f"end of {pid}", deadline_s=70)  # type: ignore[misc]
            site.touch(f"release {number}")
            assert installed.run("deploy", *at)["outcome"] == "live"
        assert load.running, "the load outlasted the upgrades"
        seen = load.end()
    assert seen.failed == 0, seen
    assert seen.requests > 500


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("upgrade") / "plain"
    shutil.copytree(SERVICES / "plain", folder)
    site = Site(folder)
    site.up()
    yield site
    site.end()


@pytest.mark.parametrize("step", ["start", "daemon", "guardian", "spooler", "root zygote", "zygote", "HAProxy"])
def test_an_upgrade_that_is_killed_fails_no_request_and_the_next_one_completes(shared: Site, step: str) -> None:
    before = processes(shared)
    with Wrk(shared.url, connections=4, slow_one_in=50) as load:
        words = [sys.executable, "-m", "hitless", "upgrade", "--force", "--service-dir", str(shared.folder)]
        with tempfile.TemporaryFile("w+") as said, subprocess.Popen(words, stderr=said, stdout=said) as command:

            def reached() -> bool:
                if step == "start":
                    return not shared.folders.engine_is_alive()
                said.seek(0)
                return f"\n{step}" in f"\n{said.read()}"

            eventually(reached, what=step, deadline_s=60)
            command.send_signal(signal.SIGKILL)
        eventually(lambda: shared.hitless("upgrade", exit_code=None).exit_code == 0, what="the next", deadline_s=60)
        after = processes(shared)
        assert load.running
        seen = load.end()
    assert not set(before.values()) & set(after.values()), (before, after)
    assert shared.hitless("upgrade").document["replaced"] == []
    assert shared.get("/release")[0] == 200
    assert seen.failed == 0, seen
    assert seen.requests > 50
