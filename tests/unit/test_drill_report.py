"""The result's document, its exit code, and the page."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hitless.drill.document import LeftOut
from hitless.drill.plan import DrillPlan
from hitless.drill.plots import MAX_COLUMNS, columns
from hitless.drill.report import render
from hitless.drill.requests import DrillRequest
from hitless.drill.result import DrillResult, ShippedRelease
from hitless.drill.scenarios import choose
from hitless.drill.tally import Slot, Tally
from hitless.drill.timeline import RolloutPhase, Timeline, WorkerSample
from hitless.drill.wire import FAILURE_CODE, RECORD, FailureKind, FailureSample, Flag
from tests.unit.test_receipt_page import rolled_back

pytestmark = pytest.mark.unit
S = 1_000_000
EVIL = "<script>alert('x')</script>"


def drilled(*, failures: int = 0, outcome: str = "live", reason: str | None = None) -> DrillResult:
    """100 requests a second for 6 s; release 2 goes live at 2 s, release 1 comes back at 4 s."""
    timeline = Timeline()
    tally = Tally(slot_s=0.25, deadline_s=10, timeline=timeline)
    first = timeline.open("release 2 (good)", 2 * S)
    first.end_us = int(2.5 * S)
    first.phases = [
        RolloutPhase(2 * S + 1, "preparing"),
        RolloutPhase(int(2.2 * S), "shifting", 100),
        RolloutPhase(int(2.4 * S), "draining", 100),
    ]
    broken = timeline.open("kill-worker", 3 * S, fault=True)
    broken.end_us, broken.recovered_ms = int(3.04 * S), 40.0
    back = timeline.open("return", 4 * S)
    back.end_us = int(4.5 * S)
    records = b""
    for n in range(600):
        failed = n < failures
        release = 2 if 220 <= n < 420 else 1
        code = FAILURE_CODE[FailureKind.STATUS_5XX] if failed else 0
        records += RECORD.pack(
            *(n * 10_000, 1_000 + n, 100, 0, release, n % 2, 500 if failed else 200, code, Flag.COMPLETE)
        )
    tally.add(records)
    tally.finish()
    return DrillResult(
        plan=DrillPlan(
            "dev",
            100,
            6,
            (DrillRequest("GET", "/a", status=200), DrillRequest("POST", f"/{EVIL}", status=201)),
            scenarios=choose(["good"], 1),
            report=Path("/somewhere/drill.html"),
            command="hitless drill --rate 100",
        ),
        target="http://127.0.0.1:8080",
        started_at=datetime(2026, 11, 24, 6, tzinfo=UTC),
        tally=tally,
        releases=(
            ShippedRelease("good", "live", outcome, 2, reason, {"requests": 200, "failed": 0, "shielded": 0}, first),
        ),
        restored=ShippedRelease("return", "live", "live", 1, None, {}, back, new=False),
        faults=(broken,),
        left_out=(LeftOut("GET /gone", "status 404"),),
        samples=(FailureSample(FailureKind.STATUS_5XX, 0, 0.1, False, EVIL),),
        connections={"opened": 50},
        notices=(),
        interrupted=False,
        workers=tuple(WorkerSample(n / 10, 2 if n < 20 else 5, n % 3) for n in range(60)),
    )


def test_the_page_shows_the_receipts_of_the_rollouts() -> None:
    page = render(replace(drilled(), receipts=({"release": 12, "rollout": rolled_back()},)))
    assert page.count('<details class="receipt">') == 1
    assert "release 12: 2 of 8,000 requests failed" in page
    assert "<h2>Receipts</h2>" not in render(drilled())


def test_the_summary_of_lost_requests_names_the_most_frequent_failure_and_the_notices() -> None:
    busy = replace(drilled(failures=3), notices=("this machine was overloaded",))
    assert busy.loss == "most of them: status_5xx; this machine was overloaded"
    assert drilled(failures=3).loss == "most of them: status_5xx"


def test_the_drills_document_has_the_documented_keys_and_consistent_sums() -> None:
    document = drilled(failures=10).to_json()
    assert document["target"] == "http://127.0.0.1:8080"
    assert document["requests"] == document["answered"] + document["failed"] == 600
    assert sum(failure["count"] for failure in document["failures"]) == document["failed"] == 10
    assert {"kind", "count", "excused", "first_at", "during"} == set(document["failures"][0])
    assert document["rate_asked_per_s"] == 100
    assert document["rate_sent_per_s"] == pytest.approx(100, rel=0.01)
    assert document["duration_s"] == 6.0
    assert set(document["latency_ms"]) == {"p50", "p90", "p99", "p999", "max"}
    assert document["latency_steady_ms"]["p99"] is not None
    assert document["latency_releasing_ms"]["p99"] is not None
    assert document["faults"] == [
        {"fault": "kill-worker", "at_s": 3.0, "failed": 0, "excused": 0, "recovered_ms": 40.0, "restored": True}
    ]
    assert document["shielded"] == 0
    assert document["report"] == "/somewhere/drill.html"
    assert document["unexpected_statuses"] == 295  # POST wants 201 and got 200, but for five times 500


def test_a_release_counts_only_its_own_responses() -> None:
    document = drilled().to_json()
    (release,) = document["releases"]
    assert release["requests"] == 200
    assert release["duration_s"] == 0.5
    assert document["restored"]["requests"] == 180
    assert document["restored"]["release"] == 1


def test_failures_are_grouped_by_kind_and_by_the_state_when_they_were_sent() -> None:
    result = drilled()
    for due_us, kind in (
        (S, FailureKind.STATUS_5XX),
        (int(2.1 * S), FailureKind.STATUS_5XX),
        (int(2.3 * S), FailureKind.TIMEOUT),
    ):
        result.tally.add(RECORD.pack(due_us, 500, 0, 0, 0, 0, 500, FAILURE_CODE[kind], 0) * 2)
    result.tally.add(RECORD.pack(int(2.45 * S), 500, 0, 0, 0, 0, 500, FAILURE_CODE[FailureKind.TRUNCATED], 0))
    moments = {(one.during, one.state, one.kind): one.count for one in result.failures_by_moment()}
    assert moments == {
        (None, None, "status_5xx"): 2,
        ("release 2 (good)", "preparing", "status_5xx"): 2,
        ("release 2 (good)", "shifting", "timeout"): 2,
        ("release 2 (good)", "draining", "truncated"): 1,
    }


def test_shielded_responses_are_counted_for_the_rollout_during_which_they_came() -> None:
    result = drilled()
    shielded = Flag.COMPLETE | Flag.SHIELDED
    result.tally.add(RECORD.pack(int(2.1 * S), 500, 0, 0, 1, 0, 200, 0, shielded) * 3)
    result.tally.add(RECORD.pack(5 * S, 500, 0, 0, 1, 0, 200, 0, shielded))
    document = result.to_json()
    assert document["shielded"] == 4
    assert document["releases"][0]["shielded"] == 3
    assert document["restored"]["shielded"] == 0


def test_failures_without_a_release_count_for_the_release_being_rolled_out() -> None:
    result = drilled()
    result.releases[0].window.failed_without_release = 3
    assert result.failed_of(result.releases[0]) == 3


@pytest.mark.parametrize(
    ("failures", "outcome", "code"), [(0, "live", 0), (0, "rolled_back", 1), (5, "live", 6), (5, "rolled_back", 6)]
)
def test_a_failed_request_outranks_an_unexpected_rollout(failures: int, outcome: str, code: int) -> None:
    assert drilled(failures=failures, outcome=outcome).exit_code == code


def test_each_unexpected_outcome_is_described_by_a_sentence() -> None:
    result = drilled(outcome="rolled_back", reason="smoke request failed")
    assert result.surprises == ("good ended rolled_back, expected live: smoke request failed",)
    unrecovered = drilled()
    unrecovered.faults[0].recovered_ms = None
    assert unrecovered.surprises == ("kill-worker at 3.0 s: no recovery",)
    assert unrecovered.exit_code == 1


def test_a_rollout_that_a_fault_interrupted_may_end_in_any_way() -> None:
    result = drilled(outcome="error")
    assert result.exit_code == 1
    struck = replace(result, releases=(replace(result.releases[0], interrupted=True),))
    assert (struck.surprises, struck.exit_code) == ((), 0)


@pytest.mark.parametrize(
    ("kind", "dialled_s", "sent_s", "done_s", "excused"),
    [
        (FailureKind.CONNECTION_RESET, 1.0, 2.9, 3.01, True),
        (FailureKind.CLOSED_EARLY, 3.01, 3.01, 3.03, True),  # while the gateway was dying
        (FailureKind.CLOSED_EARLY, 1.0, 2.8, 2.99, False),  # over before
        (FailureKind.TRUNCATED, 1.0, 3.05, 3.06, True),  # before its sender saw that the gateway was gone
        (FailureKind.TRUNCATED, 1.0, 4.1, 4.11, False),  # the sender must have seen it by then
        (FailureKind.TRUNCATED, 3.01, 3.05, 3.06, False),  # sent when the gateway was gone, perhaps to the next one
        (FailureKind.CONNECTION_RESET, 3.05, 3.05, 3.06, False),  # on a connection of the next gateway
        (FailureKind.STATUS_5XX, 1.0, 2.9, 3.01, False),  # a response is no lost connection
        (FailureKind.TIMEOUT, 1.0, 2.9, 12.9, False),
    ],
)
def test_only_requests_on_connections_of_a_gateway_that_the_drill_killed_are_excused(
    kind: FailureKind, dialled_s: float, sent_s: float, done_s: float, excused: bool
) -> None:
    result = drilled()
    result.faults[0].gateway_ends.append((3 * S, int(3.04 * S)))
    due_us, age_us = int(sent_s * S), int((sent_s - dialled_s) * S)
    latency_us = int((done_s - sent_s) * S)
    result.tally.add(RECORD.pack(due_us, latency_us, 0, age_us, 0, 0, 0, FAILURE_CODE[kind], 0))
    document = result.to_json()
    assert (document["failed"], document["excused"], result.exit_code) == (1, int(excused), 0 if excused else 6)
    assert {one["kind"]: one["excused"] for one in document["failures"]}[kind] == int(excused)
    assert document["faults"][0]["excused"] == int(excused)
    assert ("1 of 601 requests failed, 1 of them excused" in render(result)) == excused


def test_a_stopped_drill_is_unexpected_only_if_a_release_or_fault_is_missing() -> None:
    all_done = replace(drilled(), interrupted=True)
    assert all_done.surprises == ()
    waiting = replace(all_done, plan=replace(all_done.plan, scenarios=choose(["good"], 3)))
    assert waiting.surprises == ("interrupted after 2 of 3 releases and faults",)
    assert waiting.exit_code == 1


def test_the_page_has_the_result_in_its_first_line_and_loads_nothing() -> None:
    page = render(drilled())
    assert re.search(r"<h1>0 of 600 requests failed while 1 release shipped</h1>", page)
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script|<link", page)
    assert "hitless drill --rate 100" in page
    assert "GET /gone" in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_shows_failures_by_kind_and_moment() -> None:
    page = render(drilled(failures=10))
    assert '<h1 class="not-ok">10 of 600 requests failed' in page
    assert page.count("<svg") >= 3
    assert "10 status_5xx" in page


def test_large_numbers_in_the_first_line_have_separators() -> None:
    result = drilled()
    result.tally.requests = 240_000
    assert "<h1>0 of 240,000 requests failed while 1 release shipped</h1>" in render(result)
    assert result.headline == "0 of 240,000 requests failed while 1 release shipped"


def test_workers_are_drawn_as_steps_and_only_with_an_engine() -> None:
    page = render(drilled())
    (points,) = re.findall(r'class="line workers" points="([^"]*)"', page)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert len(heights) == 4, "the start, both ends of the step, the end"
    assert heights[0] == heights[1] > heights[2] == heights[3]
    assert "Workers against the load" not in render(replace(drilled(), workers=()))


def test_text_from_the_service_is_escaped_in_the_report() -> None:
    page = render(drilled(failures=1, outcome=EVIL, reason=EVIL))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_drill_without_a_release_or_a_response_still_has_a_page() -> None:
    empty = Tally(slot_s=0.25, deadline_s=10, timeline=Timeline())
    empty.add_unsent(0, 3)
    empty.finish()
    result = replace(drilled(), tally=empty, releases=(), restored=None, faults=(), samples=())
    assert "3 of 3 requests failed" in render(result)
    assert result.to_json()["latency_ms"]["p50"] is None


def test_a_long_drill_is_drawn_in_a_bounded_number_of_columns() -> None:
    slots = [Slot() for _ in range(3_601)]
    drawn = columns(slots, S, 3_601)
    assert len(drawn) <= MAX_COLUMNS
    assert drawn[-1].at_s + drawn[-1].width_s == pytest.approx(3_601)


def test_the_rate_of_the_last_column_uses_its_own_width() -> None:
    slot = Slot()
    slot.by_release[1] = 50
    (only,) = columns([slot], S, 0.5)
    assert only.by_release == {1: 100}


def test_the_report_in_markdown_has_the_headline_the_releases_and_the_failures() -> None:
    lines = render(drilled(failures=3, outcome="rolled_back", reason="x"), ".md").splitlines()
    assert lines[0].startswith("## ❌ 3 of ")
    releases = lines.index("| release | scenario | outcome | took | requests | failed | shielded |")
    assert lines[releases + 2].count("|") == 8
    assert r"rolled\_back" in lines[releases + 2]
    assert "| failure | count |" in lines
    assert render(drilled(), ".md").startswith("## ✅ 0 of ")
