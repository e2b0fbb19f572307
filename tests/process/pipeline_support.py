"""A service in a git repository beside an engine, for the tests of the pipeline."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from hitless.api.client import EngineClient
from hitless.drill.requests import DrillRequest
from hitless.pipeline.rehearsal.load import Driven
from hitless.pipeline.workshop import Workshop
from tests.process.conftest import Site
from tests.support import eventually

TESTS = """version: 0.2
phases:
  build:
    commands:
      - python -c "import handlers; assert handlers.answer({})['statusCode'] == 200"
"""
STAGES = """    stages:
      dev: {listen: '127.0.0.1:0', alarms: {guard_s: 0}}
      staging: {listen: '127.0.0.1:0', strategy: Canary30Percent2Seconds, rehearsal: {beside_s: 2},
                alarms: {minimum_requests: 5}}
      prod: {listen: '127.0.0.1:0', strategy: Canary20Percent1Second, rehearsal: {beside_s: 2}, approval: manual}
"""
REQUESTS = (
    DrillRequest("GET", "/fast"),
    DrillRequest("GET", "/release"),
    DrillRequest("POST", "/echo", (("Idempotency-Key", "of-the-load"),), b"{}"),
)
ENDED = ("succeeded", "failed", "rejected", "superseded", "interrupted")


@dataclass
class Team:
    """The developer's clone is the site's own folder; `url` is the engine's repository."""

    site: Site
    stages: str = STAGES
    buildspec: str = TESTS
    url: str = ""
    first: str = ""

    def git(self, *words: str, exit_code: int | None = 0) -> str:
        """Run git in the clone; what it printed on both streams."""
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *who, *words],
            cwd=self.site.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
            env=environ,
        )
        assert exit_code in (None, done.returncode), f"git {words}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def begin(self) -> None:
        """A repository with one commit on dev, an engine that serves it, and its remote `engine`."""
        (self.site.folder / ".gitignore").write_text(".hitless/\n__pycache__/\n")
        (self.site.folder / "buildspec-test.yml").write_text(self.buildspec)
        file = self.site.folder / "serverless.yml"
        file.write_text(file.read_text().partition("    stages:")[0] + self.stages)
        self.git("init", "--quiet", "--initial-branch=dev")
        self.first = self.commit("first")
        self.site.up()
        self.url = self.site.hitless("pipeline", "url").document["url"]
        self.git("remote", "add", "engine", self.url)

    @contextmanager
    def at_work(self) -> Iterator[Self]:
        """Begun; in the end its engine is gone, and what its builds left."""
        try:
            self.begin()
            yield self
        finally:
            self.site.end()
        work = Workshop.of(self.site.folders.data, os.environ).work
        assert work.is_relative_to(self.site.folders.data) or not work.exists(), "the engine's end leaves nothing"

    def reset(self) -> None:
        """Back on dev, with what the first commit held."""
        self.git("switch", "--quiet", "dev")
        self.git("checkout", "--quiet", self.first, "--", ".")
        self.commit("as it was first")

    def last_run(self) -> int:
        """The newest run's number; 0 where there is none."""
        return next((int(run["run"]) for run in self.runs()), 0)

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def push(self, *what: str, exit_code: int = 0) -> str:
        return self.git("push", "engine", *what, exit_code=exit_code)

    def push_in_background(self, *what: str) -> subprocess.Popen[str]:
        """A push that continues in the background; its output has both streams."""
        words = ["git", "push", "engine", *what]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, cwd=self.site.folder, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def push_over_ssh(self, *what: str) -> str:
        """A push to HOST:PATH. For ssh stands a program that does what sshd does on the other side: it runs the command
        by a shell, in a fresh environment that says who came.
        """
        with tempfile.TemporaryDirectory() as folder:
            ssh = Path(folder) / "ssh"
            ssh.write_text(
                "#!/bin/sh\nfor last; do :; done\n"
                f'exec env -i PATH="{os.environ["PATH"]}" HOME="$HOME" SSH_CONNECTION="192.0.2.7 5022 192.0.2.1 22"'
                f' sh -c "$last"\n'
            )
            ssh.chmod(0o700)
            words = ["-c", f"core.sshCommand={ssh}", "-c", "ssh.variant=ssh"]
            return self.git(*words, "push", f"engine.example.org:{self.url}", *what)

    def runs(self) -> list[dict[str, Any]]:
        """Newest first, as `hitless pipeline runs --json` gives them."""
        found: list[dict[str, Any]] = EngineClient(self.site.folders.api_socket).call("GET", "/pipeline/runs")
        return found

    def run(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = EngineClient(self.site.folders.api_socket).call("GET", f"/pipeline/runs/{number}")
        return found

    def ended(self, number: int) -> dict[str, Any]:
        """The run, when it has ended."""

        def look() -> dict[str, Any] | None:
            found = self.run(number)
            return found if found["state"] in ENDED else None

        found = eventually(look, deadline_s=60, what=f"run {number} has ended")
        assert found is not None
        return found

    def log(self, number: int) -> str:
        file = self.site.folders.data / "pipeline" / "runs" / str(number) / "log"
        return file.read_text() if file.exists() else ""


def states(run: dict[str, Any]) -> dict[str, str]:
    """A run's steps by name."""
    return {step["name"]: step["state"] for step in run["steps"]}


def _to(requests: Sequence[DrillRequest], host: str | None) -> tuple[DrillRequest, ...]:
    return tuple(replace(one, headers=(("Host", host),)) if host else one for one in requests)


class LoadOnAll:
    """Sends the same safe requests to each stage, in a thread of its own, until the block ends."""

    def __init__(self, urls: dict[str, str], rate_per_s: float, *, hosts: Mapping[str, str] | None = None) -> None:
        """`hosts`: what is sent as Host instead of the URL's."""
        self.driven = {
            stage: Driven(url, _to(REQUESTS, (hosts or {}).get(stage)), rate_per_s) for stage, url in urls.items()
        }
        self._end, self._begun = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(30), "the load has begun"
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(one.start() for one in self.driven.values()))
        self._begun.set()
        await asyncio.to_thread(self._end.wait)
        await asyncio.gather(*(one.finish() for one in self.driven.values()))
