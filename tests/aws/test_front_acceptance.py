"""The dry run of the acceptance test on a real account: it shows the cost and every step, and calls no API."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.aws.emulated import EmulatedAws

pytestmark = pytest.mark.aws

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "aws_acceptance.py"


def test_the_dry_run_shows_the_cost_and_every_step_and_calls_no_api(aws: EmulatedAws) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--dry-run"], env=aws.environ, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "Cost: about $0.11 for 2 hours" in done.stdout
    verbs = ["plan", "bootstrap", "deploy", "deploy", "deploy", "deploy", "rollback", "status", "destroy"]
    commands = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("$ hitless aws")]
    assert [words[3] for words in commands] == verbs
    assert "→ exit 3" in done.stdout, "the broken release must be rolled back"
    assert aws.front.actions() == []


def test_the_page_says_which_step_shows_what_no_emulator_can() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--list"], capture_output=True, text=True, check=True)
    page = (SCRIPT.parents[1] / "docs" / "aws.md").read_text("utf-8")
    assert done.stdout in page, "replace the table in docs/aws.md by scripts/aws-acceptance --list"
    assert len(done.stdout.splitlines()) > 10


def test_the_acceptance_starts_only_after_the_services_name_is_typed(aws: EmulatedAws) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=aws.environ, input="yes\n", capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout.splitlines()[-1][-9:]) == (1, "not begun")
    assert aws.front.actions() == []
