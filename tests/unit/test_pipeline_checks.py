"""Commits that a stage with required checks accepts."""

from __future__ import annotations

import pytest

from hitless.pipeline.pushes import untested_commits

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("passed", "parents", "expected"),
    [
        ("new", [], ()),
        ("", [], ("new",)),
        ("", ["old"], ("new",)),
        ("feature", ["old", "feature"], ()),
        ("", ["old", "feature"], ("feature",)),
        ("feature", ["old", "feature", "other"], ("other",)),
        ("feature", ["beside", "feature"], ("beside",)),
        ("feature beside", ["beside", "feature"], ()),
    ],
)
def test_a_commit_must_be_tested_or_merge_only_tested_commits(
    passed: str, parents: list[str], expected: tuple[str, ...]
) -> None:
    assert untested_commits("old", "new", {"new": parents}, passed.split().__contains__) == expected
