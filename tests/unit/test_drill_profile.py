"""Profiles: rates that change during a drill."""

from __future__ import annotations

import pytest

from hitless.drill.pace import PROFILE_EXAMPLES, Piece, Pieces, parse_profile
from hitless.errors import UsageError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ramp:50:3000", (Piece(0, 50, 3000, 60),)),
        ("ramp:50:3000@5-25", (Piece(0, 50, 50), Piece(5, 50, 3000, 20))),
        ("ramp:3000:50@5", (Piece(0, 3000, 3000), Piece(5, 3000, 50, 55))),
        ("step:50:3000@10", (Piece(0, 50, 50), Piece(10, 3000, 3000))),
        ("step:0.5:3000@10-40.5", (Piece(0, 0.5, 0.5), Piece(10, 3000, 3000), Piece(40.5, 0.5, 0.5))),
        ("step:50:3000@0", (Piece(0, 3000, 3000),)),
    ],
)
def test_a_load_profile_is_parsed_into_pieces(text: str, pieces: Pieces) -> None:
    assert parse_profile(text, 60) == pieces


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sine:1:2", "is not a profile"),
        ("ramp:50", "is not a profile"),
        ("ramp:50:3000@", "is not a profile"),
        ("step:50:3000", "does not say when"),
        ("step:0:3000@10", "0 requests a second"),
        ("ramp:50:100001", "100001 requests a second"),
        ("step:50:3000@60", "begins at 60 s, and the drill lasts 60 s"),
        ("step:50:3000@10-10", "ends at 10 s"),
        ("ramp:50:3000@10-61", "ends at 61 s"),
        ("ramp:١:3000", "is not a profile"),
    ],
)
def test_an_invalid_load_profile_is_an_error_with_an_example(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as error:
        parse_profile(text, 60)
    assert text in error.value.message
    assert PROFILE_EXAMPLES in error.value.hint
