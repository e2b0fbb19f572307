"""The grammar of variables: valid ones, text that only looks like one, malformed ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.service.grammar import Literal, Template, Variable, VariableSource, VariableSyntaxError, parse

pytestmark = pytest.mark.unit


def only(text: str) -> Variable:
    variable = parse(text).whole
    assert variable is not None
    return variable


def source(text: str) -> VariableSource:
    (found,) = only(text).sources
    assert isinstance(found, VariableSource)
    return found


def plain(template: Template | None) -> str:
    assert template is not None
    (text,) = template.parts
    assert isinstance(text, str)
    return text


def test_a_source_has_a_kind_and_an_address() -> None:
    found = source("${self:custom.a-b.c}")
    assert found.kind == "self"
    assert plain(found.address) == "custom.a-b.c"


def test_a_source_may_take_parameters() -> None:
    found = source("${file(./config.yml):a.b}")
    assert [plain(param) for param in found.params] == ["./config.yml"]
    assert plain(found.address) == "a.b"
    assert source("${file(a.yml)}").address is None
    assert [plain(param) for param in source("""${x(one, "t,w)o", 'th}ree')}""").params] == ["one", "t,w)o", "th}ree"]


def test_an_address_may_contain_colons_and_quotes() -> None:
    assert plain(source("${ssm:/a:b:c}").address) == "/a:b:c"
    assert plain(source('${self:"custom.x, y"}').address) == "custom.x, y"
    assert source("${self:}").address is None


def test_defaults_keep_their_types() -> None:
    assert only("${opt:a, 'text', 5, 1.5, true, false, null}").sources[1:] == (
        Template(("text",)),
        Literal(5),
        Literal(1.5),
        Literal(True),
        Literal(False),
        Literal(None),
    )


def test_a_default_may_be_another_source_with_or_without_braces() -> None:
    sources = only("${opt:a, self:b, ${env:C}}").sources
    assert isinstance(sources[1], VariableSource)
    assert sources[1].kind == "self"
    assert isinstance(sources[2], Template)
    assert sources[2].whole is not None


def test_a_variables_address_may_contain_variables() -> None:
    address = source("${self:custom.${sls:stage}.x}").address
    assert address is not None
    before, inner, after = address.parts
    assert (before, after) == ("custom.", ".x")
    assert isinstance(inner, Variable)
    assert inner.text == "${sls:stage}"


def test_text_around_a_variable_is_kept() -> None:
    parts = parse("a-${sls:stage}-${opt:x}b").parts
    assert [part if isinstance(part, str) else part.text for part in parts] == [
        "a-",
        "${sls:stage}",
        "-",
        "${opt:x}",
        "b",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "$",
        "${}",
        "${AWS::Region}",
        "${!Literal}",
        "${shell}",
        "${Self:x}",
        "$(x)",
        "a$b",
        "${ self:x}",
        "${aws::x}",
        "${1a:b}",
        "$ {self:x}",
        "C:\\dir\\x",
        "ends with \\",
    ],
)
def test_text_that_only_looks_like_a_variable_is_text(text: str) -> None:
    assert parse(text).parts == (text,)


def test_a_variable_inside_other_braces_is_a_variable() -> None:
    before, inner, after = parse("${!x ${sls:stage}}").parts
    assert (before, after) == ("${!x ", "}")
    assert isinstance(inner, Variable)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r"\${self:x}", "${self:x}"),
        (r"a \${self:x} b", "a ${self:x} b"),
        ("$${self:x}", "${self:x}"),
        (r"\\\${self:x}", r"\${self:x}"),
    ],
)
def test_escaped_variables_are_text_without_the_escape(text: str, read: str) -> None:
    assert parse(text).parts == (read,)


def test_an_even_number_of_backslashes_escapes_only_itself() -> None:
    before, inner = parse(r"\\${self:x}").parts
    assert before == "\\"
    assert isinstance(inner, Variable)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${self:a", "brace"),
        ("${self:a, 'b'", "brace"),
        ("${file(a.yml", "parenthesis"),
        ("${opt:a, 'b}", "quote"),
        ("${opt:a, b}", "quotes"),
        ("${opt:a, }", "nothing"),
        ("${self:${AWS::Region}}", "inside"),
        ("${opt:a 'b' 'c', d e}", "quotes"),
        ('${opt:a, "\\x"}', "JSON"),
        ("${file(a) b}", "brace"),
    ],
)
def test_a_malformed_variable_is_an_error_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(VariableSyntaxError, match=message):
        parse(text)


@given(st.text(alphabet="${}():,'\"\\ selfopta1.", max_size=40))
def test_any_text_is_parsed_or_an_error(text: str) -> None:
    said = ""
    try:
        template = parse(text)
    except VariableSyntaxError as error:
        said = str(error)
    if "${" not in text:
        assert template.parts == (text,)
    else:
        assert said or template.parts
