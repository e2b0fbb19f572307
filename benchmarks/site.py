"""A service and an engine of its own, in a temporary folder, driven by the `hitless` command as a user would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import HITLESS, BenchmarkError
from hitless.engine.folders import Folders

SERVICE = Path(__file__).with_name("service")


@dataclass(frozen=True, slots=True)
class Ran:
    """A command's document, when it began and ended (wall clock), and its messages with the instant each came."""

    document: Any
    began_at: float
    ended_at: float
    messages: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Site:
    """A service's folder whose engine listens on a free port."""

    folder: Path
    data: Path | None = None
    """The engine's folder where the service does not have its own."""

    @property
    def handler(self) -> Path:
        """The module of its handler."""
        scaffolded = self.folder / "app" / "api.py"
        return scaffolded if scaffolded.exists() else self.folder / "handlers.py"

    def hitless(self, *words: str, exit_codes: Sequence[int] = (0,)) -> Ran:
        """Run a verb with --json. Raises BenchmarkError where it ends otherwise."""
        began_at = time.time()
        command = [str(HITLESS), *words, "--json", "--service-dir", str(self.folder)]
        command += ["--data-dir", str(self.data)] if self.data else []
        # A file for the document: a pipe that nobody reads while messages are read would stop a command that says much.
        with tempfile.TemporaryFile("w+") as document:
            with subprocess.Popen(command, stdout=document, stderr=subprocess.PIPE, text=True) as process:
                assert process.stderr is not None
                messages = tuple((time.time(), line.rstrip("\n")) for line in process.stderr)
            document.seek(0)
            output = document.read()
        ended_at = time.time()
        if process.returncode not in exit_codes:
            said = " | ".join(line for _, line in messages[-3:])
            raise BenchmarkError(f"hitless {' '.join(words)} ended with {process.returncode}: {said}")
        return Ran(json.loads(output), began_at, ended_at, messages)

    def status(self) -> Any:
        """The contract's status document."""
        return self.hitless("status").document

    def url(self) -> str:
        """Where the service answers."""
        return str(self.status()["stages"][0]["url"])

    def roots(self) -> list[int]:
        """The processes that all others of the engine descend from."""
        engine = self.status()["engine"]
        return [engine[name] for name in ("pid", "guardian_pid", "gateway_pid", "root_zygote_pid")]

    def worker_sockets(self) -> list[Path]:
        """The sockets of the one pool that runs."""
        return sorted((Folders.of(self.folder / ".hitless", os.environ).run / "w").glob("*/g*/w*.sock"))


@contextmanager
def running(folder: Path) -> Iterator[Site]:
    """The service's engine is up; afterwards it is down, whatever happened."""
    site = Site(folder)
    try:
        site.hitless("up", "--detach", "--listen", "127.0.0.1:0")
        yield site
    finally:
        subprocess.run(
            [str(HITLESS), "down", "--force", "--service-dir", str(folder)], capture_output=True, check=False
        )


@contextmanager
def plain_service(*, edit: Callable[[Path], None] = lambda folder: None) -> Iterator[Site]:
    """The service that answers one small JSON, with two workers, or as `edit` makes it."""
    with _temporary() as folder:
        shutil.copytree(SERVICE, folder / "bench", ignore=shutil.ignore_patterns("__pycache__", ".hitless"))
        edit(folder / "bench")
        with running(folder / "bench") as site:
            yield site


@contextmanager
def scaffolded_service() -> Iterator[Site]:
    """What `hitless init` makes, with one smoke request and a number of workers that can be changed."""
    with _temporary() as folder:
        subprocess.run([str(HITLESS), "init", str(folder / "hello")], check=True, capture_output=True)
        set_workers(folder / "hello", 2)
        with running(folder / "hello") as site:
            yield site


def set_workers(service: Path, workers: int, *, guard_s: int = 30) -> None:
    """Write the scaffold's settings anew with that many workers; for `guard_s` the release before stays beside it."""
    file = service / "serverless.yml"
    kept = file.read_text().partition("\ncustom:\n")[0]
    file.write_text(
        f"{kept}\ncustom:\n  hitless:\n    workers: {workers}\n    stages:\n      dev:\n"
        f"        smoke: [GET /health]\n        alarms: {{guard_s: {guard_s}}}\n"
    )


def change_code(module: Path) -> None:
    """A change of code that changes nothing else."""
    with module.open("a") as file:
        file.write(f"# {time.time_ns()}\n")


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hitless-bench-") as folder:
        yield Path(folder)
