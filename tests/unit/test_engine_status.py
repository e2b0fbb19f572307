"""A function's workers in `hitless status`."""

from __future__ import annotations

import pytest

from hitless.engine.status import running_workers
from hitless.release.status import WorkerStatus
from hitless.worker.layout import WorkerState
from hitless.workers.stats import WorkerStats

pytestmark = pytest.mark.unit


def test_an_ended_worker_is_not_shown_until_it_is_replaced() -> None:
    workers = [
        WorkerStats(0, WorkerState.BACKING_OFF, False),
        WorkerStats(4720, WorkerState.READY, True),
        WorkerStats(4721, WorkerState.READY, False),
    ]
    assert running_workers(workers) == (WorkerStatus(4720, True), WorkerStatus(4721, False))
