"""The site of the documentation has every page, and its links lead to pages of the site. scripts/lint builds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripts.site import PAGES, link_in_site

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


def test_the_navigation_has_every_page_once() -> None:
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted([*pages, *PAGES.values()])


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("README.md", "[a](docs/aws.md#who)", "[a](aws.md#who)"),
        ("README.md", "![picture](docs/drill-dark.png)", "![picture](drill-dark.png)"),
        ("docs/tutorial.md", "[`up`](../README.md#try-it)", "[`up`](index.md#try-it)"),
        ("docs/decisions/shield.md", "[a](../aws.md)", "[a](../aws.md)"),
        ("docs/how-to/roll-back.md", "[a](../../CONTRIBUTING.md)", "[a](../contributing.md)"),
        ("README.md", "[decisions/](docs/decisions/)", "decisions/"),
        ("docs/aws.md", "[an example](../examples/database/app.py)", "an example"),
        ("docs/aws.md", "[a](https://example.com/a) [b](#part)", "[a](https://example.com/a) [b](#part)"),
    ],
)
def test_links_are_those_of_the_site(source: str, link: str, expected: str) -> None:
    assert link_in_site(link, source) == expected
