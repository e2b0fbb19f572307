"""Ships a drill's releases with the `hitless` command, as a user would, at the home of the original service."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hitless.errors import ConflictError, EngineNotRunningError, HitlessError, UsageError

TIMEOUT_S = 1_800.0
ERROR = "error"


@dataclass(frozen=True, slots=True)
class Shipped:
    """How one rollout ended. `outcome` is that of the deploy document, or `error` if there was no rollout.

    `candidate`, the gateway's counts of the release's requests, and `steps` come from the same document.
    """

    release: int | None
    outcome: str
    reason: str | None = None
    candidate: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()


class Shipper(Protocol):
    """What a drill needs from the home of a service, the engine or AWS."""

    async def status(self) -> Mapping[str, Any]:
        """The document of `hitless status --json`. Raises EngineNotRunningError."""
        ...

    async def deploy(self, folder: Path, *, message: str, strategy: str | None = None) -> Shipped:
        """Ship what is in `folder`, even if nothing has changed, and wait for the end."""
        ...

    async def rollback(self, release: int | None) -> Shipped:
        """Ship an earlier release (None: the one before) and wait for the end."""
        ...

    async def digests(self, folder: Path) -> Mapping[str, str]:
        """The artifact of each function that `folder` would ship."""
        ...

    async def up(self) -> None:
        """Start the engine, which adopts worker processes that still run."""
        ...


class CommandShipper:
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
        self._service_dir = service_dir
        self._options = ["--data-dir", str(data_dir), "--stage", stage, "--json", "--yes"]
        self._strategy = ["--strategy", strategy] if strategy else []
        self._home = ["--home", home] if home else []

    async def status(self) -> Mapping[str, Any]:
        return await asyncio.to_thread(self._read_status)

    async def deploy(self, folder: Path, *, message: str, strategy: str | None = None) -> Shipped:
        by = ["--strategy", strategy] if strategy else self._strategy
        return outcome_of(await self._run("deploy", folder, "--force", "--message", message, *by, *self._home))

    async def rollback(self, release: int | None) -> Shipped:
        number = [] if release is None else [str(release)]
        return outcome_of(await self._run("rollback", self._service_dir, *number, *self._home))

    async def digests(self, folder: Path) -> Mapping[str, str]:
        return dict(document_or_raise(await self._run("deploy", folder, "--dry-run", *self._home))["artifacts"])

    async def up(self) -> None:
        document_or_raise(await self._run("up", self._service_dir, "--detach"))

    async def _run(self, verb: str, folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit code and document of one command."""
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
        except TimeoutError:
            process.kill()
            await process.communicate()
            return 1, _error(f"`hitless {verb}` did not end within {TIMEOUT_S:.0f} s")
        except BaseException:
            process.kill()
            await process.communicate()
            raise
        return process.returncode or 0, document_of(verb, out, err)


def document_of(verb: str, out: bytes, err: bytes) -> dict[str, Any]:
    """The document that a command wrote. If it wrote none, an error document with the last line of its output."""
    try:
        document = json.loads(out)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    said = err.decode(errors="replace").strip().splitlines()
    return _error(said[-1] if said else f"`hitless {verb}` wrote no document")


def _error(message: str) -> dict[str, Any]:
    return {"error": {"code": "failed", "message": message, "hint": "", "details": {}}}


def outcome_of(result: tuple[int, dict[str, Any]]) -> Shipped:
    """The outcome in (exit code, document) of a command."""
    code, document = result
    if "outcome" not in document:
        error = document.get("error") or {}
        return Shipped(
            None, ERROR, str(error.get("message") or f"hitless exited with status {code} and named no error")
        )
    return Shipped(
        document.get("release"),
        document["outcome"],
        document.get("reason"),
        document.get("candidate") or {},
        document.get("steps") or (),
    )


def document_or_raise(result: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    """The document of a command that succeeded. Raises UsageError, EngineNotRunningError or ConflictError."""
    code, document = result
    if code == 0:
        return document
    error: Mapping[str, Any] = document.get("error") or {}
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
