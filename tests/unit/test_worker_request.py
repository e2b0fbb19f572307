"""Requests in pieces, too large, or malformed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.worker.request import LARGEST_BODY_BYTES, LARGEST_HEADER_BYTES, RequestReader

pytestmark = pytest.mark.unit

TWO = (
    b"POST /a?b=c HTTP/1.1\r\nHost: h\r\nX-HL-Id: 7\r\nContent-Length: 5\r\n\r\nhello"
    b"GET /d HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
)


@given(st.lists(st.integers(0, len(TWO)), max_size=12))
def test_requests_do_not_depend_on_how_their_bytes_are_split(cuts: list[int]) -> None:
    reader = RequestReader()
    edges = sorted({0, len(TWO), *cuts})
    for start, end in pairwise(edges):
        assert reader.feed(TWO[start:end])
    first, second = reader.ready
    assert (first.method, first.target, first.body, first.keep_alive) == ("POST", "/a?b=c", b"hello", True)
    assert first.headers == [(b"Host", b"h"), (b"Content-Length", b"5")]
    assert first.internal == {b"x-hl-id": b"7"}
    assert (second.method, second.target, second.body, second.keep_alive) == ("GET", "/d", b"", False)
    assert not reader.middle


def test_a_chunked_body_is_assembled() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert reader.ready[0].body == b"abcde"


def test_expect_100_continue_gets_its_interim_response() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert reader.interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert reader.middle


def test_a_declared_body_over_the_limit_is_refused_and_dropped() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n" % (LARGEST_BODY_BYTES + 1))
    assert reader.interim == b""
    for _ in range(LARGEST_BODY_BYTES // 65536):
        reader.feed(b"x" * 65536)
    reader.feed(b"x")
    assert reader.ready[0].refusal == 413
    assert reader.ready[0].body == b""


def test_a_chunked_body_over_the_limit_is_refused() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(LARGEST_BODY_BYTES // 65536 + 1):
        reader.feed(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    reader.feed(b"0\r\n\r\n")
    assert reader.ready[0].refusal == 413
    assert reader.ready[0].body == b""


def test_a_body_of_exactly_the_limit_is_accepted() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % LARGEST_BODY_BYTES)
    reader.feed(b"x" * LARGEST_BODY_BYTES)
    assert reader.ready[0].refusal == 0
    assert len(reader.ready[0].body) == LARGEST_BODY_BYTES


def test_headers_over_the_limit_are_refused_whether_they_end_or_not() -> None:
    reader = RequestReader()
    reader.feed(b"GET / HTTP/1.1\r\na: " + b"x" * LARGEST_HEADER_BYTES + b"\r\n\r\n")
    assert reader.ready[0].refusal == 431
    endless = RequestReader()
    alive = endless.feed(b"GET / HTTP/1.1\r\na: ")
    for _ in range(40):
        if not alive:
            break
        alive = endless.feed(b"x" * 4096)
    assert not alive
    assert endless.ready[-1].refusal == 431


def test_invalid_http_gets_400_and_reading_stops() -> None:
    reader = RequestReader()
    assert not reader.feed(b"\x16\x03\x01\x02\x00\x01\x00")
    assert reader.ready[0].refusal == 400
    assert not reader.ready[0].keep_alive


def test_a_request_with_both_content_length_and_chunks_is_refused() -> None:
    reader = RequestReader()
    reader.feed(
        b"POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /smuggled HTTP/1.1\r\n\r\n"
    )
    assert not [request for request in reader.ready if request.target == "/smuggled" and not request.refusal]


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_an_upgrade_offer_is_declined_and_the_connection_stays_open(method: bytes) -> None:
    reader = RequestReader()
    offer = b" /a HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nhi"
    assert reader.feed(method + offer)
    assert reader.feed(b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n")
    assert [request.target for request in reader.ready] == ["/a", "/b"]
    assert reader.ready[0].body == b"hi"


def test_trailers_are_always_dropped() -> None:
    reader = RequestReader()
    head = b"POST / HTTP/1.1\r\nx-hl-id: 1\r\nx-forwarded-for: 192.0.2.1\r\ntransfer-encoding: chunked\r\n\r\n"
    assert reader.feed(head + b"3\r\nabc\r\n0\r\nx-hl-id: 2\r\nx-hl-probe: 1\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n")
    (request,) = reader.ready
    assert request.internal == {b"x-hl-id": b"1"}
    assert [value for name, value in request.headers if name == b"x-forwarded-for"] == [b"192.0.2.1"]
    assert all(name != b"X-Forwarded-For" for name, _ in request.headers)
    assert request.body == b"abc"
