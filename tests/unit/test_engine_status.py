"""A function's workers in `hitless status`."""

from __future__ import annotations

import pytest

from hitless.engine.status import running_workers
from hitless.release.status import WorkerStatus
from hitless.worker.layout import WorkerState
from hitless.workers.stats import WorkerStats

pytestmark = pytest.mark.unit


def worker(pid: int, state: WorkerState, busy_s: float | None = None) -> WorkerStats:
    return WorkerStats(index=0, generation=1, pid=pid, started=1, state=state, busy_s=busy_s, restarts=0)


def test_an_ended_worker_is_not_shown_until_it_is_replaced() -> None:
    workers = [
        worker(0, WorkerState.BACKING_OFF),
        worker(4720, WorkerState.READY, busy_s=0.1),
        worker(4721, WorkerState.READY),
    ]
    assert running_workers(workers) == (WorkerStatus(4720, True), WorkerStatus(4721, False))
