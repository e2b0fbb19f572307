"""The engine of one rehearsal, with its own data folder and ports. It ends with the block, or with this process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hitless.api.client import EngineClient
from hitless.api.requests import DeployRequest, ShutdownRequest
from hitless.artifact.trees import remove
from hitless.cli.settings import Address, EngineSettings
from hitless.cli.up import await_end, start_daemon
from hitless.engine.folders import Folders, hold
from hitless.errors import EngineError, HitlessError
from hitless.pipeline.rehearsal.leftovers import PREFIX, REHEARSAL_LOCK, sweep
from hitless.pipeline.rehearsal.rehearse import CANDIDATE_STAGE
from hitless.pipeline.rehearsal.sandbox import stock
from hitless.release.document import ReleaseDocument

END_DEADLINE_S = 30.0


class SandboxedEngine:
    """The sandbox's engine over its API."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client

    def deploy(self, stage: str, document: ReleaseDocument, strategy: str) -> dict[str, Any]:
        """Ship it and wait for the end; the rollout's document."""
        body = DeployRequest(document.to_json(), strategy, force=True)
        result: dict[str, Any] = {}
        for line in self._client.stream("POST", f"/stages/{stage}/deploy", body):
            result = line.get("result") or result
        return result

    def status(self) -> dict[str, Any]:
        """What runs, as `hitless status --json` has it."""
        return dict(self._client.call("GET", "/status"))


@contextmanager
def sandbox(artifacts: Path, live: ReleaseDocument, candidate: ReleaseDocument) -> Iterator[SandboxedEngine]:
    """A running engine with the stage and one for the candidate alone; both releases' bytes come from `artifacts`.

    Every process and file of it ends with the block, and with this process: `warden` sees to that.
    """
    sweep_leftovers()
    with (
        tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as root,
        os.fdopen(hold(Path(root) / REHEARSAL_LOCK), "rb"),  # says that a rehearsal looks after this sandbox
    ):
        folders = Folders.of(Path(root) / "data", os.environ)
        folders.create()
        stages = (live.settings.name, CANDIDATE_STAGE)
        functions = max(len(live.functions), len(candidate.functions))
        EngineSettings(live.service, tuple(Address(one, "127.0.0.1", 0) for one in stages), functions).write(folders)
        with _daemon(folders, root) as client:
            stock(artifacts, folders.artifacts, live, candidate)
            yield SandboxedEngine(client)


def sweep_leftovers() -> int:
    """Stop and delete the sandboxes that killed rehearsals left behind; return their number."""
    return sweep(Path(tempfile.gettempdir()), _end)


def _end(root: Path) -> None:
    folders = Folders.of(root / "data", os.environ)
    if folders.remains():
        if not folders.engine_is_alive():
            start_daemon(folders)  # it adopts the processes of its predecessor
        EngineClient(folders.api_socket).call("POST", "/shutdown", ShutdownRequest(force=True))
        if not await_end(folders, END_DEADLINE_S):
            raise EngineError(f"the sandbox's processes in {root} are still running", hint="the next rehearsal retries")
    remove(folders.run)


@contextmanager
def _daemon(folders: Folders, root: str) -> Iterator[EngineClient]:
    """The sandbox's daemon under its warden, stopped in good order at the block's end."""
    client = EngineClient(folders.api_socket)
    ended, alive = os.pipe()  # neither is inherited by anything but the warden
    try:
        under = [sys.executable, "-m", "hitless.processes.rehearsal_warden", root, str(folders.run), "--"]
        warden = start_daemon(folders, under=under, stdin=ended)
        try:
            yield client
        finally:
            with suppress(HitlessError):  # a daemon that died took all of its parts along
                client.call("POST", "/shutdown", ShutdownRequest(force=True))
            with suppress(subprocess.TimeoutExpired):
                warden.wait(END_DEADLINE_S)
    finally:
        os.close(ended)
        os.close(alive)
    warden.wait()
