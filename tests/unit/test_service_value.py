"""Values: accessors, errors in place, numbers as JavaScript prints them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import ServiceFileError
from hitless.service.load import parse_yaml
from hitless.service.value import FilePlace, Value, from_plain, scalar_text

pytestmark = pytest.mark.unit

HERE = FilePlace("serverless.yml", 3, 5)


def value(data: object) -> Value:
    return from_plain(data, HERE, "a.b")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1"),
        (1.10, "1.1"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (2**53, "9007199254740992"),
        (12345678901234567890, "12345678901234567000"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (math.nan, "NaN"),
        (10**400, "Infinity"),
        (True, "true"),
        (None, "null"),
        ("x", "x"),
    ],
)
def test_scalars_print_as_javascript_prints_them(number: float | str | None, text: str) -> None:
    assert scalar_text(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_number_reads_back_as_the_same_number(number: float) -> None:
    assert float(scalar_text(number)) == number


def test_an_error_names_file_line_and_key_path() -> None:
    with pytest.raises(ServiceFileError) as caught:
        value("x").integer(1, 5)
    assert str(caught.value) == "serverless.yml:3: a.b: must be a whole number from 1 to 5, not 'x'"
    assert caught.value.details == {"file": "serverless.yml", "line": 3, "column": 5, "path": "a.b"}


def test_integers_may_be_digits_and_have_limits() -> None:
    assert value(5).integer(1, 9) == value("5").integer(1, 9) == value(5.0).integer(1, 9) == 5
    bads: list[object] = [0, 10, 1.5, "1.5", "", True, None, [], {}, "9" * 30, "٥", math.nan]
    for bad in bads:
        with pytest.raises(ServiceFileError):
            value(bad).integer(1, 9)


def test_numbers_are_finite_and_bounded() -> None:
    assert value("2.5").number(0, 100) == 2.5
    bads: list[object] = [-1, 101, math.nan, math.inf, "x", None, True, []]
    for bad in bads:
        with pytest.raises(ServiceFileError):
            value(bad).number(0, 100)


def test_flags_are_booleans_or_their_words() -> None:
    assert value(True).flag() is True
    assert value("false").flag() is False
    bads: list[object] = ["yes", 1, None, []]
    for bad in bads:
        with pytest.raises(ServiceFileError):
            value(bad).flag()


def test_an_error_about_a_wrong_type_names_the_type() -> None:
    for data, wanted in (([], "a list"), (None, "empty"), ({}, "a map")):
        with pytest.raises(ServiceFileError, match=f"must be a string, not {wanted}"):
            value(data).text()
    with pytest.raises(ServiceFileError, match="must be a map, not 'x'"):
        value("x").mapping()
    with pytest.raises(ServiceFileError, match="must be a list, not a map"):
        value({"x": 1}).items()


def test_null_is_read_as_an_empty_map_or_list_or_a_missing_entry() -> None:
    assert dict(value(None).mapping()) == {}
    assert value(None).items() == ()
    assert value({"x": None}).get("x") is None


def test_a_wrong_choice_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(ServiceFileError) as caught:
        value("arm46").choice(["x86_64", "arm64"])
    assert "x86_64, arm64" in caught.value.message
    assert caught.value.hint == "did you mean arm64?"


def test_a_value_from_a_variable_is_not_shown_in_messages() -> None:
    tree = from_plain({"x": ["s3cret"]}, FilePlace("other.yml", 9))
    moved = tree.moved(value("ref"))
    leaf = moved.mapping()["x"].items()[0]
    assert (leaf.path, leaf.place, leaf.origin) == ("a.b.x[0]", HERE, FilePlace("other.yml", 9))
    with pytest.raises(ServiceFileError) as caught:
        leaf.integer(1, 2)
    assert "s3cret" not in caught.value.message
    assert caught.value.message.endswith("not a string (written in other.yml:9)")


def test_values_are_not_shown_in_the_repr() -> None:
    assert "s3cret" not in repr(value({"x": "s3cret"}))
    assert "s3cret" not in repr(parse_yaml("x: s3cret", "f.yml"))


def test_intrinsic_functions_are_recognised_by_tag_and_by_key() -> None:
    tree = parse_yaml(
        "a: !GetAtt X.Arn\nb: {Ref: X}\nc: {'Fn::Sub': x}\nd: {Ref: X, y: 1}\ne: {x: 1}", "f.yml"
    ).mapping()
    assert [tree[key].intrinsic() for key in "abcde"] == ["!GetAtt", "Ref", "Fn::Sub", None, None]
    with pytest.raises(ServiceFileError, match="resolved by CloudFormation"):
        tree["a"].text()
