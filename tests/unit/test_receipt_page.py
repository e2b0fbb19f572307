"""Receipts for people: sentences, the terminal, the page and the part of a drill's report."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from hitless.charts import Axes, points
from hitless.receipts.page import render, summary
from hitless.receipts.plot import plots
from hitless.receipts.text import in_full, table
from hitless.receipts.words import duration, headline, who

pytestmark = pytest.mark.unit

NASTY = '<script>alert("x")</script>\x1b[2J'


def side(requests: int, failed: int = 0, shielded: int = 0) -> dict[str, Any]:
    by_class = {"2xx": requests - failed - shielded, "5xx": failed + shielded}
    plain = {"requests": requests, "failed": failed, "shielded": shielded, "by_class": by_class, "restarts": 0}
    return {**plain, "functions": {"api": plain, "search": plain}}


def sums(requests: int, failed: int = 0, shielded: int = 0) -> dict[str, int]:
    return {"requests": requests, "failed": failed, "shielded": shielded}


def at(second: float) -> str:
    return f"2026-11-24T06:00:{second:06.3f}Z"


def rolled_back(**changes: Any) -> dict[str, Any]:
    """Release 12: a canary of 10 % that an alarm shifted back after 30 s; 2 requests failed, 40 were shielded."""
    points = [
        {"at": at(second), "candidate": sums(27 * second, second // 15, second), "live": sums(239 * second)}
        for second in range(0, 31, 5)
    ]
    receipt = {
        "version": 1,
        "complete": True,
        "missing": [],
        "who": {"user": "ada", "sudo_user": None, "ci": "GitHub Actions", "actor": "octocat", "run": "17"},
        "why": NASTY,
        "commit": "1a2b3c4d5e6f",
        "artifacts": {"api": "sha256:" + "ab" * 32},
        "candidate": side(810, 2, 40),
        "live": side(7190),
        "cost": {"requests": 8000, "failed": 2, "shielded": 40, "complete": True},
        "weights": [
            {
                "from": at(1),
                "to": at(31),
                "asked_percent": 10,
                "got_percent": 10.12,
                "candidate": sums(810, 2, 40),
                "live": sums(7190),
            },
            {
                "from": at(31),
                "to": at(32),
                "asked_percent": 0,
                "got_percent": None,
                "candidate": sums(0),
                "live": sums(0),
            },
        ],
        "points": points,
        "alarms": {
            "verdicts": {"not_enough_data": 3, "ok": 110, "alarm": 1},
            "readings": [
                {"at": at(31), "verdict": "alarm", "sentence": "42 of 810 requests failed", "figures": {}},
            ],
            "worst": {
                "error_rate_percent": {
                    "at": at(31),
                    "verdict": "alarm",
                    "sentence": "42 of 810 requests failed",
                    "figures": {"error_rate_percent": 5.185},
                }
            },
        },
        "hooks": [{"at": at(1), "hook": "pre_traffic", "status": "Succeeded"}],
    }
    rollout = {
        "rollout": 31,
        "verb": "deploy",
        "strategy": "Canary10Percent5Minutes",
        "state": "ended",
        "outcome": "rolled_back",
        "reason": "alarm: 42 of 810 requests failed (5.2 %, alarm above 1 %)",
        "previous_release": 11,
        "started_at": at(0),
        "ended_at": at(32),
        "duration_s": 32.1,
        "steps": [{"at": at(1), "state": "shifting", "weight_percent": 10, "note": NASTY}],
        "candidate": sums(810, 2, 40),
        "live": {"requests": 7190, "failed": 0},
        "receipt": receipt,
    }
    return {**rollout, **changes}


def shown(*rollouts: dict[str, Any]) -> dict[str, Any]:
    return {
        "release": 12,
        "stage": "dev",
        "live": True,
        "outcome": "rolled_back",
        "reason": None,
        "message": NASTY,
        "commit": "1a2b3c4d5e6f",
        "created_at": at(0),
        "duration_s": 32.1,
        "cost": {"requests": 8000, "failed": 2, "shielded": 40, "complete": True},
        "rollouts": list(rollouts) or [rolled_back()],
    }


def with_cost(**cost: Any) -> dict[str, Any]:
    rollout = copy.deepcopy(rolled_back())
    rollout["receipt"]["cost"] |= cost
    return rollout


def test_the_headline_says_how_many_requests_failed() -> None:
    assert headline(12, rolled_back()) == "release 12: 2 of 8,000 requests failed"
    assert headline(12, with_cost(failed=0)) == "release 12: 0 of 8,000 requests failed"
    assert headline(12, with_cost(complete=False)) == "release 12: 2 of 8,000 requests failed, as far as known"
    assert headline(12, {**rolled_back(), "outcome": None}) == "release 12: 2 of 8,000 requests failed so far"
    assert headline(12, with_cost(requests=0, failed=0)) == "release 12: no requests during the rollout"
    back = headline(12, {**rolled_back(), "verb": "guard", "outcome": "live"})
    assert back == "the guard's return to release 12: 2 of 8,000 requests failed", (
        "it is not release 12 that failed them"
    )
    unstarted = {**with_cost(requests=0, failed=0), "steps": [], "outcome": "superseded"}
    assert headline(12, unstarted) == "release 12 was superseded before its first step"
    assert "has no receipt" in headline(12, rolled_back(receipt=None))


def test_the_page_has_the_headline_in_its_title_and_first_heading() -> None:
    page = render(shown())
    assert "<title>release 12: 2 of 8,000 requests failed</title>" in page
    assert re.search(r"<main>\s*<h1 class=\"not-ok\">release 12: 2 of 8,000 requests failed</h1>", page)
    assert "<h1>release 12: 0 of 8,000 requests failed</h1>" in render(shown(with_cost(failed=0)))


def test_text_from_people_and_handlers_is_escaped() -> None:
    for text in (render(shown()), str(summary(12, rolled_back()))):
        assert "<script" not in text
    assert render(shown()).count("&lt;script&gt;") == 2, "the message and the step's note"


def test_text_from_people_is_printed_without_control_characters() -> None:
    assert "\x1b" not in in_full(shown()) + table([shown()])


def test_the_terminal_shows_a_receipt_in_few_lines() -> None:
    text = in_full(shown(rolled_back(), rolled_back(rollout=30, receipt=None)))
    for said in (
        "release 12: 2 of 8,000 requests failed",
        "rolled back: deploy by Canary10Percent5Minutes in 32.1 s, after release 11",
        "alarm: 42 of 810 requests failed",
        "40 requests that it failed were answered by release 11",
        "asked 10 %, got 10.1 % (810 of 8,000 in 30.0 s)",
        "read 114 times: not enough data 3, ok 110, alarm 1; highest error rate 5.18 % at 31.0 s",
        "pre_traffic: Succeeded",
        "ada in GitHub Actions run 17, started by octocat",
        "has no receipt",
    ):
        assert said in text
    assert len(text.splitlines()) < 25


def test_the_list_of_releases_shows_each_ones_failed_requests() -> None:
    head, row = table([shown()]).splitlines()
    assert [word for word in head.split() if word in ("failed", "of", "shielded")] == ["failed", "of", "shielded"]
    assert re.search(r"\* +12 +rolled back +2 +8,000 +40 +32\.1 s", row)
    assert re.search(r"12 +rolled back +- +- +-", table([{**shown(), "cost": None}]))
    long = {**shown(), "message": "m" * 500, "reason": "r" * 500}
    assert re.search(r"12 +rolled back +2 +8,000 +40 +32\.1 s.* m+…$", table([long])), "what is long is cut, no figure"


def marks(svg: str, class_: str) -> list[ET.Element]:
    return [one for one in ET.fromstring(svg) if one.get("class") == class_]


def test_the_plots_show_the_requested_and_the_actual_share_and_the_failures() -> None:
    drawn = plots(rolled_back())
    assert drawn
    share, count = drawn
    (asked,) = marks(share, "asked")
    axes = Axes(32, 100, width=820, height=200, top=10)
    corners = [(0, 0), (1, 0), (1, 10), (31, 10), (31, 0), (32, 0)]
    assert asked.get("points") == points((axes.x(at_s), axes.y(percent)) for at_s, percent in corners)
    got = marks(share, "got")
    assert [one.findtext("title") for one in got][:2] == [
        "0.0 s to 5.0 s: 10.2 % of 1,330 requests",
        "5.0 s to 10.0 s: 10.2 % of 1,330 requests",
    ], "shielded ones were with both"
    assert len(got) == 6
    assert [one.findtext("title") for one in marks(count, "failed")] == [
        "10.0 s to 15.0 s: 1 failed",
        "25.0 s to 30.0 s: 1 failed",
    ]
    assert marks(count, "shielded")[0].findtext("title") == "0.0 s to 5.0 s: 5 shielded"


def test_a_rollout_that_was_read_once_has_plots_without_bars() -> None:
    rollout = rolled_back()
    rollout["receipt"]["points"] = rollout["receipt"]["points"][:1]
    drawn = plots(rollout)
    assert drawn
    assert len(marks(drawn[0], "asked")) == 1
    assert not marks(drawn[0], "got")


def test_spans_of_few_requests_are_joined() -> None:
    rollout = rolled_back()
    rollout["receipt"]["points"] = [
        {"at": at(second), "candidate": sums(second // 10), "live": sums(second)} for second in range(31)
    ]
    drawn = plots(rollout)
    assert drawn
    assert len(marks(drawn[0], "got")) == 2
    assert plots({**rollout, "receipt": None}) is None


@pytest.mark.parametrize("end_s", [0.003, 0.4, 1.0, 9.1, 75, 239, 240, 1234, 40_000])
def test_a_plot_of_any_length_has_a_few_round_ticks(end_s: float) -> None:
    rollout = rolled_back(ended_at=None)
    instant = f"2026-11-24T{6 + int(end_s // 3600):02}:{int(end_s // 60 % 60):02}:{end_s % 60:09.6f}Z"
    rollout["receipt"]["points"] = [{"at": at(0), "candidate": sums(0)}, {"at": instant, "candidate": sums(5)}]
    drawn = plots(rollout)
    assert drawn
    assert 2 <= len(marks(drawn[0], "tick")) <= 13


def test_the_summary_can_be_embedded_in_another_page() -> None:
    part = str(summary(12, rolled_back()))
    assert part.strip().startswith('<details class="receipt">')
    assert "release 12: 2 of 8,000 requests failed" in part
    assert "<style" not in part
    assert "has no receipt" in str(summary(12, rolled_back(receipt=None)))


def test_the_person_who_asked_is_shown_as_far_as_known() -> None:
    assert who({"who": None}) == "the engine itself, or an unknown caller"
    assert who({"who": {"user": "root", "sudo_user": "ada"}}) == "root by sudo from ada"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.412, "0.41 s"), (31.24, "31.2 s"), (725, "12 min 5 s"), (7385, "2 h 3 min")]
)
def test_durations_are_shown_in_readable_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_receipt_in_markdown_escapes_text_of_people() -> None:
    release = shown(rolled_back(reason="a | b\n# <script>alert(1)</script> @all [x](javascript:x)"))
    page = render(release, suffix=".md")
    assert page.splitlines()[0].startswith("## ")
    assert re.search(r"^\| candidate 12 \| [\d,]+ \| [\d,]+ \| [\d,]+ \|$", page, re.MULTILINE)
    assert r"> a \| b \# \<script\>alert(1)\</script\> \@all \[x\](javascript:x)" in page
    assert "&lt;" not in page


def test_a_receipt_in_markdown_of_a_release_that_never_shipped_says_so() -> None:
    assert "was never shipped" in render(shown() | {"rollouts": []}, suffix=".md")
