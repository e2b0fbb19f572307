"""From a service's folder to a rollout: load, build, send, follow. Shared by `up`, `deploy`, `rollback` and `abort`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hitless.api.client import EngineClient
from hitless.artifact.build import build
from hitless.artifact.store import ArtifactStore
from hitless.cli.common import Context, Ended, read_service
from hitless.engine.folders import Folders
from hitless.errors import EngineNotRunningError
from hitless.pipeline.package import configuration
from hitless.release.document import ArtifactRef, ReleaseDocument
from hitless.release.result import Outcome
from hitless.release.who import Who
from hitless.service.closed import check_served
from hitless.service.model import Service
from hitless.store.store import ReleaseRow, Store


def folders_of(ctx: Context) -> Folders:
    """The folders of the engine that the common options name."""
    return Folders.of(ctx.data_dir, os.environ)


def client_of(ctx: Context) -> EngineClient:
    """A client of the running engine. Raises EngineNotRunningError where none runs."""
    folders = folders_of(ctx)
    if not folders.engine_is_alive():
        raise EngineNotRunningError(f"no engine runs on {folders.data}", hint=_how_to_start(ctx, folders))
    return EngineClient(folders.api_socket)


def _how_to_start(ctx: Context, folders: Folders) -> str:
    if folders.remains():
        return "start it with `hitless up`: it adopts what still serves"
    if not folders.data.exists() and not has_service_file(ctx):
        return f"{ctx.service_dir} has no serverless.yml: go to the service's folder, or name it with --service-dir"
    return "start it with `hitless up`"


def has_service_file(ctx: Context) -> bool:
    """Whether there is a service in the folder that the common options name."""
    return any((ctx.service_dir / f"serverless.{end}").exists() for end in ("yml", "yaml"))


def caller() -> dict[str, Any]:
    """Who calls, as far as the environment says; the engine adds the user, whom the kernel tells it."""
    return Who.of_environment(os.environ).to_json()


def load(ctx: Context) -> Service:
    """The service of the folder, with its notices shown once. Raises ServiceFileError."""
    service = read_service(ctx)
    tell_notices(ctx, service)
    return service


def tell_notices(ctx: Context, service: Service) -> None:
    """Say what the file asks for and the engine does not do. ServiceFileError if that is why it refuses the service."""
    for notice in service.notices:
        ctx.say(f"note: {notice}")
    check_served(service)


def build_document(ctx: Context, service: Service, *, message: str | None = None) -> ReleaseDocument:
    """Build the artifacts and describe the release. Raises BuildError or MachineError; leaves nothing half-done."""
    folders = folders_of(ctx)
    folders.create()
    built = build(service, ArtifactStore(folders.artifacts), say=ctx.say)
    for warning in built.warnings:
        ctx.say(f"warning: {warning}")
    artifacts = {name: ArtifactRef(artifact.digest, artifact.local) for name, artifact in built.by_function.items()}
    return replace(configuration(service), artifacts=artifacts, commit=commit_of(service.folder), message=message)


def commit_of(folder: Path) -> str | None:
    """The git commit that the folder stands at, with `-dirty` where files differ from it; None outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def recorded(ctx: Context, release: int | None = None) -> ReleaseRow | None:
    """A release of the stage, the live one by default, as the state file has it; None where it has none. The engine
    need not run.
    """
    file = folders_of(ctx).state_file
    if not file.exists():
        return None
    with closing(Store(file, read_only=True)) as store:
        number = release if release is not None else next(iter(store.live(ctx.stage) or ()), None)
        return store.release(ctx.stage, int(number)) if number is not None else None


class Progress:
    """Shows steps of a rollout. On a terminal the current step stands on one line that is rewritten."""

    def __init__(self, *, live: bool, say: Callable[[str], None]) -> None:
        self._live, self._say, self._written = live, say, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._written:
            sys.stderr.write("\n")

    def step(self, step: dict[str, Any]) -> None:
        """One step as the API gives it."""
        note = f" ({step['note']})" if step.get("note") else ""
        text = f"{step['state']:<12} {step['weight_percent']:>3} %{note}"
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{text}" + "\n" * bool(note))
            sys.stderr.flush()
            self._written = not note
        else:
            self._say(f"{step['at']}  {text}")


def follow(ctx: Context, lines: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    """Show each step of a rollout while it runs; its result, or None where it was only started (`--no-wait`)."""
    with Progress(live=sys.stderr.isatty(), say=ctx.say) as progress:
        for line in lines:
            if "step" in line:
                stop = f"`hitless abort --stage {ctx.stage}` stops it; `hitless status` shows it"
                ctx.goes_on[:] = (
                    f"interrupted: the rollout of release {line.get('release', '?')} goes on in the engine",
                    stop,
                )
                progress.step(line["step"])
            elif "started" in line:
                release = line["started"]["release"]
                ctx.show(line["started"], lambda: f"release {release} is on its way; see `hitless status`")  # noqa: B023
                return None
            elif "result" in line:
                return dict(line["result"])
    return None


def conclude(ctx: Context, result: dict[str, Any]) -> None:
    """Show a rollout's result; raises Ended where it did not go live."""
    outcome = Outcome(result["outcome"])
    ctx.show(result, lambda: _sentence(result, outcome))
    if outcome.exit_code:
        release = result["release"]
        hint = f"`hitless logs --release {release}` and `hitless releases {release}` tell more" + (
            "; the live release was not touched" if result.get("live") else ""
        )
        raise Ended(outcome.exit_code, f"release {release} was {outcome.replace('_', ' ')}: {result['reason']}", hint)


def _sentence(result: dict[str, Any], outcome: Outcome) -> str:
    match outcome:
        case Outcome.UNCHANGED:
            return f"release {result['release']} is live already: nothing has changed"
        case Outcome.LIVE:
            candidate, live = result["candidate"], result["live"]
            counted = f"; {candidate['failed'] + (live['failed'] if live else 0)} requests failed meanwhile"
            return f"release {result['release']} is live in {result['stage']} ({result['duration_s']:.2f} s{counted})"
        case _:
            return f"release {result['release']}: {outcome.replace('_', ' ')}"
