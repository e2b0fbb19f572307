"""The event of a request, field by field as API Gateway documents payload format 1.0."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from hitless.cli.invoke import header_of
from hitless.errors import UsageError
from hitless.worker.event import EventBuilder, RouteTable
from hitless.worker.request import Request
from hitless.worker.spec import PoolSpec, RouteSpec
from hitless.workers.invoke import rest_event

pytestmark = pytest.mark.unit

ROUTES = (
    RouteSpec("GET", "/zones", "/zones"),
    RouteSpec("GET", "/zones/{area}/{city}", "/zones/(?P<area>[^/]+)/(?P<city>[^/]+)"),
    RouteSpec("ANY", "/files/{proxy+}", "/files/(?P<proxy>.+)"),
)
NOW = 1795506626.123  # 2026-11-24T07:50:26.123Z
ID = "0f9c9cd2-5b1f-4a53-9ad1-8c7a0c64c0f5"


def spec(**changes: Any) -> PoolSpec:
    fields: dict[str, Any] = {
        "key": "dev-r3-api-1", "service": "worldclock", "stage": "dev", "release": 3, "function": "api",
        "handler": "app.main", "task_root": "/task", "environment": {}, "timeout_s": 6, "memory_mb": 128, "workers": 2,
        "region": "eu-west-1", "routes": ROUTES, "log_dir": "/logs", "release_header": True, "commit": "",
    }  # fmt: skip
    return PoolSpec(**{**fields, **changes})


def event_of(
    target: str = "/zones",
    method: str = "GET",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    body: bytes = b"",
    internal: dict[bytes, bytes] | None = None,
) -> dict[str, Any]:
    request = Request(method, target, list(headers), body)
    request.internal = internal or {}
    event = EventBuilder(spec()).build(request, ID, NOW)
    assert event is not None
    return event


def test_an_event_has_the_documented_keys_and_null_for_missing_values() -> None:
    event = event_of()
    assert list(event) == [
        "resource", "path", "httpMethod", "headers", "multiValueHeaders", "queryStringParameters",
        "multiValueQueryStringParameters", "pathParameters", "stageVariables", "requestContext", "body",
        "isBase64Encoded",
    ]  # fmt: skip
    assert (event["resource"], event["path"], event["httpMethod"]) == ("/zones", "/zones", "GET")
    for name in (
        "queryStringParameters",
        "multiValueQueryStringParameters",
        "pathParameters",
        "stageVariables",
        "body",
    ):
        assert event[name] is None
    assert event["isBase64Encoded"] is False


def test_header_names_have_api_gateways_case_and_repeated_ones_are_in_the_multi_value_map() -> None:
    headers = (
        (b"host", b"api.example.org:8080"),
        (b"USER-AGENT", b"curl/8"),
        (b"authorization", b"Bearer x"),
        (b"X-Custom", b"1"),
        (b"x-custom", b"2"),
        (b"connection", b"keep-alive"),
    )
    event = event_of(headers=headers)
    assert event["headers"]["Host"] == "api.example.org:8080"
    assert event["headers"]["User-Agent"] == "curl/8"
    assert event["headers"]["Authorization"] == "Bearer x"
    assert event["headers"]["x-custom"] == "2"
    assert event["multiValueHeaders"]["x-custom"] == ["1", "2"]
    assert "connection" not in event["headers"]


def test_the_gateways_own_headers_become_forwarded_headers_and_are_hidden() -> None:
    headers = (
        (b"x-forwarded-for", b"198.51.100.7"),
        (b"x-forwarded-for", b"203.0.113.9"),
        (b"x-forwarded-proto", b"ftp"),
    )
    event = event_of(headers=headers, internal={b"x-hl-proto": b"https", b"x-hl-port": b"443", b"x-hl-id": b"1"})
    assert event["headers"]["X-Forwarded-For"] == "198.51.100.7, 203.0.113.9"
    assert event["headers"]["X-Forwarded-Proto"] == "https"
    assert event["headers"]["X-Forwarded-Port"] == "443"
    assert event["requestContext"]["identity"]["sourceIp"] == "203.0.113.9"
    assert not [name for name in event["headers"] if name.lower().startswith("x-hl-")]


def test_a_gateway_that_sends_only_its_port_uses_http() -> None:
    event = event_of(headers=((b"x-forwarded-proto", b"https"),), internal={b"x-hl-port": b"8080"})
    assert event["headers"]["X-Forwarded-Proto"] == "http"
    assert event["multiValueHeaders"]["X-Forwarded-Proto"] == ["http"]


def test_a_trace_id_is_kept_or_generated() -> None:
    made = event_of()["headers"]["X-Amzn-Trace-Id"]
    assert made.startswith("Root=1-6b0541c2-")
    assert len(made) == len("Root=1-") + 8 + 1 + 24
    assert event_of(headers=((b"x-amzn-trace-id", b"Root=1-a-b"),))["headers"]["X-Amzn-Trace-Id"] == "Root=1-a-b"
    event = event_of()
    assert event["multiValueHeaders"]["X-Amzn-Trace-Id"] == [event["headers"]["X-Amzn-Trace-Id"]]


def test_the_headers_of_w3c_traces_reach_the_handler_unchanged() -> None:
    # the examples of https://www.w3.org/TR/trace-context/
    parent, state = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
    headers = event_of(headers=((b"traceparent", parent.encode()), (b"tracestate", state.encode())))["headers"]
    assert (headers["traceparent"], headers["tracestate"]) == (parent, state)


def test_the_query_string_is_decoded_and_the_last_of_several_values_wins() -> None:
    event = event_of("/zones?a=1&a=2&name=S%C3%A3o+Paulo&flag")
    assert event["queryStringParameters"] == {"a": "2", "name": "São Paulo", "flag": ""}
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"], "name": ["São Paulo"], "flag": [""]}


def test_the_path_and_its_parameters_keep_their_percent_encoding() -> None:
    event = event_of("/zones/America/S%C3%A3o%2FPaulo")
    assert event["resource"] == "/zones/{area}/{city}"
    assert event["pathParameters"] == {"area": "America", "city": "S%C3%A3o%2FPaulo"}
    assert event["path"] == event["requestContext"]["path"] == "/zones/America/S%C3%A3o%2FPaulo"


def test_a_trailing_slash_is_not_part_of_a_greedy_parameter() -> None:
    event = event_of("/files/a/b/")
    assert event["pathParameters"] == {"proxy": "a/b"}
    assert event["path"] == "/files/a/b/"
    assert event_of("/files/a//b")["pathParameters"] == {"proxy": "a//b"}


def test_the_context_has_the_path_as_sent_when_the_gateway_dropped_leading_slashes() -> None:
    event = event_of("/zones", internal={b"x-hl-path": b"//zones"})
    assert event["path"] == "/zones"
    assert event["requestContext"]["path"] == "//zones"


def test_a_rest_apis_paths_have_the_base_path_of_the_domain_and_its_resource_has_not() -> None:
    """aws-powertools/powertools-lambda-python#579, an event of API Gateway: `"path": "/v1/payment"`, `"resource":
    "/payment"`, `"requestContext": {"resourcePath": "/payment", "path": "/v1/payment"}`.
    """
    event = event_of("/zones", internal={b"x-hl-base": b"/v1"})
    assert (event["path"], event["resource"]) == ("/v1/zones", "/zones")
    context = event["requestContext"]
    assert (context["path"], context["resourcePath"]) == ("/v1/zones", "/zones")
    sent = event_of("/zones", internal={b"x-hl-base": b"/v1", b"x-hl-path": b"//zones"})
    assert sent["requestContext"]["path"] == "/v1//zones"


def test_headers_dropped_by_a_rest_api_do_not_reach_the_handler() -> None:
    dropped = (b"Content-MD5", b"Max-Forwards", b"Proxy-Authenticate", b"Server", b"WWW-Authenticate", b"TE")
    event = event_of(headers=(*((name, b"x") for name in dropped), (b"Range", b"bytes=0-1")))
    assert not {name.decode().lower() for name in dropped} & event["headers"].keys()
    assert event["headers"]["range"] == "bytes=0-1"


def test_a_greedy_parameter_matches_the_rest_of_the_path_for_any_method() -> None:
    event = event_of("/files/a/b/c.txt", method="DELETE")
    assert event["pathParameters"] == {"proxy": "a/b/c.txt"}


def test_an_unknown_route_has_no_event() -> None:
    assert EventBuilder(spec()).build(Request("GET", "/nowhere", []), ID, NOW) is None
    assert EventBuilder(spec()).build(Request("POST", "/zones", []), ID, NOW) is None


def test_a_trailing_slash_reaches_the_same_route() -> None:
    assert RouteTable(ROUTES).match("GET", "/zones/") == (ROUTES[0], None)


def test_an_absolute_target_is_reduced_to_its_path() -> None:
    assert event_of("http://localhost:8080/zones?x=1")["path"] == "/zones"


def test_a_body_that_is_not_utf_8_is_base64() -> None:
    event = event_of(method="POST", target="/files/x", body=b"\xff\x00")
    assert event["isBase64Encoded"] is True
    assert base64.b64decode(event["body"]) == b"\xff\x00"
    assert event_of(method="POST", target="/files/x", body="é".encode())["body"] == "é"


def test_the_request_context_is_complete() -> None:
    headers = ((b"host", b"api.example.org"), (b"user-agent", b"curl/8"), (b"x-forwarded-for", b"203.0.113.9"))
    context = event_of(headers=headers)["requestContext"]
    identity = context.pop("identity")
    assert context.pop("extendedRequestId")
    assert context == {
        "resourceId": None, "resourcePath": "/zones", "httpMethod": "GET",
        "requestTime": "24/Nov/2026:07:50:26 +0000", "path": "/zones", "accountId": "000000000000",
        "protocol": "HTTP/1.1", "stage": "dev", "domainPrefix": "api", "requestTimeEpoch": 1795506626123,
        "requestId": ID, "domainName": "api.example.org", "deploymentId": "3", "apiId": "worldclock-dev",
    }  # fmt: skip
    assert (identity["sourceIp"], identity["userAgent"]) == ("203.0.113.9", "curl/8")
    assert sorted(identity) == [
        "accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType",
        "cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "sourceIp", "user", "userAgent", "userArn",
    ]  # fmt: skip


def test_two_events_share_no_mutable_objects() -> None:
    builder = EventBuilder(spec())
    first = builder.build(Request("GET", "/zones", [(b"a", b"1")]), ID, NOW)
    assert first is not None
    first["headers"].clear()
    first["requestContext"]["identity"].clear()
    second = builder.build(Request("GET", "/zones", [(b"a", b"1")]), ID, NOW)
    assert second is not None
    assert second["headers"]["a"] == "1"
    assert second["requestContext"]["identity"]


def test_a_pools_spec_survives_a_round_trip_through_json() -> None:
    assert PoolSpec.from_json(spec(environment={"A": "é"}).to_json()) == spec(environment={"A": "é"})
    with pytest.raises(ValueError, match="not a pool's spec"):
        PoolSpec.from_json('{"routes": [], "key": 1}')


def test_a_pools_spec_names_only_what_it_needs_so_that_an_earlier_version_can_read_it() -> None:
    assert {"cpu_weight", "storage_mb", "node", "fresh"}.isdisjoint(json.loads(spec().to_json()))
    assert json.loads(spec(cpu_weight=200).to_json())["cpu_weight"] == 200


def test_the_headers_of_an_invocation_replace_its_defaults() -> None:
    event = rest_event(spec(), "GET", "/zones", b"{}", [(b"content-type", b"text/plain"), (b"X-Trace", b"7")])
    assert event is not None
    sent = {name: value for name, value in event["headers"].items() if not name.startswith(("X-Forwarded", "X-Amzn"))}
    assert sent == {
        "Host": "localhost",
        "User-Agent": "hitless-invoke",
        "content-type": "text/plain",
        "x-trace": "7",
    }


@pytest.mark.parametrize("line", ["X-Trace", ": 7", "X Trace: 7", "X: a\r\nB: c"])
def test_a_header_that_is_not_one_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="is not NAME: VALUE"):
        header_of(line)
