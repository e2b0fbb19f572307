"""`hitless rehearse`: the candidate over a copy of what is live, in a sandbox of its own, under load. May it ship?"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hitless.cli.access_log import recorded_load
from hitless.cli.common import Context, Ended, command, positive
from hitless.cli.sandbox import sandbox
from hitless.documents import to_plain
from hitless.drill.requests import read_requests
from hitless.errors import UsageError
from hitless.homes.folder import build_document, folders_of, load
from hitless.homes.home import NothingLive, home_at
from hitless.pipeline.rehearsal.plan import PlannedLoad, planned_load
from hitless.pipeline.rehearsal.rehearse import CANDIDATE_STAGE, Rehearsal
from hitless.pipeline.rehearsal.report import RehearsalReport
from hitless.release.document import ReleaseDocument
from hitless.service.model import Home, RehearsalSettings, Service

COMMIT_VARIABLES = ("HITLESS_COMMIT", "CODEBUILD_RESOLVED_SOURCE_VERSION")
"""What tells the commit of a folder without git's own, as a build has it. A handler may answer with it."""


def register(app: typer.Typer) -> None:
    @command(app, "rehearse", example="hitless rehearse --stage staging")
    def rehearse(
        ctx: Context,
        against: Annotated[
            str | None,
            typer.Option(
                "--against",
                help="A folder with the service as it is live, or `aws`; default: what is live in the stage's home.",
            ),
        ] = None,
        requests: Annotated[
            Path | None,
            typer.Option(
                "--requests", help="JSON lines to send, as the drill takes them; default: the stage's access log."
            ),
        ] = None,
        rate: Annotated[
            float | None, typer.Option("--rate", help="Requests a second on each side, at least; default 100.")
        ] = None,
        beside: Annotated[
            float | None, typer.Option("--beside", help="Seconds of the same load on both; default 4.")
        ] = None,
        shift: Annotated[
            float | None, typer.Option("--shift", help="Seconds for the strategy's steps together; default 6.")
        ] = None,
        if_due: Annotated[
            bool,
            typer.Option(
                "--if-due",
                help="As a pipeline's step: ends with 0 where the stage asks for none, or has nothing live.",
            ),
        ] = False,
        plan: Annotated[bool, typer.Option("--plan", hidden=True)] = False,
    ) -> None:
        """Roll the folder's code out over a copy of what is live. In an engine of its own, under load.

        Says which answers changed, what the alarms would have done, and whether it may ship. The stage is not touched.
        """
        told = {"rate_per_s": (rate, "--rate"), "beside_s": (beside, "--beside"), "shift_s": (shift, "--shift")}
        asked = {name: positive(value, option) for name, (value, option) in told.items() if value is not None}
        given = tuple(replace(one, check_release=False) for one in read_requests(requests)) if requests else ()
        signal.signal(signal.SIGTERM, _leave)
        both = _read_plan() if plan else _documents(ctx, against, if_due)
        if isinstance(both, str):
            sentence = f"not rehearsed: {both}"
            skipped = {"stage": ctx.stage, "may_ship": True, "skipped": both, "sentence": sentence}
            ctx.show(skipped, lambda: sentence)
            return
        live, candidate = both
        pace = replace(candidate.settings.rehearsal or RehearsalSettings(), **asked)
        sent = PlannedLoad("file", given, given) if given else planned_load(live, candidate, recorded_load(ctx, live))
        with sandbox(folders_of(ctx).artifacts, live, candidate) as engine:
            report = asyncio.run(Rehearsal(engine, live, candidate, pace, ctx.say, sent).run())
        ctx.show(to_plain(report), lambda: _in_words(report))
        if report.objections:
            raise Ended(3, report.sentence, "mend it, or ship it knowingly: --skip-rehearsal, -o skip-rehearsal")
        if not report.may_ship:
            raise Ended(1, report.sentence, "rehearse again when the machine has less to do, or longer: --beside")


def _leave(number: int, frame: object) -> None:
    """As Ctrl-C: the sandbox's engine is stopped first."""
    raise KeyboardInterrupt


def _leave_with_input() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _read_plan() -> tuple[ReleaseDocument, ReleaseDocument]:
    """From the pipeline, a line on standard input, whose end means that nobody waits for the findings any more."""
    document = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_input, daemon=True).start()
    return ReleaseDocument.from_json(document["live"]), ReleaseDocument.from_json(document["candidate"])


def _documents(ctx: Context, against: str | None, if_due: bool) -> tuple[ReleaseDocument, ReleaseDocument] | str:
    """What is live, and the folder's code as a candidate; with `if_due`, why there is nothing to rehearse."""
    service = load(ctx)
    if service.settings.name == CANDIDATE_STAGE:
        raise UsageError(f"a stage named {CANDIDATE_STAGE} cannot be rehearsed", hint="give the stage another name")
    if if_due and service.settings.rehearsal is None:
        return "the stage has rehearsal: false"
    try:
        live = _live(ctx, service, against)
    except NothingLive:
        if if_due:
            return "nothing is live in the stage"
        raise
    built = build_document(ctx, service)
    told = next(filter(None, map(os.environ.get, COMMIT_VARIABLES)), None)
    candidate = replace(built, commit=told or built.commit)
    if if_due and candidate.fingerprint() == live.fingerprint():
        return "nothing has changed"
    return live, candidate


def _live(ctx: Context, service: Service, against: str | None) -> ReleaseDocument:
    """The release to rehearse against: of the stage's home, on AWS (`aws`), or the code of a folder."""
    if against is None or against == Home.AWS:
        return home_at(Home.AWS if against else service.settings.home, ctx).live()
    there = replace(ctx, service_dir=Path(against).expanduser().resolve())
    return build_document(there, load(there))


def _in_words(report: RehearsalReport) -> str:
    lines = [report.sentence]
    if load := report.load:
        source = {"access_log": "the stage's access log", "file": "the file", "generated": "the routes"}[load.source]
        lines.append(f"  load: {load.requests} requests on {load.routes} routes, from {source}")
    lines += [f"  note: {note}" for note in report.notes]
    lines += [f"  left out: {one}" for one in report.left_out]
    if rollout := report.rollout:
        outcome = rollout.outcome.replace("_", " ")
        lines.append(f"  by {rollout.strategy}: {outcome}, {rollout.requests} requests, {rollout.failed} failed")
    return "\n".join(lines)
