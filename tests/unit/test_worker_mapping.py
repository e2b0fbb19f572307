"""Non-proxy integrations: the framework's default templates and status codes.

Expected values: `method/integration.js` and `validate.js` of Serverless Framework, and its page on API Gateway events.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from hitless.service.routes import compile_route
from hitless.worker.event import REST
from hitless.worker.handler import HandlerFailure
from hitless.worker.http_api import event_builder
from hitless.worker.mapping import MappingEventBuilder
from hitless.worker.request import Request
from hitless.worker.spec import PoolSpec, RouteSpec
from tests.unit.test_http_api import spec

pytestmark = pytest.mark.unit

ROUTES = (
    RouteSpec("POST", "/x/{id}", compile_route("/x/{id}"), mapped="content-type: application/json\r\n"),
    RouteSpec("ANY", "/any", "/any", mapped="content-type: text/plain\r\n"),
    RouteSpec("POST", "/proxy", "/proxy"),
)
FORM = b"application/x-www-form-urlencoded"


def builder_for(routes: tuple[RouteSpec, ...] = ROUTES) -> MappingEventBuilder:
    pool: PoolSpec = spec(routes)
    builder = event_builder(pool)
    assert isinstance(builder, MappingEventBuilder)
    return builder


def built(builder: MappingEventBuilder, target: str, content_type: bytes = b"", body: bytes = b"") -> Any:
    request = Request("POST", target, [(b"content-type", content_type)] if content_type else [], body)
    request.internal = {b"x-hl-port": b"443", b"x-hl-proto": b"https"}
    return builder.build(request, "0f9c9cd2-5b1f-4a53-9ad1-8c7a0c64c0f5", 1583348638.0)


@pytest.mark.parametrize(
    ("content_type", "body", "value"),
    [
        (b"", b"", {}),
        (b"", b'{"a": 1}', {"a": 1}),
        (b"application/json; charset=utf-8", b"[1]", [1]),
        (FORM, b"a=1&b=two%20words&c=", {"a": "1", "b": "two words", "c": ""}),
    ],
)
def test_the_mapped_body_of_an_event_is_a_json_value(content_type: bytes, body: bytes, value: Any) -> None:
    event = built(builder_for(), "/x/7?q=1", content_type, body)
    assert (event["body"], event["path"], event["query"], event["method"]) == (value, {"id": "7"}, {"q": "1"}, "POST")
    assert event["requestPath"] == "/x/{id}"
    assert event["identity"]["user"] == ""


@pytest.mark.parametrize(
    ("content_type", "body", "status", "message"),
    [
        (b"application/xml", b"<a/>", 415, "Unsupported Media Type"),
        (b"application/json", b"{", 400, "Could not parse request body into json: "),
    ],
)
def test_a_body_that_no_mapping_template_fits_is_refused(
    content_type: bytes, body: bytes, status: int, message: str
) -> None:
    builder = builder_for()
    assert built(builder, "/x/7", content_type, body) is None
    head, _, text = builder.respond(Request("POST", "/x/7", [], b""), "").decode().partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert json.loads(text)["message"].startswith(message)
    assert built(builder, "/proxy")["resource"] == "/proxy"
    assert builder.flavour is REST


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("[404] no such user", 404),
        ("not now [504]", 504),
        ("Process exited before completing request", 500),
        ("Task timed out after 3.00 seconds", 504),
        ("[418] teapot", 200),
        ("plain", 200),
    ],
)
def test_an_errors_message_selects_the_response_status(message: str, status: int) -> None:
    builder = builder_for()
    built(builder, "/any")
    assert builder.flavour.fail is not None
    found, body, lines = builder.flavour.fail(HandlerFailure("ValueError", message))
    assert (found, lines) == (status, "content-type: text/plain\r\n")
    assert json.loads(body) == {"errorMessage": message, "errorType": "ValueError", "stackTrace": []}


def test_any_result_of_the_handler_is_sent_as_the_body() -> None:
    builder = builder_for((*ROUTES, RouteSpec("GET", "/h", "/h", "2.0", "GET /h")))
    built(builder, "/any")
    status, response = builder.flavour.render(["a", None], head_only=False, extra="")
    assert (status, response.partition(b"\r\n\r\n")[2]) == (200, b'["a", null]')
