"""`hitless status` and `hitless pipeline show` for people."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.cli.common import Context
from hitless.cli.following import beside, follow, painted
from hitless.cli.pipeline import in_full
from hitless.cli.status import in_words
from hitless.documents import to_plain
from hitless.homes.home import RolloutNews
from hitless.pipeline.runs import RunDocument, RunState, StepDocument
from hitless.release.result import LastReading, SideCounts, Step
from hitless.release.status import CandidateStatus, GuardStatus, LatencyStatus, LiveRelease, StageStatus, Status

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


def test_a_bake_shows_the_time_left_and_both_releases() -> None:
    candidate = CandidateStatus(
        12, "baking", 10, requests=812, failed=2, shielded=40, left_s=21.6, latency_ms=LatencyStatus(1.5, 12.5),
        live=SideCounts(7190, 0), live_latency_ms=LatencyStatus(1, 7.5), alarms=LastReading("ok", "2 of 812 failed"),
    )  # fmt: skip
    shown = in_words(Status("hello", None, (replace(STAGE, candidate=candidate),))).splitlines()
    assert (
        "  candidate 12: baking, 10 %, 22 s left: 812 requests, 2 failed, 40 shielded, p99 12.5 ms;"
        " live 7,190 requests, 0 failed, p99 7.5 ms"
    ) in shown
    assert "  alarms: 2 of 812 failed" in shown
    assert beside(CandidateStatus(12, "preparing", 0)) == "  0 %: 0 requests, 0 failed", "as an older engine gives it"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_failed_requests_are_red_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = "812 requests, 2 failed; live 7,190 requests, 0 failed"
    assert painted(text, Terminal()) == "812 requests, \x1b[31m2 failed\x1b[0m; live 7,190 requests, 0 failed"
    assert painted(text, io.StringIO()) == text
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted(text, Terminal()) == text


def test_a_deploy_rewrites_one_line_during_a_bake(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    ctx = Context(json=False, stage="dev", service_dir=Path(), data_dir=Path(), say=print, yes=False, debug=False)
    bakes = [RolloutNews(progress=CandidateStatus(12, "baking", 10, left_s=left_s)) for left_s in (2.0, 1.0)]
    follow(ctx, iter([RolloutNews(step=Step("at", "baking", 10), release=12), *bakes]))
    assert shown.getvalue().count("\r\x1b[2Kbaking") == 3
    assert "1 s left" in shown.getvalue()
    assert shown.getvalue().count("\n") == 1
