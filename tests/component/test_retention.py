"""The work at the end of each rollout needs no more memory after many releases than after few."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from hitless.artifact.store import ArtifactStore
from hitless.clock import timestamp
from hitless.engine.retention import Retention
from hitless.store.store import Store
from tests.fakes import FakeClock, release_document

pytestmark = pytest.mark.component


def test_the_memory_of_a_retention_pass_does_not_grow_with_the_kept_releases(tmp_path: Path) -> None:
    store, clock = Store(tmp_path / "state.sqlite"), FakeClock()
    retention = Retention(store, ArtifactStore(tmp_path / "artifacts"), tmp_path / "logs", clock)
    peaks = [_peak_bytes(retention, store, upto, timestamp(clock.now())) for upto in (30, 400)]
    assert len(store.release_numbers("dev")) == 400, "releases of the last hour are kept for a rollback"
    assert peaks[1] < peaks[0] + 100_000, "a release's document alone has kilobytes"


def _peak_bytes(retention: Retention, store: Store, upto: int, at: str) -> int:
    for _ in range(upto - len(store.release_numbers("dev"))):
        number = store.add_release("dev", release_document(), at)
        store.begin_rollout("dev", number, verb="deploy", strategy="AllAtOnce", state="live", previous=None, at=at)
        store.end_rollout(number, "live", None, None, at)
    tracemalloc.start()
    try:
        assert asyncio.run(retention.apply("dev")) == []
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_state_file_keeps_few_pages_in_memory(tmp_path: Path) -> None:
    assert Store(tmp_path / "state.sqlite").read("PRAGMA cache_size")[0][0] == -256
