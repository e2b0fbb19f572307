"""`hitless status` and `hitless pipeline show` for people."""

from __future__ import annotations

from typing import Any

import pytest

from hitless.cli.pipeline import in_full
from hitless.cli.status import in_words

pytestmark = pytest.mark.unit


def stage(**more: Any) -> dict[str, Any]:
    live = {"release": 11, "since": "2026-11-29T07:43:07.944Z", "commit": None}
    return {"stage": "dev", "url": "http://127.0.0.1:8080", "live": live, "candidate": None, "functions": [], **more}


def test_a_guarded_release_says_for_how_long_and_what_is_kept_ready() -> None:
    document = {"service": "hello", "engine": None, "stages": [stage(guard={"previous": 10, "left_s": 26.0})]}
    assert "  guarded for 26 s more: release 10 is kept ready" in in_words(document).splitlines()
    document = {"service": "hello", "engine": None, "stages": [stage(guard=None)]}
    assert "guarded" not in in_words(document)


def run(state: str, **detail: Any) -> dict[str, Any]:
    step = {"name": "rehearse", "state": state, "duration_s": 1.0, "detail": detail}
    known = {"run": 7, "branch": "dev", "commit": "1a2b", "message": "m", "overridden": None, "approval": None}
    return {**known, "state": state, "reason": None, "steps": [step]}


def test_what_a_rehearsal_noted_stands_under_its_step() -> None:
    assert (
        "            GET /version: region is new"
        in in_full(run("succeeded", notes=["GET /version: region is new"])).splitlines()
    )


def test_a_failed_run_leads_to_its_log_unless_it_is_shown() -> None:
    failed = run("failed")
    assert in_full(failed).endswith("`hitless pipeline show 7 --log` has what its steps wrote")
    assert "--log" not in in_full({**failed, "log": "== test"})
