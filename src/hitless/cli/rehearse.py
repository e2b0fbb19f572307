"""`hitless rehearse`: rolls the candidate out over a copy of the live release, in a sandbox under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs

from hitless.cli.access_log import recorded_load
from hitless.cli.common import Context, UnsuccessfulResult, command, positive
from hitless.cli.sandbox import sandbox
from hitless.documents import to_plain
from hitless.drill.requests import read_requests
from hitless.errors import UsageError
from hitless.homes.folder import build_document, folders_of, load
from hitless.homes.home import NothingLive, home_at
from hitless.pages.page import write_page
from hitless.pipeline.rehearsal.plan import PlannedLoad, planned_load
from hitless.pipeline.rehearsal.rehearse import CANDIDATE_STAGE, Rehearsal
from hitless.pipeline.rehearsal.report import RehearsalReport, render
from hitless.release.document import ReleaseDocument
from hitless.service.model import Home, RehearsalSettings, Service

COMMIT_VARIABLES = ("HITLESS_COMMIT", "CODEBUILD_RESOLVED_SOURCE_VERSION")
"""Variables with the commit of a folder without .git, such as a build's. A handler may respond with the commit."""


@command("rehearse", example="hitless rehearse --stage staging")
def rehearse(
    ctx: Context,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="A folder with the live code, or `aws`; default: the live release at the stage's home."
        ),
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option("--requests", help="JSON lines to send, as for a drill; default: the stage's access log."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Minimum of requests a second to each release; default 100.")
    ] = None,
    beside: Annotated[
        float | None, typer.Option("--beside", help="Seconds of equal load on both releases; default 4.")
    ] = None,
    shift: Annotated[
        float | None, typer.Option("--shift", help="Seconds for all steps of the strategy; default 6.")
    ] = None,
    if_due: Annotated[
        bool,
        typer.Option(
            "--if-due",
            help="For a pipeline's step: end with 0 if the stage asks for no rehearsal, or has no live release.",
        ),
    ] = False,
    page: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the findings as HTML, or as Markdown (.md).")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", hidden=True)] = False,
) -> None:
    """Roll the code out over a copy of the live release. Runs under load, in a separate engine.

    Shows changed responses, alarms that would fire, and whether the code may ship. The stage is not changed.
    """
    told = {"rate_per_s": (rate, "--rate"), "beside_s": (beside, "--beside"), "shift_s": (shift, "--shift")}
    asked = {name: positive(value, option) for name, (value, option) in told.items() if value is not None}
    given = tuple(replace(one, check_release=False) for one in read_requests(requests)) if requests else ()
    signal.signal(signal.SIGTERM, _leave)
    both = _read_plan() if plan else _documents(ctx, against, if_due)
    if isinstance(both, str):
        _skip(ctx, both, page)
        return
    live, candidate = both
    pace = structs.replace(candidate.settings.rehearsal or RehearsalSettings(), **asked)
    sent = PlannedLoad("file", given, given) if given else planned_load(live, candidate, recorded_load(ctx, live))
    with sandbox(folders_of(ctx).artifacts, live, candidate) as engine:
        report = asyncio.run(Rehearsal(engine, live, candidate, pace, ctx.say, sent).run())
    _conclude(ctx, report, page)


def _skip(ctx: Context, why: str, page: Path | None) -> None:
    sentence = f"not rehearsed: {why}"
    if page:
        write_page(page, partial(render, RehearsalReport(stage=ctx.stage, may_ship=True, sentence=sentence)))
    ctx.show({"stage": ctx.stage, "may_ship": True, "skipped": why, "sentence": sentence}, lambda: sentence)


def _conclude(ctx: Context, report: RehearsalReport, page: Path | None) -> None:
    """Write and show the report. Raises UnsuccessfulResult if the code may not ship."""
    if page:
        write_page(page, partial(render, report))
    ctx.show(to_plain(report), lambda: _in_words(report))
    if report.objections:
        raise UnsuccessfulResult(
            3, report.sentence, "fix it, or skip the rehearsal: --skip-rehearsal, or `git push -o skip-rehearsal`"
        )
    if not report.may_ship:
        raise UnsuccessfulResult(
            1, report.sentence, "rehearse again when the machine is less busy, or longer: --beside"
        )


def _leave(number: int, frame: object) -> None:
    """End as by Ctrl-C, which stops the sandbox's engine first."""
    raise KeyboardInterrupt


def _leave_with_input() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _read_plan() -> tuple[ReleaseDocument, ReleaseDocument]:
    """The pipeline's plan, one line on standard input. This process ends when the input ends."""
    document = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_input, daemon=True).start()
    return ReleaseDocument.from_json(document["live"]), ReleaseDocument.from_json(document["candidate"])


def _documents(ctx: Context, against: str | None, if_due: bool) -> tuple[ReleaseDocument, ReleaseDocument] | str:
    """The live release, and the folder's code as a candidate; with `if_due` perhaps why no rehearsal is due."""
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
    candidate = structs.replace(built, commit=told or built.commit)
    if if_due and candidate.fingerprint() == live.fingerprint():
        return "nothing has changed"
    return live, candidate


def _live(ctx: Context, service: Service, against: str | None) -> ReleaseDocument:
    """The release to rehearse against: of the stage's home, on AWS (`aws`), or the code of a folder."""
    if against is None or against == Home.AWS:
        return home_at(Home.AWS if against else service.settings.home, ctx).live()
    there = structs.replace(ctx, service_dir=Path(against).expanduser().resolve())
    return build_document(there, load(there))


def _in_words(report: RehearsalReport) -> str:
    lines = [report.sentence]
    if load := report.load:
        source = {"access_log": "the stage's access log", "file": "the file", "generated": "the routes"}[load.source]
        lines.append(f"  load: {load.requests} requests on {load.routes} routes, from {source}")
    lines += [f"  note: {note}" for note in report.notes]
    lines += [f"  coverage: {report.coverage}"] if report.coverage else []
    if rollout := report.rollout:
        outcome = rollout.outcome.replace("_", " ")
        lines.append(f"  by {rollout.strategy}: {outcome}, {rollout.requests} requests, {rollout.failed} failed")
    return "\n".join(lines)
