"""`hitless status` and `hitless pipeline show` for people."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from hitless.cli.pipeline import in_full
from hitless.cli.status import in_words
from hitless.documents import to_plain
from hitless.pipeline.runs import RunDocument, RunState, StepDocument
from hitless.release.status import GuardStatus, LiveRelease, StageStatus, Status

pytestmark = pytest.mark.unit

LIVE = LiveRelease(11, None, {}, "2026-11-29T07:43:07.944Z")
STAGE = StageStatus("dev", url="http://127.0.0.1:8080", live=LIVE)


def test_a_guarded_release_shows_the_time_left_and_the_release_that_is_kept() -> None:
    guarded = replace(STAGE, guard=GuardStatus(10, 26.0))
    assert (
        "  guarded for 26 s more: release 10 is kept ready" in in_words(Status("hello", None, (guarded,))).splitlines()
    )
    assert "guarded" not in in_words(Status("hello", None, (STAGE,)))


def run(state: RunState, **detail: Any) -> dict[str, Any]:
    document = RunDocument(
        run=7,
        stage=None,
        branch="dev",
        commit="1a2b",
        state=state,
        release=None,
        started_at="2026-11-29T07:43:07.944Z",
        ended_at=None,
        reason=None,
        verb="push",
        message="m",
        actor=None,
        overridden=None,
        preview=None,
        fork=None,
        steps=(StepDocument("rehearse", state, 1.0, detail=detail),),
        approval=None,
    )
    return dict(to_plain(document))


def test_a_rehearsals_notes_are_listed_under_its_step() -> None:
    shown = in_full(run(RunState.SUCCEEDED, notes=["GET /version: region is new"]))
    assert "            GET /version: region is new" in shown.splitlines()


def test_a_failed_run_shows_the_command_for_its_log_unless_the_log_is_shown() -> None:
    failed = run(RunState.FAILED)
    assert in_full(failed).endswith("`hitless pipeline show 7 --log` has the output of its steps")
    assert "--log" not in in_full({**failed, "log": "== test"})
