"""Names that are allowed in an artifact."""

from __future__ import annotations

import pytest

from hitless.artifact.archive import case_collisions, folders_of, shown, why_unsafe

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", ["a", "a/b.py", ".hidden", "a b", "..a", "a..", "é/ü", "x" * 255])
def test_a_safe_name_is_accepted(name: str) -> None:
    assert why_unsafe(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "relative"),
        ("/etc/passwd", "relative"),
        ("../a", "an empty part"),
        ("a/../../b", "an empty part"),
        ("a/./b", "an empty part"),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        ("a\\..\\b", "backslash"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\x7fb", "control"),
        ("\udcff", "UTF-8"),
        ("é" * 128, "255 bytes"),
    ],
)
def test_an_unsafe_name_is_refused_with_a_reason(name: str, why: str) -> None:
    found = why_unsafe(name)
    assert found is not None
    assert why in found


def test_names_that_differ_by_case_only_are_found_in_pairs() -> None:
    assert case_collisions(["b", "a/Readme", "a/README", "B"]) == [("a/README", "a/Readme"), ("B", "b")]


def test_folders_are_listed_before_their_contents() -> None:
    assert folders_of(["a/b/c.py", "a/d.py", "e.py"]) == ["a", "a/b"]


def test_a_name_is_shown_without_control_characters() -> None:
    assert shown("a/é.py") == "a/é.py"
    assert shown("a\x1b[31m") == r"'a\x1b[31m'"
    assert "\udcff" not in shown("a\udcff")
