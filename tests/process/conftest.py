"""A service on real processes for the process tests, started by the command as a user would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hitless.api.client import EngineClient
from hitless.engine.folders import Folders
from hitless.workers.isolation import PATHS_VARIABLE
from tests.commands import run_hitless
from tests.support import eventually, gone

SERVICES = Path(__file__).parents[1] / "services"


@dataclass
class Ran:
    """A command's output and exit code."""

    exit_code: int
    document: Any
    stderr: str


@dataclass
class Site:
    """A copy of a test service with an engine's data folder of its own."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    url: str = ""

    @classmethod
    def plain(cls, place: Path) -> Site:
        """A copy of the plain test service in a folder of that place, not started."""
        folder = place / "plain"
        shutil.copytree(SERVICES / "plain", folder)
        return cls(folder)

    @property
    def folders(self) -> Folders:
        return Folders.of(self.folder / ".hitless", os.environ)

    def hitless(self, *words: str, exit_code: int | None = 0, timeout_s: float = 120, stdin: str | None = None) -> Ran:
        """Run a verb with --json; fails if it does not end with `exit_code` (None: any)."""
        done = run_hitless(
            *(*words, "--json", "--service-dir", str(self.folder)),
            environ=os.environ | self.environ,
            stdin=stdin or "",
            timeout_s=timeout_s,
        )
        assert exit_code in (None, done.code), f"hitless {words}: {done.code}\n{done.out}\n{done.err}"
        return Ran(done.code, json.loads(done.out) if done.out.strip() else None, done.err)

    def allow(self, folder: Path) -> None:
        """Let the service's handlers write into the folder, which must be empty or hold what any user may write."""
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        self.environ[PATHS_VARIABLE] = str(folder)

    def up(self, *words: str) -> Any:
        """Start the engine and set `url` to the dev stage's."""
        status = self.hitless("up", "--detach", *words).document
        self.url = next(stage["url"] for stage in status["stages"] if stage["stage"] == "dev")
        return status

    def status(self) -> Any:
        """The `hitless status --json` document, without starting the command."""
        return EngineClient(self.folders.api_socket).call("GET", "/status")

    def stage(self, name: str = "dev") -> Any:
        return next(stage for stage in self.status()["stages"] if stage["stage"] == name)

    def edit(self, old: str, new: str, file: str = "handlers.py") -> None:
        """Change the service's code."""
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def touch(self, text: str) -> None:
        """Make a change that gives another release with the same behaviour."""
        (self.folder / "marker.txt").write_text(text)

    def get(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, dict[str, str], Any]:
        """Send one request on its own connection: status, headers in lower case, JSON body."""
        request = urllib.request.Request(self.url + path, data=body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as response:
                return response.status, {k.lower(): v for k, v in response.headers.items()}, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {k.lower(): v for k, v in error.headers.items()}, json.load(error)

    def end(self) -> None:
        """Stop everything; fails if a process of the engine survives."""
        self.hitless("down", "--force", exit_code=None)
        eventually(lambda: not self.folders.remains(), what="every process of the engine has ended")


def kill(pid: int) -> None:
    """SIGKILL the process and wait for its end."""
    assert pid > 1, "0 is the tests' own process group"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid), what=f"process {pid} has ended")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The plain test service, not started."""
    place = Site.plain(tmp_path)
    yield place
    place.end()


@pytest.fixture
def running(site: Site) -> Site:
    """The plain test service, running."""
    site.up()
    return site


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The plain test service, running for all tests of a module."""
    place = Site.plain(tmp_path_factory.mktemp("shared"))
    place.up()
    yield place
    place.end()


@pytest.fixture
def shared(module_site: Site) -> Iterator[Site]:
    """A running engine for tests after which release 1 is live; each begins with the service's own files."""
    for left in module_site.folder.iterdir():
        if left.is_file() and not (SERVICES / "plain" / left.name).exists():
            left.unlink()
    shutil.copytree(SERVICES / "plain", module_site.folder, dirs_exist_ok=True)
    yield module_site
    stage = module_site.stage()
    assert (stage["live"]["release"], stage["candidate"]) == (1, None), "the next test needs release 1"
