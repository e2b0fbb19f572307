"""docs/changing.md names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "changing.md").read_text()
FILES = re.findall(r"`((?:[a-z_]+/)+[A-Za-z_.0-9-]+\.[a-z0-9]+)`", TEXT)


@pytest.mark.parametrize("name", sorted({file for file in FILES if "VERB" not in file and "NAME" not in file}))
def test_a_file_that_the_page_names_exists(name: str) -> None:
    base = ROOT if name.startswith(("tests/", "docs/")) else ROOT / "src" / "hitless"
    assert (base / name).is_file()


def test_the_page_has_at_least_ten_changes() -> None:
    assert len(re.findall(r"^## ", TEXT, re.MULTILINE)) >= 10
    assert len(FILES) > 40
