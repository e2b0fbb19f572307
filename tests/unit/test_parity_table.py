"""The table of differences between the homes: which differences each kind of row covers."""

from __future__ import annotations

import pytest

from tests.aws.parity import ABSENT, Difference, compare, listed
from tests.aws.parity_requests import Asked

pytestmark = pytest.mark.unit

HEAD = """\
<!-- parity: compared by tests/aws/test_parity.py -->
| field | request | engine | emulated AWS | cause | why |
|---|---|---|---|---|---|
"""


def test_a_row_covers_its_field_of_its_request_only_while_both_values_match() -> None:
    (row,) = listed(f"text\n{HEAD}| `answer.status` | dots | `403` | in words | undocumented | so |\n\nmore | text |\n")
    assert (row.engine, row.aws) == ("403", None)
    assert row.covers(Difference("answer.status", "dots", "403", "200"))
    assert not row.covers(Difference("answer.status", "dots", "404", "200")), "the engine answers something else now"
    assert not row.covers(Difference("answer.status", "slash", "403", "200"))
    assert not row.covers(Difference("answer.body", "dots", "403", "200"))


def test_a_row_may_cover_any_request_or_a_whole_response() -> None:
    one, all_of_it = listed(
        f"{HEAD}| `answer.headers.x` | any | `['1']` | absent | by design | so |\n"
        "| `answer.*` | dots | that | this | by design | so |\n"
    )
    assert one.covers(Difference("answer.headers.x", "whatever", "['1']", ABSENT))
    assert not one.covers(Difference("answer.headers.x", "whatever", "['1']", "['1', '2']"))
    assert all_of_it.covers(Difference("answer.headers.y", "dots", "a", "b"))
    assert not all_of_it.covers(Difference("event.body", "dots", "a", "b"))


@pytest.mark.parametrize(
    "text",
    [
        "no table",
        f"{HEAD}| `answer.status` | dots | `403` | `200` | chance | so |\n",
        f"{HEAD}| `answer.status` | dots | `403` | by design | so |\n",
    ],
)
def test_a_malformed_table_is_an_error(text: str) -> None:
    with pytest.raises(AssertionError):
        listed(text)


def test_a_missing_or_unequal_field_is_a_difference() -> None:
    asked = Asked("x", "GET", "/x")
    found = compare(asked, {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "4", "d": "5"})
    assert [(one.field, one.engine, one.aws) for one in found] == [
        ("b", "2", "4"),
        ("c", "3", ABSENT),
        ("d", ABSENT, "5"),
    ]
