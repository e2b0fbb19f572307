"""`hitless rehearse`: the candidate over a copy of what is live, in a sandbox of its own, under load. May it ship?"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hitless.api.client import EngineClient
from hitless.cli.common import Context, Ended, command, positive
from hitless.cli.settings import Address, Settings
from hitless.cli.shipping import build_document, folders_of, load
from hitless.cli.up import start_daemon
from hitless.drill.requests import read_requests
from hitless.engine.folders import Folders
from hitless.errors import ConflictError, EngineError, UsageError
from hitless.pipeline.rehearsal.rehearse import CANDIDATE_STAGE, Pace, Rehearsal
from hitless.pipeline.rehearsal.sandbox import stock
from hitless.rollout.release import ReleaseDocument
from hitless.service.model import Service
from hitless.store.store import Store

END_DEADLINE_S = 30.0


def register(app: typer.Typer) -> None:
    @command(app, "rehearse", example="hitless rehearse --stage staging")
    def rehearse(
        ctx: Context,
        against: Annotated[
            Path | None,
            typer.Option(
                "--against", help="A folder with the service as it is live; default: the engine's live release."
            ),
        ] = None,
        requests: Annotated[
            Path | None, typer.Option("--requests", help="JSON lines to send, as the drill takes them.")
        ] = None,
        rate: Annotated[float, typer.Option("--rate", help="Requests a second on each side, at least.")] = 100.0,
        beside: Annotated[float, typer.Option("--beside", help="Seconds of the same load on both.")] = 4.0,
        shift: Annotated[float, typer.Option("--shift", help="Seconds for the strategy's steps together.")] = 6.0,
        plan: Annotated[Path | None, typer.Option("--plan", hidden=True)] = None,
    ) -> None:
        """Roll the folder's code out over a copy of what is live. In an engine of its own, under load.

        Says which answers changed, what the alarms would have done, and whether it may ship. The stage is not touched.
        """
        pace = Pace(positive(beside, "--beside"), positive(shift, "--shift"), positive(rate, "--rate"))
        recorded = tuple(replace(one, check_release=False) for one in read_requests(requests)) if requests else ()
        live, candidate = _read_plan(plan) if plan else _documents(ctx, against)
        signal.signal(signal.SIGTERM, _leave)
        with _sandbox(ctx, live, candidate) as engine:
            rehearsal = Rehearsal(engine, live, candidate, pace, ctx.say, recorded)
            findings = asyncio.run(rehearsal.run())
        ctx.show(findings, lambda: _in_words(findings))
        if not findings["may_ship"]:
            raise Ended(3, findings["sentence"], "mend it, or ship it knowingly: --skip-rehearsal, -o skip-rehearsal")


def _leave(number: int, frame: object) -> None:
    """As Ctrl-C: the sandbox's engine is stopped first."""
    raise KeyboardInterrupt


class _Engine:
    """The sandbox's engine over its API."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client

    def deploy(self, stage: str, document: ReleaseDocument, strategy: str) -> dict[str, Any]:
        body = {"release": document.to_json(), "strategy": strategy, "force": True, "wait": True}
        result: dict[str, Any] = {}
        for line in self._client.stream("POST", f"/stages/{stage}/deploy", body):
            result = line.get("result") or result
        return result

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.call("GET", "/status")
        return found


@contextmanager
def _sandbox(ctx: Context, live: ReleaseDocument, candidate: ReleaseDocument) -> Iterator[_Engine]:
    """A running engine with the stage and one for the candidate alone; every process of it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="hitless-sandbox-") as root:
        folders = Folders.of(Path(root) / "data", os.environ)
        folders.create()
        stock(folders_of(ctx).artifacts, folders.artifacts, live, candidate)
        stages = (live.settings.name, CANDIDATE_STAGE)
        functions = max(len(live.functions), len(candidate.functions))
        Settings(live.service, tuple(Address(one, "127.0.0.1", 0) for one in stages), functions).write(folders)
        client = EngineClient(folders.api_socket)
        start_daemon(folders)
        try:
            yield _Engine(client)
        finally:
            client.call("POST", "/shutdown", {"force": True})
            deadline = time.monotonic() + END_DEADLINE_S
            while folders.remains():
                if time.monotonic() > deadline:
                    raise EngineError("the sandbox's engine has not ended", hint=f"see {folders.run}")
                time.sleep(0.02)


def _read_plan(file: Path) -> tuple[ReleaseDocument, ReleaseDocument]:
    document = json.loads(file.read_text())
    return ReleaseDocument.from_json(document["live"]), ReleaseDocument.from_json(document["candidate"])


def _documents(ctx: Context, against: Path | None) -> tuple[ReleaseDocument, ReleaseDocument]:
    """What is live, and the folder's code as a candidate."""
    service = load(ctx)
    if service.settings.name == CANDIDATE_STAGE:
        raise UsageError(f"a stage named {CANDIDATE_STAGE} cannot be rehearsed", hint="give the stage another name")
    live = _live(ctx) if against is None else _built(ctx, against)
    return live, build_document(ctx, service)


def _built(ctx: Context, folder: Path) -> ReleaseDocument:
    there = replace(ctx, service_dir=folder.expanduser().resolve())
    service: Service = load(there)
    return build_document(there, service)


def _live(ctx: Context) -> ReleaseDocument:
    """The live release as the state file has it; the engine need not run."""
    folders = folders_of(ctx)
    hint = "ship a first release, or name a folder that holds the live code: --against DIR"
    if not folders.state_file.exists():
        raise ConflictError(f"there is no release to rehearse against: no engine ever ran on {folders.data}", hint=hint)
    store = Store(folders.state_file, read_only=True)
    try:
        live = store.live(ctx.stage)
        row = store.release(ctx.stage, live[0]) if live else None
    finally:
        store.close()
    if row is None:
        raise ConflictError(f"{ctx.stage} has no live release to rehearse against", hint=hint)
    return ReleaseDocument.from_json(row.document)


def _in_words(findings: dict[str, Any]) -> str:
    lines = [findings["sentence"]]
    lines += [f"  note: {note}" for note in findings["notes"]]
    lines += [f"  left out: {one}" for one in findings["left_out"]]
    if rollout := findings["rollout"]:
        lines.append(
            f"  by {rollout['strategy']}: {rollout['outcome'].replace('_', ' ')}, {rollout['requests']} requests,"
            f" {rollout['failed']} failed"
        )
    return "\n".join(lines)
