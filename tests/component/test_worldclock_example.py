"""The example that newcomers read and the demo drills: its own tests pass with the project's dependencies."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hitless.service.load import load_service

pytestmark = pytest.mark.component

WORLDCLOCK = Path(__file__).parents[2] / "examples" / "worldclock"


def test_the_examples_own_tests_pass() -> None:
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=WORLDCLOCK, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 600


@pytest.mark.parametrize(
    ("stage", "strategy"),
    [("dev", "AllAtOnce"), ("staging", "Linear10PercentEvery1Minute"), ("prod", "Canary10Percent5Minutes")],
)
def test_the_example_loads_in_each_stage_without_a_notice(stage: str, strategy: str) -> None:
    service = load_service(WORLDCLOCK, stage=stage, options={"stage": stage}, environ={})

    assert service.notices == ()
    assert len(service.functions) == 4
    settings = next(settings for settings in service.stages if settings.name == stage)
    assert str(settings.strategy) == strategy
    assert {(smoke.method, smoke.status) for smoke in settings.smoke} == {("GET", 200), ("POST", 200)}


def test_every_requirement_of_the_example_is_pinned_and_names_no_registry() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (WORLDCLOCK / name).read_text(encoding="utf-8").splitlines()
        assert lines
        assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines), lines
