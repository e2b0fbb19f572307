"""How often a zygote measures the memory of its workers."""

from __future__ import annotations

import pytest

from hitless.worker.memory import pause_ns

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("active", "spent_ms", "pause_ms"), [(True, 0.1, 100), (True, 60, 1200), (False, 0.1, 1000), (False, 60, 1200)]
)
def test_measuring_memory_takes_at_most_a_twentieth_of_a_core(active: bool, spent_ms: float, pause_ms: float) -> None:
    assert pause_ns(active=active, spent_ns=round(spent_ms * 1e6)) == pytest.approx(pause_ms * 1e6)
