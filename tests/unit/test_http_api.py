"""HTTP APIs: the event of payload formats 2.0 and 1.0, and what a result means, as AWS documents them.

Expected values: docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html, unless
a test names another source.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from hitless.gateway.routes import literal_entries, pattern_entries
from hitless.gateway.state import RouteState
from hitless.service.event_sources import DEFAULT_PATH
from hitless.service.routes import compile_route
from hitless.worker.event import REST
from hitless.worker.http_api import HTTP_2, event_builder, render_1, render_2
from hitless.worker.request import Request
from hitless.worker.response import MalformedResponse
from hitless.worker.spec import PoolSpec, RouteSpec

pytestmark = pytest.mark.unit

NOW = 1583348638.390  # 2020-03-04T19:03:58.390Z
ID = "0f9c9cd2-5b1f-4a53-9ad1-8c7a0c64c0f5"


def route(line: str, payload: str = "2.0") -> RouteSpec:
    method, path = ("ANY", DEFAULT_PATH) if line == "$default" else line.split()
    return RouteSpec(method, path, compile_route(path), payload, line)


ROUTES = (
    route("GET /my/path"), route("GET /pets/{id}"), route("ANY /files/{proxy+}"), route("GET /old/{id}", "1.0"),
    RouteSpec("GET", "/rest", "/rest"), route("$default"),
)  # fmt: skip


def spec(routes: tuple[RouteSpec, ...] = ROUTES) -> PoolSpec:
    return PoolSpec(
        key="k", service="demo", stage="dev", release=3, function="api", handler="app.main", task_root="/task",
        environment={}, timeout_s=6, memory_mb=128, workers=2, region="eu-west-1", routes=routes, log_dir="/logs",
        release_header=True, commit="",
    )  # fmt: skip


def event_of(
    target: str,
    method: str = "GET",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    body: bytes = b"",
    **internal: bytes,
) -> Any:
    request = Request(method, target, list(headers), body)
    request.internal = {b"x-hl-port": b"443", b"x-hl-proto": b"https"}
    request.internal |= {f"x-hl-{name}".encode(): value for name, value in internal.items()}
    return event_builder(spec()).build(request, ID, NOW)


def test_an_event_of_format_2_has_the_documented_fields() -> None:
    headers = (
        (b"Host", b"id.execute-api.us-east-1.amazonaws.com"),
        (b"User-Agent", b"agent"),
        (b"Header1", b"value1"),
        (b"Header2", b"value1"),
        (b"header2", b"value2"),
        (b"Cookie", b"cookie1; cookie2"),
        (b"X-Forwarded-For", b"192.0.2.1"),
        (b"X-Amzn-Trace-Id", b"Root=1-5e6722a7-cc56xmpl46db7ae02d4da47e"),
        (b"Content-Type", b"text/plain"),
    )
    target = "/my/path?parameter1=value1&parameter1=value2&parameter2=value"
    assert event_of(target, "POST", headers, b"Hello from Lambda") == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/my/path",
        "rawQueryString": "parameter1=value1&parameter1=value2&parameter2=value",
        "cookies": ["cookie1", "cookie2"],
        "headers": {
            "host": "id.execute-api.us-east-1.amazonaws.com",
            "user-agent": "agent",
            "header1": "value1",
            "header2": "value1,value2",
            "x-forwarded-for": "192.0.2.1",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
            "x-amzn-trace-id": "Root=1-5e6722a7-cc56xmpl46db7ae02d4da47e",
            "content-type": "text/plain",
        },
        "queryStringParameters": {"parameter1": "value1,value2", "parameter2": "value"},
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "demo-dev",
            "domainName": "id.execute-api.us-east-1.amazonaws.com",
            "domainPrefix": "id",
            "http": {
                "method": "POST",
                "path": "/my/path",
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "agent",
            },
            "requestId": "MGY5YzljZDItNWI=",  # in the form of API Gateway's own
            "routeKey": "$default",
            "stage": "$default",
            "time": "04/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
        "body": "Hello from Lambda",
        "isBase64Encoded": False,
    }


def test_an_event_of_format_2_omits_missing_values() -> None:
    event = event_of("/my/path")
    assert event["routeKey"] == "GET /my/path"
    assert event["rawQueryString"] == ""
    assert not {"cookies", "queryStringParameters", "pathParameters", "stageVariables", "body"} & event.keys()


def test_the_path_is_decoded_and_the_query_string_is_not() -> None:
    """The path: github.com/hotsock/voker/pull/8, captures. The query: ministackorg/ministack#1035."""
    event = event_of("/pets/a%20b?scope=openid%20profile")
    assert (event["rawPath"], event["requestContext"]["http"]["path"]) == ("/pets/a b", "/pets/a b")
    assert event["pathParameters"] == {"id": "a b"}
    assert event["rawQueryString"] == "scope=openid%20profile"
    assert event["queryStringParameters"] == {"scope": "openid profile"}
    assert event_of("/files/a/b/c")["pathParameters"] == {"proxy": "a/b/c"}


def test_only_format_1_has_the_base_path_of_the_domain() -> None:
    """logandk/serverless-wsgi#191: "The API_GATEWAY_BASE_PATH configuration is only needed when using the payload V1.
    In the V2, the path does not have the basePath in the beginning."
    """
    assert event_of("/my/path", base=b"/v1")["rawPath"] == "/my/path"
    assert event_of("/old/7", base=b"/v1")["path"] == "/v1/old/7"


@pytest.mark.parametrize(
    ("content_type", "encoded"),
    [
        (b"text/csv", False),
        (b"application/json; charset=utf-8", False),
        (b"application/xml", False),
        (b"application/javascript", False),
        (b"application/x-www-form-urlencoded", True),
        (b"application/vnd.api+json", True),
        (b"application/octet-stream", True),
        (None, True),
    ],
)
def test_the_content_type_decides_whether_a_body_is_binary(content_type: bytes | None, encoded: bool) -> None:
    """Measured on the real service: github.com/ministackorg/ministack/pull/766."""
    headers = ((b"content-type", content_type),) if content_type else ()
    event = event_of("/upload", "POST", headers, b"a=1")
    assert event["isBase64Encoded"] is encoded
    assert event["body"] == (base64.b64encode(b"a=1").decode() if encoded else "a=1")


def test_an_event_of_format_1_is_a_rest_event_with_a_version_and_lower_case_headers() -> None:
    headers = ((b"Host", b"id.example.org"), (b"X-A", b"1"), (b"x-a", b"2"), (b"Cookie", b"s=1"))
    event = event_of("/old/a%20b?q=1&q=2", headers=headers)
    assert (event["version"], event["resource"], event["path"]) == ("1.0", "/old/{id}", "/old/a b")
    assert (event["headers"]["x-a"], event["multiValueHeaders"]["x-a"]) == ("2", ["1", "2"])
    assert event["headers"]["cookie"] == "s=1"
    assert event["multiValueQueryStringParameters"] == {"q": ["1", "2"]}
    assert (event["queryStringParameters"], event["pathParameters"]) == ({"q": "2"}, {"id": "a b"})
    assert (event["body"], event["stageVariables"], event["isBase64Encoded"]) == (None, None, False)
    context = event["requestContext"]
    assert (context["stage"], context["resourcePath"]) == ("$default", "/old/{id}")
    assert context["authorizer"] == {"claims": None, "scopes": None}
    assert (context["requestTime"], context["requestTimeEpoch"]) == ("04/Mar/2020:19:03:58 +0000", 1583348638390)


def test_each_route_of_a_function_gets_the_event_format_of_its_own_api() -> None:
    builder = event_builder(spec())
    event = builder.build(Request("GET", "/rest", []), ID, NOW)
    assert event is not None
    assert ("version" in event, builder.flavour) == (False, REST)
    builder.build(Request("GET", "/my/path", []), ID, NOW)
    assert builder.flavour is HTTP_2
    assert (HTTP_2.unknown_status, HTTP_2.unknown_body) == (404, '{"message":"Not Found"}')
    assert (HTTP_2.failed_status, HTTP_2.failed_body) == (500, '{"message":"Internal Server Error"}')


def test_in_an_http_api_a_trailing_slash_makes_another_path() -> None:
    only = event_builder(spec((route("GET /my/path"),)))
    assert only.build(Request("GET", "/my/path/", []), ID, NOW) is None
    assert event_of("/my/path/")["routeKey"] == "$default"


def response(result: Any, render: Any = render_2) -> tuple[int, list[str], str]:
    status, raw = render(result, head_only=False, extra="")
    head, _, body = raw.decode().partition("\r\n\r\n")
    return status, [line for line in head.split("\r\n")[1:] if not line.startswith(("date", "content-length"))], body


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ("Hello from Lambda!", "Hello from Lambda!"),
        ({"message": "Hello from Lambda!"}, '{"message": "Hello from Lambda!"}'),
        ([1, 2], "[1, 2]"),
        (None, "null"),
    ],
)
def test_a_result_without_a_status_is_a_json_body(result: Any, body: str) -> None:
    assert response(result) == (200, ["content-type: application/json"], body)


def test_a_result_with_a_status_is_a_response_and_each_cookie_a_header() -> None:
    result = {
        "cookies": ["cookie1", "cookie2"],
        "isBase64Encoded": False,
        "statusCode": 201,
        "headers": {"headername": "headervalue"},
        "body": "{}",
        "another": 1,
    }
    status, lines, body = response(result)
    assert (status, body) == (201, "{}")
    assert sorted(lines) == [
        "content-type: text/plain; charset=utf-8",
        "headername: headervalue",
        "set-cookie: cookie1",
        "set-cookie: cookie2",
    ]
    assert response({"statusCode": 204})[::2] == (204, "")


@pytest.mark.parametrize(
    "result", [{"statusCode": 200, "body": {}}, {"statusCode": "x"}, {"statusCode": 200, "cookies": "a"}]
)
def test_a_malformed_response_of_format_2_is_refused(result: Any) -> None:
    with pytest.raises(MalformedResponse):
        render_2(result, head_only=False, extra="")


def test_in_format_1_a_response_needs_a_status_code() -> None:
    """repost.aws/knowledge-center/api-gateway-status-codes-http-api"""
    with pytest.raises(MalformedResponse):
        render_1({"message": "Hello"}, head_only=False, extra="")
    both = {"statusCode": 200, "multiValueHeaders": {"a": ["1", "2"]}, "body": "x"}
    assert [line for line in response(both, render_1)[1] if line.startswith("a:")] == ["a: 1", "a: 2"]


def test_the_gateways_maps_mark_routes_of_an_http_api() -> None:
    def state(line: str, pool: str, http_api: bool = True) -> RouteState:
        method, path = line.split()
        return RouteState("dev.1", method, path, pool, http_api=http_api)

    alone = [state("GET /a", "p00"), state(f"ANY {DEFAULT_PATH}", "p01"), state("GET /b/{c}", "p01")]
    assert literal_entries(alone) == {"dev.1|GET|/a": "p00", "dev.1|NONE|/": "1", "p00": "1", "p01": "1"}
    assert [key for key, _ in pattern_entries(alone)["dev.1"]] == [
        "^dev[.]1[|]GET[|]/b/[^/]+$", "^dev[.]1[|][A-Z]+[|]/",
    ]  # fmt: skip
    mixed = literal_entries([*alone, state("GET /r", "p01", http_api=False)])
    assert ("dev.1|NONE|/" in mixed, "p01" in mixed, mixed["p00"]) == (False, False, "1")


def test_a_pools_spec_of_an_earlier_version_has_rest_routes() -> None:
    fields = json.loads(spec((RouteSpec("GET", "/rest", "/rest"),)).to_json())
    fields["routes"] = [{"method": "GET", "resource": "/rest", "regex": "/rest"}]
    assert not PoolSpec.from_json(json.dumps(fields)).only_http_api
