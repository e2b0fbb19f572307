"""Reading one response, in any number of pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.drill.response import MAX_HEAD_BYTES, MAX_KEPT_BODY_BYTES, BadResponse, Http1Response

pytestmark = pytest.mark.unit

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Hitless-Release: 12\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n"
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nx-hitless-shielded: 1\r\n\r\n"
WHOLE = [LENGTH, CHUNKED, INTERIM]


def feed(answer: Http1Response, data: bytes, cuts: list[int]) -> list[bool]:
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [answer.feed(data[a:b]) for a, b in pairwise(places) if b > a]


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 300), max_size=12))
def test_a_response_is_complete_with_its_last_byte(data: bytes, cuts: list[int]) -> None:
    answer = Http1Response()
    *before, last = feed(answer, data, cuts)
    assert last
    assert not any(before)
    assert answer.surplus == b""


def test_a_response_has_status_release_and_shield() -> None:
    answer = Http1Response()
    answer.feed(LENGTH)
    assert (answer.status, answer.release, answer.shielded, answer.keep_alive) == (200, b"12", False, True)
    answer = Http1Response()
    answer.feed(INTERIM)
    assert (answer.status, answer.release, answer.shielded) == (204, b"", True)


@pytest.mark.parametrize("data", WHOLE)
def test_bytes_after_the_response_are_surplus(data: bytes) -> None:
    answer = Http1Response()
    assert answer.feed(data + b"more")
    assert answer.surplus == b"more"


@given(st.sampled_from(WHOLE), st.integers(0, 300))
def test_an_early_end_does_not_complete_a_response(data: bytes, cut: int) -> None:
    answer = Http1Response()
    answer.feed(data[: cut % len(data)])
    assert not answer.end()


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    answer = Http1Response()
    assert not answer.feed(b"HTTP/1.1 200 OK\r\n\r\nany")
    assert not answer.keep_alive
    assert answer.end()


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_a_response_whose_status_forbids_a_body_has_none(status: bytes) -> None:
    answer = Http1Response()
    assert answer.feed(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 7\r\n\r\n")


def test_a_response_to_head_has_no_body_even_with_a_content_length() -> None:
    assert Http1Response(bodiless=True).feed(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")


@pytest.mark.parametrize(
    ("headers", "stays"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nconnection: Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_the_response_says_whether_the_connection_stays_open(headers: bytes, stays: bool) -> None:
    answer = Http1Response()
    assert answer.feed(headers + b"Content-Length: 0\r\n\r\n")
    assert answer.keep_alive is stays


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b"\x16\x03\x01",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * (MAX_HEAD_BYTES + 1),
    ],
)
def test_invalid_http_is_a_bad_response(data: bytes) -> None:
    with pytest.raises(BadResponse):
        Http1Response().feed(data)


@pytest.mark.parametrize(
    ("header", "body", "agrees"),
    [
        (b"5", b'{"release": 5}', True),
        (b"5", b'{"release": "5"}', True),
        (b"5", b'{"release": "4"}', False),
        (b"5", b'{"release": 4}', False),
        (b"5", b'{"release": null}', True),
        (b"5", b'{"release": {"number": 4}}', True),
        (b"5", b'{"item": {"release": 4}}', True),
        (b"5", b'[{"release": 4}]', True),
        (b"5", b'"release"', True),
        (b"5", b'{"release": 4', True),
        (b"5", b"", True),
        (b"", b'{"release": 4}', True),
    ],
)
def test_a_header_and_a_body_with_different_releases_are_a_mismatch(header: bytes, body: bytes, agrees: bool) -> None:
    answer = Http1Response()
    named = b"x-hitless-release: " + header + b"\r\n" if header else b""
    assert answer.feed(b"HTTP/1.1 200 OK\r\n" + named + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert (answer.fault(check_release=True) is None) is agrees
    assert answer.fault(check_release=False) is None


def test_a_large_body_is_kept_only_up_to_the_limit() -> None:
    size = 3 * MAX_KEPT_BODY_BYTES
    answer = Http1Response()
    answer.feed(b"HTTP/1.1 200 OK\r\nx-hitless-release: 5\r\nContent-Length: %d\r\n\r\n" % size)
    piece = b"x" * 65_536
    results = [answer.feed(piece) for _ in range(size // len(piece))]
    assert results[-1]
    assert not any(results[:-1])
    assert answer.kept_bytes < MAX_KEPT_BODY_BYTES + len(piece)
