"""The report of a run as a comment in Markdown, and the pull request or commit that gets it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hitless.documents import convert
from hitless.pages.page import MARKDOWN, environment_of
from hitless.pipeline.rehearsal.report import RehearsalReport
from hitless.pipeline.rehearsal.report import render as rehearsal_of
from hitless.receipts.page import render as receipt_of

REPORTED = ("succeeded", "failed", "rejected")


def subject_of(run: Mapping[str, Any]) -> str | None:
    """`pull/N`, or the commit that was to ship to a stage. None if the run gets no comment.

    A fork's run gets none: its author must not choose what is written in the team's name.
    """
    if run["state"] not in REPORTED or run.get("fork"):
        return None
    if run["stage"] is None:
        return str(run["branch"]) if run["branch"].startswith("pull/") else None
    return str(run["commit"]) if run["commit"] else None


def comment_of(run: Mapping[str, Any], release: dict[str, Any] | None) -> str:
    """The steps of a run, its rehearsal and the receipt of its newest rollout.

    `run` is as from `pipeline show`, `release` as from `releases N`; None if nothing shipped, or not from this engine.
    """
    found = next((step["detail"] for step in run["steps"] if "may_ship" in (step.get("detail") or {})), None)
    rehearsal = rehearsal_of(convert(found, RehearsalReport, "the rehearsal's report"), MARKDOWN) if found else ""
    receipt = receipt_of({**release, "rollouts": release["rollouts"][:1]}, suffix=MARKDOWN) if release else ""
    page = environment_of("hitless.api").get_template("comment.md")
    steps = [{"detail": None, **step} for step in run["steps"]]
    return page.render(run={**run, "steps": steps}, rehearsal=rehearsal, receipt=receipt)
