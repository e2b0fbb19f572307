"""`hitless rehearse`: the candidate over a copy of what is live, in a sandbox of its own, under load. May it ship?"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from hitless.errors import ConflictError, HitlessError, UsageError
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
        plan: Annotated[bool, typer.Option("--plan", hidden=True)] = False,
    ) -> None:
        """Roll the folder's code out over a copy of what is live. In an engine of its own, under load.

        Says which answers changed, what the alarms would have done, and whether it may ship. The stage is not touched.
        """
        pace = Pace(positive(beside, "--beside"), positive(shift, "--shift"), positive(rate, "--rate"))
        recorded = tuple(replace(one, check_release=False) for one in read_requests(requests)) if requests else ()
        signal.signal(signal.SIGTERM, _leave)
        live, candidate = _read_plan() if plan else _documents(ctx, against)
        with _sandbox(ctx, live, candidate) as engine:
            rehearsal = Rehearsal(engine, live, candidate, pace, ctx.say, recorded)
            findings = asyncio.run(rehearsal.run())
        ctx.show(findings, lambda: _in_words(findings))
        if not findings["may_ship"]:
            raise Ended(3, findings["sentence"], "mend it, or ship it knowingly: --skip-rehearsal, -o skip-rehearsal")


def _leave(number: int, frame: object) -> None:
    """As Ctrl-C: the sandbox's engine is stopped first."""
    raise KeyboardInterrupt


def _leave_with_input() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


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
    """A running engine with the stage and one for the candidate alone. Every process and file of it ends with the
    block, and with this process: `warden` sees to that.
    """
    with tempfile.TemporaryDirectory(prefix="hitless-sandbox-", ignore_cleanup_errors=True) as root:
        folders = Folders.of(Path(root) / "data", os.environ)
        folders.create()
        stages = (live.settings.name, CANDIDATE_STAGE)
        functions = max(len(live.functions), len(candidate.functions))
        Settings(live.service, tuple(Address(one, "127.0.0.1", 0) for one in stages), functions).write(folders)
        with _daemon(folders, root) as client:
            stock(folders_of(ctx).artifacts, folders.artifacts, live, candidate)
            yield _Engine(client)


@contextmanager
def _daemon(folders: Folders, root: str) -> Iterator[EngineClient]:
    """The sandbox's daemon under its warden, stopped in good order at the block's end."""
    client = EngineClient(folders.api_socket)
    ended, hold = os.pipe()  # neither is inherited by anything but the warden
    try:
        under = [sys.executable, "-m", "hitless.pipeline.rehearsal.warden", root, str(folders.run), "--"]
        warden = start_daemon(folders, under=under, stdin=ended)
        try:
            yield client
        finally:
            with suppress(HitlessError):  # a daemon that died took all of its parts along
                client.call("POST", "/shutdown", {"force": True})
            with suppress(subprocess.TimeoutExpired):
                warden.wait(END_DEADLINE_S)
    finally:
        os.close(ended)
        os.close(hold)
    warden.wait()


def _read_plan() -> tuple[ReleaseDocument, ReleaseDocument]:
    """From the pipeline, a line on standard input, whose end means that nobody waits for the findings any more."""
    document = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_input, daemon=True).start()
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
