"""Handlers' results and their HTTP responses."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest

from hitless.worker.handler import MAX_RESULT_BYTES
from hitless.worker.response import MalformedResponse, render

pytestmark = pytest.mark.unit


def answer_of(result: Any, *, head_only: bool = False, extra: str = "") -> tuple[int, list[str], bytes]:
    status, answer = render(result, head_only=head_only, extra=extra)
    head, _, body = answer.partition(b"\r\n\r\n")
    return status, head.decode().split("\r\n"), body


def test_a_plain_response_is_json_by_default_and_has_its_length() -> None:
    status, head, body = answer_of({"statusCode": 201, "body": "é"}, extra="x-hitless-release: 3\r\n")
    assert status == 201
    assert head[0] == "HTTP/1.1 201 Created"
    assert "content-type: application/json" in head
    assert "content-length: 2" in head
    assert "x-hitless-release: 3" in head
    assert body == "é".encode()


def test_a_status_may_be_missing_or_a_string_of_digits() -> None:
    assert answer_of({"body": "x"})[0] == 200
    assert answer_of({"statusCode": "404"})[0] == 404


def test_a_decimal_in_status_and_headers_is_sent_as_a_number() -> None:
    status, head, _ = answer_of({"statusCode": Decimal(202), "headers": {"Price": Decimal("1.50")}})
    assert status == 202
    assert "Price: 1.50" in head
    for value in (Decimal("NaN"), Decimal("Infinity"), Decimal("200.5")):
        with pytest.raises(MalformedResponse):
            answer_of({"statusCode": value})


def test_a_handlers_own_content_type_is_kept_in_any_letter_case() -> None:
    head = answer_of({"statusCode": 200, "headers": {"Content-Type": "text/html"}, "body": "x"})[1]
    assert [line for line in head if line.lower().startswith("content-type")] == ["Content-Type: text/html"]


def test_headers_and_multi_value_headers_are_merged_and_a_pair_in_both_is_sent_once() -> None:
    result = {
        "statusCode": 200,
        "headers": {"A": "1", "Count": 5, "Flag": True, "None": None},
        "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2"], "a": ["1", "2"]},
    }
    head = answer_of(result)[1]
    assert [line for line in head if line.lower().startswith("a:")] == ["a: 1", "a: 2"]
    assert [line for line in head if line.startswith("Set-Cookie")] == ["Set-Cookie: a=1", "Set-Cookie: b=2"]
    assert "Count: 5" in head
    assert "Flag: true" in head
    assert not [line for line in head if line.startswith("None")]


def test_a_handler_cannot_set_framing_headers() -> None:
    head = answer_of(
        {"statusCode": 200, "headers": {"Content-Length": "7", "Transfer-Encoding": "chunked"}, "body": "x"}
    )[1]
    assert "content-length: 1" in head
    assert not [line for line in head if "chunked" in line or line.endswith(" 7")]


def test_a_base64_body_is_sent_decoded() -> None:
    body = base64.b64encode(b"\x00\xff").decode()
    assert answer_of({"statusCode": 200, "body": body, "isBase64Encoded": True})[2] == b"\x00\xff"


def test_head_and_204_and_304_have_no_body() -> None:
    _, head, body = answer_of({"statusCode": 200, "body": "abc"}, head_only=True)
    assert body == b""
    assert "content-length: 3" in head
    for status in (204, 304):
        _, head, body = answer_of({"statusCode": status, "body": "abc"})
        assert body == b""
        assert not [line for line in head if line.startswith("content-length")]


@pytest.mark.parametrize(
    "result",
    [
        None,
        "text",
        [],
        {"statusCode": 200, "surprise": 1},
        {"statusCode": "abc"},
        {"statusCode": 99},
        {"statusCode": 100},
        {"statusCode": 600},
        {"statusCode": True},
        {"statusCode": 200.5},
        {"statusCode": None},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "body": 5},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "headers": {"a": ["b"]}},
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "headers": {"": "c"}},
        {"statusCode": 200, "headers": {1: "c"}},
        {"statusCode": 200, "multiValueHeaders": {"a": "b"}},
        {"statusCode": 200, "body": "%%%", "isBase64Encoded": True},
        {"statusCode": 200, "headers": {"location": "/x\r\nset-cookie: a=b"}},
        {"statusCode": 200, "headers": {"location": "/x\nset-cookie: a=b"}},
        {"statusCode": 200, "headers": {"location": "/x\rset-cookie: a=b"}},
        {"statusCode": 200, "headers": {"location": "/x\0"}},
        {"statusCode": 200, "multiValueHeaders": {"location": ["/x\r\n\r\nbody"]}},
        {"statusCode": 200, "headers": {"a\r\nb": "c"}},
        {"statusCode": 200, "body": "x" * (MAX_RESULT_BYTES + 1)},
        {"statusCode": 200, "body": '"' * (MAX_RESULT_BYTES // 2 + 1)},
    ],
)
def test_results_that_api_gateway_rejects_are_malformed(result: Any) -> None:
    with pytest.raises(MalformedResponse):
        render(result, head_only=False, extra="")


def test_unencodable_text_still_makes_a_complete_response() -> None:
    _, head, body = answer_of({"statusCode": 200, "body": "\ud800", "headers": {"a": "\ud800"}})
    assert body == b"?"
    assert "a: ?" in head
