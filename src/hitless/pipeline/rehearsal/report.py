"""The report of a rehearsal, and the rehearsal as a pipeline's step: `hitless rehearse` in a process of its own."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hitless.documents import convert
from hitless.engine.folders import site_name
from hitless.pages.page import environment_of
from hitless.pipeline.children import call_process
from hitless.pipeline.rehearsal.judge import Measured
from hitless.pipeline.runs import StepFailed
from hitless.release.document import ReleaseDocument
from hitless.release.result import SideCounts


class ChangedRoute(msgspec.Struct, frozen=True):
    """A route whose responses differ."""

    route: str
    differences: tuple[str, ...]


class LoadReport(msgspec.Struct, frozen=True):
    """The load: requests, their routes, and the lines of the access log that they stand for."""

    source: str
    requests: int
    routes: int
    recorded: int


class RolloutReport(msgspec.Struct, frozen=True):
    """How the candidate's rollout over live's copy ended."""

    strategy: str
    outcome: str
    reason: str | None
    requests: int
    failed: int
    candidate: SideCounts | None
    live: SideCounts | None


class RehearsalReport(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of a rehearsal. The candidate may ship if there is no objection and nothing is undecided."""

    stage: str = ""
    may_ship: bool
    objections: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sentence: str
    answers: tuple[ChangedRoute, ...] = ()
    left_out: tuple[str, ...] = ()
    coverage: str = ""
    live: Measured | None = None
    candidate: Measured | None = None
    load: LoadReport | None = None
    rollout: RolloutReport | None = None


async def rehearse(
    data: Path, service: str, live: ReleaseDocument, candidate: ReleaseDocument, log: Path
) -> RehearsalReport:
    """Rehearse with the artifacts of an engine's data folder. Raises StepFailed if the rehearsal itself failed.

    `service`: the service of the stage, if several share the engine.
    """
    name = candidate.settings.name
    stage = site_name(service, name) if service else name
    # On standard input, because the releases' environment may hold secrets.
    plan = {"live": live.to_json(), "candidate": candidate.to_json()}
    words = ("rehearse", "--json", "--plan", "--stage", stage, "--data-dir", str(data))
    document = await call_process("hitless", *words, plan=plan, log=log)
    if "may_ship" not in document:
        raise StepFailed(str(document.get("error", {}).get("message", "the rehearsal could not be held")))
    return convert(document, RehearsalReport, "the rehearsal's report")


def render(report: RehearsalReport, suffix: str = ".html") -> str:
    environment = environment_of("hitless.pipeline.rehearsal")
    environment.filters["ms"] = lambda value: "–" if value is None else f"{value:.3g} ms"
    return environment.get_template(f"report{suffix}").render(report=report, headline=report.sentence)
