"""Recorded requests as a rehearsal's load, compared route by route."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.process.conftest import Site
from tests.support import eventually

pytestmark = pytest.mark.process

ANSWER = (
    '            return answer({"method": event["httpMethod"], "length": len(event["body"] or ""), "release": RELEASE})'
)
BREAK = """\
            if query.get("page") == "2":
                return answer({"method": event["httpMethod"], "release": RELEASE})
"""


def test_a_rehearsal_with_recorded_requests_finds_breaking_changes(running: Site, tmp_path: Path) -> None:
    """No generated request asks for a second page."""
    for _ in range(6):
        running.get("/echo?page=2")
    running.get("/fast")
    running.get("/echo", "POST", b"{}")

    def shown() -> list[dict[str, object]]:
        found: list[dict[str, object]] = running.hitless("logs", "--access").document
        return found if len(found) >= 8 else []

    logged = eventually(shown, what="eight lines")
    assert logged is not None
    assert {(one["function"], one["route"], one["release"]) for one in logged[:6]} == {("api", "ANY /echo", 1)}
    rows = running.hitless("logs", "--access", "--as-requests").document
    assert {(row["method"], row["path"], row["weight"]) for row in rows} >= {("GET", "/echo?page=2", 6)}
    assert "POST" not in {row["method"] for row in rows}
    running.hitless("logs", "--access", "api", exit_code=2)

    running.edit(ANSWER, BREAK + ANSWER)
    found = running.hitless("rehearse", "--beside", "1", "--shift", "1", exit_code=3, timeout_s=120).document
    assert "GET /echo (/echo?page=2): length is gone" in found["objections"]
    assert found["load"]["source"] == "access_log"
    assert found["load"]["recorded"] >= 7

    file = tmp_path / "requests.jsonl"
    file.write_text(json.dumps({"path": "/fast"}))
    words = ("rehearse", "--beside", "1", "--shift", "1", "--requests", str(file))
    assert running.hitless(*words, timeout_s=120).document["load"]["source"] == "file"
