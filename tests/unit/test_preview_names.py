"""The labels and stages of previews."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.engine.previews import LONGEST_LABEL, PREFIX, preview_label
from hitless.gateway.state import StageState

pytestmark = pytest.mark.unit

LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@pytest.mark.parametrize(
    ("branch", "label"),
    [
        ("fix", "fix"),
        ("feature/Login_2", "feature-login-2"),
        ("../x", "x"),
        ("--a..b--", "a-b"),
        ("pull/7", "pull-7"),
        ("xn--bcher-kva", "xn-bcher-kva"),
        ("a b\tc", "a-b-c"),
        ("x" * 63, "x" * 63),
    ],
)
def test_a_label_is_the_branchs_name_in_dns_characters(branch: str, label: str) -> None:
    assert preview_label(branch, ()) == label


@pytest.mark.parametrize(
    ("branch", "taken", "begins"),
    [
        ("Fix", {"fix"}, "fix-"),
        ("feature-login", {"feature-login"}, "feature-login-"),
        ("x" * 64, set(), "x" * 56 + "-"),
        ("x" * 55 + "/" + "y" * 20, set(), "x" * 55 + "-"),
        ("日本", set(), "branch-"),
        ("___", set(), "branch-"),
    ],
)
def test_a_taken_or_truncated_label_gets_six_more_digits(branch: str, taken: set[str], begins: str) -> None:
    label = preview_label(branch, taken)
    assert re.fullmatch(re.escape(begins) + "[0-9a-f]{6}", label)
    assert preview_label(branch, taken) == label


@given(st.lists(st.text(min_size=1, max_size=90), max_size=12, unique=True))
def test_every_branch_gets_a_unique_label_that_is_a_valid_host(
    branches: list[str],
) -> None:
    taken: set[str] = set()
    for branch in branches:
        label = preview_label(branch, taken)
        assert label not in taken
        assert LABEL.fullmatch(label)
        assert len(label) <= LONGEST_LABEL
        StageState(f"{PREFIX}{label}", host=f"{label}.preview.localhost")
        taken.add(label)


def test_a_branch_named_like_another_branchs_label_gets_a_label_of_its_own() -> None:
    first = preview_label("Fix", {"fix"})
    second = preview_label(first, {"fix", first})
    assert second not in ("fix", first)
    assert preview_label("Fix", {"fix", first}) not in ("fix", first)
