"""Requests whose head is known are read without the parser, and exactly as the parser reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hitless.worker.event import EventBuilder
from hitless.worker.heads import Heads
from hitless.worker.http_api import event_builder
from hitless.worker.request import Request, RequestReader
from hitless.worker.spec import RouteSpec
from tests.unit.test_worker_event import spec

pytestmark = pytest.mark.unit

ONE, TWO = b"2c53d019-2022-4d7e-a46d-cd97d39e25ae", b"0be03efd-e892-43dd-be8d-a20748ab25ba"
LINES = (
    b"x-hl-id: " + ONE, b"x-hl-id: " + TWO, b"x-hl-id: " + TWO, b"X-HL-Id: " + ONE, b"x-hl-id:  " + ONE, b"x-hl-id: 7",
    b"x-hl-id: 2c53d019-2022-4d7e-a46d-cd97d39e\r5ae", b" folded", b"x-hl-", b"host: h", b"host: other",
    b"x-hl-port: 80", b"cookie: a=\xe9", b"content-length: 2", b"content-length: 3", b"content-length: 0",
    b"transfer-encoding: chunked", b"connection: close", b"connection: Upgrade\r\nupgrade: h2c",
    b"expect: 100-continue", b"no colon", b"nul: \0", b"",
)  # fmt: skip
TARGETS = (
    b"/a", b"/b?c=d#e", b"/" + ONE, b"/x\r\nx-hl-id: " + ONE, b"a", b"*", b"http://h/a", b"/a b", b"/a\tb", b"/\xe9",
    b"",
)  # fmt: skip
BODIES = (
    b"",
    b"hi",
    b"hey",
    b"\r\n\r\n",
    b"\r\nx-hl-id: " + ONE + b"\r\n\r\n",
    b"2\r\nhi\r\n0\r\n\r\n",
    b"GET /n HTTP/1.1\r\n\r\n",
)
PIECES = st.tuples(
    st.sampled_from((b"GET", b"POST", b"HEAD", b"CONNECT", b"ACL", b"nonsense", b"")),
    st.sampled_from(TARGETS),
    st.sampled_from((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9")),
    st.lists(st.sampled_from(LINES), max_size=4),
    st.sampled_from(BODIES),
)


def bytes_of(pieces: tuple[bytes, bytes, bytes, list[bytes], bytes]) -> bytes:
    method, target, version, lines, body = pieces
    return b"\r\n".join([b"%s %s %s" % (method, target, version), *lines, b"", body])


def read(heads: Heads | None, data: bytes) -> tuple[RequestReader, list[Any]]:
    """The reader of a new connection, and what it made of the data."""
    reader = RequestReader()
    if heads:
        heads.feed(reader, data)
    else:
        reader.feed(data)
    read = [
        (one.method, one.target, one.headers, one.internal, one.body, one.keep_alive, one.refusal)
        for one in reader.ready
    ]
    return reader, [reader.middle, *read]


def get(target: bytes = b"/zones", request_id: bytes = ONE, lines: bytes = b"host: h", body: bytes = b"") -> bytes:
    return b"GET %s HTTP/1.1\r\n%s\r\nx-hl-id: %s\r\nx-hl-port: 80\r\n\r\n%s" % (target, lines, request_id, body)


def shared(heads: Heads, data: bytes) -> Request:
    """The request, which was read without the parser."""
    request: Request = read(heads, data)[0].ready[0]
    assert request.head is not None
    return request


@given(st.lists(PIECES, min_size=2, max_size=6))
@example([(b"POST", b"/a", b"HTTP/1.1", [LINES[0], b"content-length: 2"], b"hi")] * 2)
@example([(b"GET", b"/a", b"HTTP/1.1", [one, b"X-HL-Id: " + ONE], b"") for one in LINES[:2]])
@example([(b"GET", one, b"HTTP/1.1", [LINES[0]], b"") for one in TARGETS])
@example([(b"GET", b"/a", b"HTTP/1.1", [one], b"") for one in LINES[:7]])
@example([(b"GET", b"/12345" + ONE, b"HTTP/1.1", [b"X-HL-Id: 7"], b"")] * 2)
@example([(b"POST", b"/a", b"HTTP/1.1", [LINES[0], b"content-length: 2"], one) for one in (b"hi", b"hey", b"")])
@example([(b"GET", b"/a", b"HTTP/1.1", [LINES[0], b"connection: close"], b"")] * 2)
@example([(b"GET", b"/a", b"HTTP/1.1", [LINES[0]], b"GET /n HTTP/1.1\r\n\r\n")] * 2)
@example([(b"POST", b"/a", b"HTTP/1.1", [b"content-length: 51"], b"\r\nx-hl-id: " + ONE + b"\r\n\r\n")] * 2)
@example(
    [
        (b"POST", b"/a", b"HTTP/1.1", [LINES[0], b"transfer-encoding: chunked"], one)
        for one in (b"2\r\nhi\r\n0\r\n\r\n\n", b"2\r")
    ]
)
def test_known_heads_change_nothing(several: list[tuple[bytes, bytes, bytes, list[bytes], bytes]]) -> None:
    heads = Heads()
    for data in [*map(bytes_of, several), *map(bytes_of, several)]:
        assert read(heads, data)[1] == read(None, data)[1]


@pytest.mark.parametrize(
    "second",
    [get(), get(request_id=TWO), get(b"/other"), get(b"/other", TWO)],
    ids=["the same", "another id", "another target", "both"],
)
def test_a_head_is_parsed_once(second: bytes) -> None:
    heads = Heads()
    assert read(heads, get())[0].ready[0].head is None
    request = shared(heads, second)
    assert request.internal[b"x-hl-id"] in second
    assert read(heads, get(lines=b"host: h\r\ncookie: a"))[0].ready[0].head is None


def test_few_heads_are_looked_up_while_all_are_different() -> None:
    heads = Heads()
    for number in range(1000):
        read(heads, get(lines=b"host: %d" % number))
    assert len(heads._heads) < 100
    assert any(read(heads, get())[0].ready[0].head for _ in range(200))
    shared(heads, get())


def test_requests_that_share_a_head_keep_their_own_ids() -> None:
    heads = Heads()
    read(heads, get())
    requests = [shared(heads, get(request_id=one)) for one in (ONE, TWO)]
    assert [request.internal[b"x-hl-id"] for request in requests] == [ONE, TWO]


def test_a_body_that_looks_like_a_request_with_a_known_head_stays_a_body() -> None:
    heads, reader = Heads(), RequestReader()
    read(heads, get())
    heads.feed(reader, b"POST /a HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(get()))
    heads.feed(reader, get())
    (request,) = reader.ready
    assert (request.target, request.body) == ("/a", get())


def test_the_number_of_known_heads_is_limited() -> None:
    heads = Heads()
    for number in range(1000):
        read(heads, get(lines=b"host: %d" % number))
        read(heads, get(b"/%d" % number, lines=b"host: %d" % number))
    assert max(len(table) for table in (heads._heads, heads._known)) <= 200


@pytest.mark.parametrize("kind", ["REST", "2.0", "1.0"])
def test_a_handler_that_changes_its_event_does_not_change_the_next_one(kind: str) -> None:
    payload = "" if kind == "REST" else kind
    pool = spec(routes=(RouteSpec("GET", "/zones", "/zones", payload, "GET /zones"),))
    builder, heads = event_builder(pool), Heads()
    lines = b"host: h:1\r\naccept: a\r\naccept: b\r\nuser-agent: u\r\nx-forwarded-for: 192.0.2.1"
    read(heads, get(lines=lines))
    events = [
        builder.build(shared(heads, get(lines=lines)), ONE.decode(), 1.5),
        builder.build(shared(heads, get(lines=lines)), ONE.decode(), 1.5),
        event_builder(pool).build(read(None, get(lines=lines))[0].ready[0], ONE.decode(), 1.5),
    ]
    assert events[0] == events[1] == events[2]
    assert len({json.dumps(event) for event in events}) == 1  # in the same order, too
    spoil(events[0])
    again = builder.build(shared(heads, get(lines=lines)), ONE.decode(), 1.5)
    assert again == events[1] == events[2]


def spoil(value: Any) -> None:
    """Change every container in the event."""
    if isinstance(value, dict):
        for one in value.values():
            spoil(one)
        value["spoilt"] = True
    elif isinstance(value, list):
        value.append("spoilt")


def test_a_trace_id_is_the_clients_or_made_of_the_request_id() -> None:
    builder, heads = EventBuilder(spec()), Heads()
    for lines in (b"host: h", b"host: h\r\nx-amzn-trace-id: Root=1-a"):
        read(heads, get(lines=lines))
        for request_id in (ONE, TWO):
            event = builder.build(shared(heads, get(request_id=request_id, lines=lines)), request_id.decode(), 1.5)
            assert event is not None
            made = f"Root=1-00000001-{request_id.decode().replace('-', '')[-24:]}"
            assert event["headers"]["X-Amzn-Trace-Id"] == ("Root=1-a" if b"trace" in lines else made)
            assert event["multiValueHeaders"]["X-Amzn-Trace-Id"] == [event["headers"]["X-Amzn-Trace-Id"]]
