"""The key that signs approval links: one, whoever asks for it first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hitless.pipeline import links

pytestmark = pytest.mark.component


def test_who_asks_for_the_key_at_once_gets_the_same(tmp_path: Path) -> None:
    """The engine writes a link while the receiver is asked for one."""
    for number in range(30):
        folder = tmp_path / str(number)
        folder.mkdir()
        with ThreadPoolExecutor(4) as several:
            keys = set(several.map(lambda _, folder=folder: links.key_of(folder), range(4)))
        assert len(keys) == 1
        assert [path.name for path in folder.iterdir()] == ["link.key"]
