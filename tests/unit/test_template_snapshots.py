"""Templates stay byte for byte equal while the code that makes them changes."""

from __future__ import annotations

import json

import pytest

from tests.unit.template_snapshots import DIGESTS, digests

pytestmark = pytest.mark.unit


def test_every_template_equals_its_recorded_snapshot_byte_for_byte() -> None:
    recorded, now = json.loads(DIGESTS.read_text("utf-8")), digests()
    changed = sorted(name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name))
    assert not changed, "compare two checkouts by `python -m tests.unit.template_snapshots DIR`"
