"""Documents are checked where they enter, and old and newer ones can be read."""

from __future__ import annotations

import msgspec
import pytest

from hitless.documents import convert, decode, to_plain, to_text
from hitless.errors import EngineError, UsageError

pytestmark = pytest.mark.unit


class Step(msgspec.Struct, frozen=True):
    at: str
    weight_percent: int


class Kept(msgspec.Struct, frozen=True):
    release: int
    steps: tuple[Step, ...] = ()
    message: str | None = None


def test_a_document_is_equal_after_a_round_trip_through_json() -> None:
    kept = Kept(3, (Step("2026-01-01T00:00:00Z", 10),))
    assert decode(to_text(kept), Kept, "release 3") == kept
    assert convert(to_plain(kept), Kept, "release 3") == kept
    assert list(to_plain(kept)) == ["release", "steps", "message"]


def test_missing_newer_fields_get_their_defaults_and_unknown_keys_are_ignored() -> None:
    assert decode('{"release": 3, "colour": "red"}', Kept, "release 3") == Kept(3)


@pytest.mark.parametrize("raw", ['{"release": "x"}', "{", '{"release": 3, "steps": [{"at": 1}]}', "[]", "\ud800"])
def test_a_wrong_document_is_refused_with_its_source(raw: str) -> None:
    with pytest.raises(UsageError, match=r"^request: "):
        decode(raw.encode("utf-8", "surrogatepass"), Kept, "request", error=UsageError)


def test_the_message_names_the_path_of_the_wrong_field() -> None:
    with pytest.raises(EngineError, match=r"release 3: .*`\$\.steps\[0\]\.weight_percent`"):
        convert({"release": 3, "steps": [{"at": "", "weight_percent": "ten"}]}, Kept, "release 3")


class Name(str):
    """Text with a class of its own."""


class Named(msgspec.Struct, frozen=True):
    name: Name


def test_a_class_that_extends_str_is_written_as_text_and_read_back() -> None:
    assert to_plain(Named(Name("a"))) == {"name": "a"}
    read = decode(to_text(Named(Name("a"))), Named, "named")
    assert type(read.name) is Name


def test_an_object_that_json_cannot_represent_is_refused() -> None:
    with pytest.raises(TypeError):
        to_plain({"of": object()})
