"""YAML as Serverless Framework reads it, with positions and limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import ServiceFileError
from hitless.service.load import MAX_LEVELS, parse_yaml

pytestmark = pytest.mark.unit


def fault(text: str) -> ServiceFileError:
    with pytest.raises(ServiceFileError) as caught:
        parse_yaml(text, "f.yml")
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("scalar", "data"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("08:30", "08:30"),
        ("1:30", "1:30"),
        ("2026-11-24", "2026-11-24"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("Null", None),
        ("nUll", "nUll"),
        ("12", 12),
        ("0123", 123),
        ("-0x1F", -31),
        ("0o17", 15),
        ("0b101", 5),
        ("1_000", 1000),
        ("1.50", 1.5),
        ("1e3", 1000.0),
        (".inf", float("inf")),
        ("1.2.3", "1.2.3"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("9" * 101, "9" * 101),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(scalar: str, data: object) -> None:
    found = parse_yaml(f"a: {scalar}", "f.yml").mapping()["a"].data
    assert found == data
    assert type(found) is type(data)


def test_an_entry_has_the_position_of_its_key_and_its_path() -> None:
    tree = parse_yaml("a:\n  b:\n    - x\n    -\n      c: 1\n", "f.yml")
    item = tree.mapping()["a"].mapping()["b"].items()[1].mapping()["c"]
    assert (item.path, str(item.place), item.place.column) == ("a.b[1].c", "f.yml:5", 7)
    assert str(tree.mapping()["a"].mapping()["b"].place) == "f.yml:2"


def test_keys_are_read_as_strings_as_written() -> None:
    assert list(parse_yaml("200: a\ntrue: b\n'x y': c", "f.yml").mapping()) == ["200", "true", "x y"]


def test_merged_maps_are_combined_and_own_keys_take_precedence() -> None:
    tree = parse_yaml("b: &b {x: 1, y: 2}\nc: &c {x: 8, y: 3, z: 4}\na:\n  y: 9\n  <<: [*b, *c]\n", "f.yml")
    assert tree.mapping()["a"].plain() == {"x": 1, "y": 9, "z": 4}
    assert parse_yaml("b: &b {x: 1}\na: {<<: *b, x: 2}", "f.yml").mapping()["a"].plain() == {"x": 2}
    assert fault("a: {<<: 5}").message == "f.yml:1: a: << merges maps only"


def test_cloudformations_short_tags_are_read() -> None:
    text = "a: !Ref X\nb: !Join ['-', [a, !Sub '${AWS::Region}']]\nc: !If [x, {y: 1}, !Ref 'AWS::NoValue']"
    tree = parse_yaml(text, "f.yml").mapping()
    assert [tree[key].tag for key in "abc"] == ["!Ref", "!Join", "!If"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("a: 1\nb:\n\t- x\n", "f.yml:3: is not YAML: a tab indents this line", "spaces"),
        ("a: 1\n\tb: 2\n", "f.yml:2: is not YAML: a tab indents this line", "spaces"),
        ("a: b: c\n", "f.yml:1: is not YAML: mapping values", "quotes"),
        ("a:\n  b: [GET /{x}]\nc: 1", "f.yml:2: is not YAML", "quote what has braces"),
        ("a: [1,\nb: 2\n", "f.yml:1: is not YAML", ""),
        ("a: 'x\n", "f.yml:", "quotes"),
        ("a: *x\n", "f.yml:1: is not YAML: found undefined alias", ""),
        ("a: 1\n---\nb: 2\n", "f.yml:2: is not YAML", "one document"),
        ("a: \x01\n", "f.yml:1: is not YAML: a control character", ""),
        ("a: 1\nb: 2\na: 3\n", "f.yml:3: the key a appears twice, first in line 1", ""),
        ("x:\n  a: 1\n  a: 3\n", "f.yml:3: x: the key a appears twice", ""),
        ("? [a]\n: 1\n", "f.yml:1: a key must be a string", ""),
        ("a: !Foo x\n", "f.yml:1: !Foo is an unknown tag", "CloudFormation"),
        ("a: !!binary x\n", "f.yml:1: the type", ""),
        ("a: !!python/object:os.system x\n", "f.yml:1: the type", ""),
        ("", "f.yml is empty", "init"),
        ("# nothing\n", "f.yml is empty", "init"),
    ],
)
def test_an_invalid_file_is_an_error_with_line_and_hint(text: str, message: str, hint: str) -> None:
    error = fault(text)
    assert error.message.startswith(message)
    assert hint in error.hint


def test_exponential_aliases_are_an_error() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "with its aliases written out" in fault("\n".join(lines)).message


def test_merge_keys_that_expand_exponentially_are_an_error() -> None:
    lines = ["a0: &a0 {x: [1, 2, 3, 4, 5, 6, 7, 8, 9]}"]
    lines += [f"a{i}: &a{i} {{{', '.join(f'k{n}: {{<<: *a{i - 1}}}' for n in range(10))}}}" for i in range(1, 9)]
    assert "with its aliases written out" in fault("\n".join(lines)).message


def test_a_recursive_alias_is_an_error() -> None:
    assert "with its aliases written out" in fault("a: &a [*a]").message
    assert "with its aliases written out" in fault("a: &a {<<: *a}").message


def test_deep_nesting_is_an_error_before_recursion() -> None:
    assert f"deeper than {MAX_LEVELS} levels" in fault("[" * 200_000).message
    assert f"deeper than {MAX_LEVELS} levels" in fault("{a: " * 200_000).message


@given(st.text(alphabet="ab:-[]{}&*!|>'\"\n\t #<?%@,0", max_size=60))
def test_any_text_is_parsed_or_refused_with_an_error(text: str) -> None:
    said = "f.yml"
    try:
        parse_yaml(text, "f.yml")
    except ServiceFileError as error:
        said = error.message
    assert said.startswith("f.yml")
