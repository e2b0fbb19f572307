"""Samples of the workers, in bounded memory."""

from __future__ import annotations

import pytest

from hitless.drill.timeline import MAX_SAMPLES, PERIOD_S, WorkerSample, WorkerWatch
from tests.component.drill_fakes import FakeEngine

pytestmark = pytest.mark.unit


def document_or_raise(*workers: tuple[int | None, bool]) -> dict[str, object]:
    return {
        "stages": [
            {"stage": "other", "functions": [{"workers": [{"pid": 9, "busy": True}]}]},
            {"stage": "dev", "functions": [{"workers": [{"pid": pid, "busy": busy} for pid, busy in workers]}]},
        ]
    }


def test_a_sample_counts_running_and_busy_workers() -> None:
    watch = WorkerWatch(FakeEngine("http://x"), "dev", lambda: 1_500_000)
    watch.take(document_or_raise((1, True), (2, False), (None, False), (4, True)))
    assert watch.samples == [WorkerSample(1.5, 3, 2)]


def test_a_long_drill_keeps_a_limited_number_of_samples() -> None:
    instants_us = iter(range(0, 3 * MAX_SAMPLES * 100_000, 100_000))
    watch = WorkerWatch(FakeEngine("http://x"), "dev", lambda: next(instants_us))
    for _ in range(3 * MAX_SAMPLES):
        watch.take(document_or_raise((1, False)))
    assert len(watch.samples) <= MAX_SAMPLES
    assert watch.samples[0].at_s == 0
    assert watch.samples[-1].at_s > 3 * MAX_SAMPLES * PERIOD_S - 1
