"""The long acceptance runs: every fault at random, a million requests, and half an hour of releases."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.process.conftest import Site

pytestmark = [pytest.mark.process, pytest.mark.long]
ROOT = Path(__file__).parents[2]


def drill(site: Site, *words: str, timeout_s: float) -> Any:
    requests = site.folder.parent / "requests.jsonl"
    requests.write_text('{"path": "/fast", "weight": 4}\n{"method": "POST", "path": "/echo", "body": "{}"}\n')
    words = ("drill", *words, "--idempotency-key", "--requests", str(requests))
    return site.hitless(*words, timeout_s=timeout_s).document


def test_all_faults_at_random_fail_no_request_beyond_the_excused_ones(running: Site) -> None:
    words = ("--faults", "all", "--rate", "1000", "--duration", "600", "--releases", "60", "--seed", "1")
    document = drill(running, *words, timeout_s=3_600)
    assert document["failed"] == document["excused"], document["faults"]
    assert all(one["restored"] for one in document["faults"])
    assert document["requests"] >= 600_000


def test_a_million_requests_over_two_hundred_releases_do_not_fail(running: Site) -> None:
    document = drill(running, "--rate", "1000", "--duration", "1000", "--releases", "200", timeout_s=7_200)
    assert document["failed"] == 0
    assert document["requests"] >= 1_000_000
    assert [one["outcome"] for one in document["releases"]] == ["live"] * 200


def test_a_soak_fails_no_request_and_no_process_grows(tmp_path: Path) -> None:
    command = [str(ROOT / "scripts" / "soak"), "30", "--report", str(tmp_path / "soak.html")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=3_600, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
