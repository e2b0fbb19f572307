"""Ships a drill's releases with the `hitless` command, as a user would, at the home of the original service."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.documents import convert
from hitless.errors import ConflictError, EngineNotRunningError, HitlessError, UsageError

TIMEOUT_S = 1_800.0
ERROR = "error"


@dataclass(frozen=True, slots=True)
class Shipped:
    """The result of one rollout. `outcome` is the deploy document's, or `error` if there was no rollout.

    `candidate`, the gateway's counts of the release's requests, and `steps` come from the same document.
    """

    release: int | None
    outcome: str
    reason: str | None = None
    candidate: Mapping[str, Any] | None = None
    steps: Sequence[Mapping[str, Any]] = ()


class Shipper:
    """Runs `python -m hitless …` for one stage, each in its own session, because the drill handles Ctrl-C."""

    def __init__(
        self,
        *,
        service_dir: Path,
        data_dir: Path,
        stage: str,
        strategy: str | None,
        home: str | None,
        read_status: Callable[[], Mapping[str, Any]],
    ) -> None:
        """`read_status` reads the status without a new process, so that recovery is measured precisely."""
        self._read_status = read_status
        self._service_dir, self.data_dir = service_dir, data_dir
        self._options = ["--data-dir", str(data_dir), "--stage", stage, "--json", "--yes"]
        self._strategy = ["--strategy", strategy] if strategy else []
        self._home = ["--home", home] if home else []

    async def status(self) -> Mapping[str, Any]:
        """The document of `hitless status --json`. Raises EngineNotRunningError."""
        return await asyncio.to_thread(self._read_status)

    async def deploy(self, folder: Path, *, message: str, strategy: str | None = None) -> Shipped:
        """Ship the code in `folder`, even if nothing has changed, and wait for the end."""
        by = ["--strategy", strategy] if strategy else self._strategy
        return await self._ship("deploy", folder, "--force", "--message", message, *by)

    async def rollback(self, release: int | None) -> Shipped:
        """Ship an earlier release (None: the previous one) and wait for the end."""
        number = [] if release is None else [str(release)]
        return await self._ship("rollback", self._service_dir, *number)

    async def digests(self, folder: Path) -> Mapping[str, str]:
        """The artifact of each function that `folder` would ship."""
        return dict((await self._run("deploy", folder, "--dry-run", *self._home))["artifacts"])

    async def up(self) -> None:
        """Start the engine, which adopts worker processes that are still running."""
        await self._run("up", self._service_dir, "--detach")

    async def _ship(self, verb: str, folder: Path, *arguments: str) -> Shipped:
        try:
            return convert(await self._run(verb, folder, *arguments, *self._home), Shipped, f"hitless {verb}")
        except HitlessError as error:
            return Shipped(None, ERROR, error.message)

    async def _run(self, verb: str, folder: Path, *arguments: str) -> dict[str, Any]:
        """The document of one command. Raises as `document_of` does."""
        command = [sys.executable, "-m", "hitless", verb, *arguments, "--service-dir", str(folder), *self._options]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
        except BaseException as error:
            process.kill()
            await process.communicate()
            if isinstance(error, TimeoutError):
                raise ConflictError(f"`hitless {verb}` did not end within {TIMEOUT_S:.0f} s") from error
            raise
        return document_of(verb, process.returncode or 0, out, err)


def document_of(verb: str, code: int, out: bytes, err: bytes) -> dict[str, Any]:
    """The document of a command that succeeded or reported an outcome.

    Otherwise raises UsageError, EngineNotRunningError or ConflictError, with the error message or the last line of
    stderr.
    """
    try:
        document = json.loads(out)
    except ValueError:
        document = None
    if isinstance(document, dict):
        if code == 0 or "outcome" in document:
            return document
        error = document.get("error") or {}
    else:
        said = err.decode(errors="replace").strip().splitlines()
        error = {"message": said[-1] if said else f"`hitless {verb}` wrote no document"}
    kinds: Mapping[int, type[HitlessError]] = {2: UsageError, 5: EngineNotRunningError}
    raise kinds.get(code, ConflictError)(
        str(error.get("message") or f"hitless exited with status {code} and named no error"),
        hint=str(error.get("hint") or ""),
    )


def stage_of(status: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    """One stage of a status document. Raises UsageError if the engine has no such stage."""
    stages: Sequence[Mapping[str, Any]] = status.get("stages") or ()
    for one in stages:
        if one.get("stage") == stage:
            return one
    names = ", ".join(str(one.get("stage")) for one in stages)
    raise UsageError(
        f"the engine has no stage {stage!r}", hint=f"its stages are {names}" if names else "run `hitless up`"
    )
