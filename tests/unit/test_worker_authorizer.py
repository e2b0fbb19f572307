"""Lambda authorizers: what a policy allows, when the authorizer is asked, and what it gets.

Texts and statuses of refusals are in tests/conformance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hitless.worker.authorizer import (
    EXPLICIT,
    FAILED,
    IMPLICIT,
    UNAUTHORIZED,
    Authorizers,
    Denial,
    InvokedEvents,
    verdict,
)
from hitless.worker.event import EventBuilder
from hitless.worker.http_api import HttpApiEventBuilder
from hitless.worker.request import INVOKE, Request
from hitless.worker.spec import AuthorizerSpec, RouteSpec
from tests.unit.test_worker_event import ID, NOW, spec

pytestmark = pytest.mark.unit

ARN = "arn:aws:execute-api:eu-west-1:000000000000:worldclock-dev/dev/GET/zones"
ALLOW = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": ARN}
TOKEN = AuthorizerSpec("auth", "TOKEN", (("header", "auth"),), "", 300)


@pytest.mark.parametrize(
    ("statements", "denial"),
    [
        ([ALLOW], None),
        ([ALLOW | {"Resource": ["arn:aws:execute-api:*:*:*/dev/GET/*"]}], None),
        ([ALLOW | {"Action": ["execute-api:*"]}], None),
        ([ALLOW | {"Action": "EXECUTE-API:INVOKE", "Resource": "*"}], None),
        ([ALLOW | {"Resource": ARN[:-1] + "?"}], None),
        ([ALLOW | {"Resource": ARN + "x"}], IMPLICIT),
        ([ALLOW | {"Resource": ARN.upper()}], IMPLICIT),
        ([ALLOW | {"Resource": ARN.replace(":", ".")}], IMPLICIT),
        ([ALLOW | {"Action": "s3:Get*"}], IMPLICIT),
        ([], IMPLICIT),
        ([ALLOW, ALLOW | {"Effect": "Deny"}], EXPLICIT),
        ([ALLOW | {"Effect": "Deny", "Resource": "other"}, ALLOW], None),
        ([ALLOW | {"Effect": "deny"}], EXPLICIT),
        ([ALLOW | {"Condition": {}}], IMPLICIT),
        ([ALLOW, {"Effect": "Deny", "NotResource": "x", "Action": "*"}], EXPLICIT),
        ([{"Effect": "Allow"}], IMPLICIT),
        (ALLOW, None),
        (None, FAILED),
        (["x"], FAILED),
    ],
)
def test_a_policy_allows_only_what_it_surely_allows(statements: Any, denial: Denial | None) -> None:
    assert verdict({"Statement": statements}, ARN) == denial


class Asked(Authorizers):
    """Authorizers whose function answers `outcome`; `events` are what it was asked."""

    def __init__(self, outcome: dict[str, Any]) -> None:
        super().__init__(spec(release_key="dev.3"), "/nowhere/hop.sock")
        self.outcome = outcome
        self.events: list[Any] = []

    def _ask(self, function: str, event: Any, request: Request) -> dict[str, Any]:
        self.events.append(event)
        return self.outcome


def allowed(**more: Any) -> dict[str, Any]:
    return {"result": {"principalId": "user", "policyDocument": {"Statement": [ALLOW]}, **more}}


def event_of(*headers: tuple[bytes, bytes], target: str = "/zones?page=1") -> dict[str, Any]:
    event = EventBuilder(spec()).build(Request("GET", target, list(headers)), ID, NOW)
    assert event is not None
    return event


def test_a_token_authorizer_gets_the_token_and_the_handler_its_context() -> None:
    asked, event = Asked(allowed(context={"key": "text", "number": 1, "flag": True})), event_of((b"Auth", b"a b"))
    assert asked.check(TOKEN, event, Request("GET", "/zones", [])) is None
    assert asked.events == [{"type": "TOKEN", "methodArn": ARN, "authorizationToken": "a b"}]
    context = event["requestContext"]["authorizer"]
    assert context.pop("integrationLatency") >= 0
    assert context == {"principalId": "user", "key": "text", "number": "1", "flag": "true"}


def test_a_request_authorizer_gets_the_request_without_its_body() -> None:
    request = AuthorizerSpec("auth", "REQUEST", (("header", "auth"), ("querystring", "page")), "", 0)
    asked, event = Asked(allowed()), event_of((b"Auth", b"x"))
    assert asked.check(request, event, Request("GET", "/zones", [])) is None
    (sent,) = asked.events
    assert (sent["type"], sent["methodArn"], sent["resource"]) == ("REQUEST", ARN, "/zones")
    assert sent["headers"]["auth"] == "x"
    assert sent["queryStringParameters"] == {"page": "1"}
    assert sent["pathParameters"] == sent["stageVariables"] == {}
    assert not {"body", "isBase64Encoded"} & sent.keys()
    assert (
        asked.check(request, event_of((b"Auth", b"x"), target="/zones"), Request("GET", "/zones", [])) == UNAUTHORIZED
    )


@pytest.mark.parametrize("target", ["/zones/a/b", "/zones/a/b/", "/zones/%61/b", "/zones/%61/b/"])
def test_a_deny_holds_for_every_spelling_of_the_path(target: str) -> None:
    deny = {"Effect": "Deny", "Action": "*", "Resource": ARN + "/a/b"}
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    asked = Asked({"result": {"principalId": "user", "policyDocument": {"Statement": [everything, deny]}}})
    event = event_of((b"auth", b"x"), target=target)
    assert asked.check(TOKEN, event, Request("GET", target, [])) == EXPLICIT
    assert "authorizer" not in event["requestContext"]
    assert (
        asked.check(TOKEN, event_of((b"auth", b"x"), target="/zones/c/b/"), Request("GET", "/zones/c/b/", [])) is None
    )


@pytest.mark.parametrize(("ttl_s", "times"), [(300, 1), (0, 3)])
def test_a_policy_is_cached_by_identity_for_the_ttl(ttl_s: int, times: int) -> None:
    authorizer, asked = AuthorizerSpec("auth", "TOKEN", (("header", "auth"),), "", ttl_s), Asked(allowed())
    for _ in range(3):
        assert asked.check(authorizer, event_of((b"auth", b"one")), Request("GET", "/zones", [])) is None
    assert len(asked.events) == times
    asked.check(authorizer, event_of((b"auth", b"two")), Request("GET", "/zones", []))
    assert len(asked.events) == times + 1
    other = event_of((b"auth", b"one"), target="/zones/a/b")  # the cached policy does not allow this method
    assert asked.check(authorizer, other, Request("GET", "/zones", [])) == IMPLICIT


@pytest.mark.parametrize(
    ("outcome", "denial"),
    [
        ({"failure": "Unauthorized"}, UNAUTHORIZED),
        ({"failure": "anything else"}, FAILED),
        ({"result": "Unauthorized"}, FAILED),
        ({"result": {"principalId": "user"}}, FAILED),
        (allowed(context={"nested": {}}), FAILED),
        (allowed(context=[]) | {}, None),
        ({}, FAILED),
    ],
)
def test_a_failure_denies_and_is_not_cached(outcome: dict[str, Any], denial: Denial | None) -> None:
    asked = Asked(outcome)
    for _ in range(2):
        assert asked.check(TOKEN, event_of((b"auth", b"x")), Request("GET", "/zones", [])) == denial
    assert len(asked.events) == (1 if denial is None else 2)


SIMPLE = AuthorizerSpec("auth", "REQUEST", (("header", "auth"),), "", 0, payload="2.0", simple=True)
FORMAT_1 = AuthorizerSpec("auth", "REQUEST", (("header", "auth"), ("querystring", "page")), "", 0, payload="1.0")
JWT = AuthorizerSpec(
    "checks",
    "JWT",
    (("header", "auth"),),
    "",
    300,
    "2.0",
    issuer="https://i",
    audience=("me",),
    scopes=("a",),
    keys="{}",
)
HTTP_ARN = ARN.replace("/dev/", "/$default/")


def http_event(payload: str, target: str = "/zones?page=1", auth: bytes = b"x") -> dict[str, Any]:
    builder = HttpApiEventBuilder(spec(routes=(RouteSpec("GET", "/zones", "/zones", payload, "GET /zones"),)))
    event = builder.build(Request("GET", target, [(b"host", b"h"), (b"auth", auth)]), ID, NOW)
    assert event is not None
    return event


def test_an_http_api_authorizer_of_format_2_gets_the_event_and_may_respond_simply() -> None:
    """AWS, http-api-lambda-authorizer.html: `"isAuthorized": true/false`,
    `"identitySource": ["user1", "123"]`, `"routeArn"`.
    """
    asked, event = Asked({"result": {"isAuthorized": True, "context": {"list": [1]}}}), http_event("2.0")
    assert asked.check(SIMPLE, event, Request("GET", "/zones", [])) is None
    (sent,) = asked.events
    assert (sent["version"], sent["type"], sent["routeArn"]) == ("2.0", "REQUEST", HTTP_ARN)
    assert (sent["identitySource"], sent["routeKey"], sent["rawQueryString"]) == (["x"], "GET /zones", "page=1")
    assert event["requestContext"]["authorizer"] == {"lambda": {"list": [1]}}
    for result in ({"isAuthorized": False}, {"isAuthorized": "true"}, {}):
        denial = Asked({"result": result}).check(SIMPLE, http_event("2.0"), Request("GET", "/zones", []))
        assert denial == (403, '{"message":"Forbidden"}', "content-type: application/json\r\n")


def test_an_http_api_authorizer_of_format_1_gets_one_text_and_returns_a_policy() -> None:
    """The same page: `"identitySource": "user1,123"`, `"authorizationToken": "user1,123"`, `"methodArn"`."""
    asked, event = Asked(allowed(context={"key": 1})), http_event("1.0")
    policy = asked.outcome["result"]["policyDocument"] = {"Statement": [ALLOW | {"Resource": HTTP_ARN}]}
    assert asked.check(FORMAT_1, event, Request("GET", "/zones", [])) is None
    (sent,) = asked.events
    assert (sent["identitySource"], sent["authorizationToken"], sent["methodArn"]) == ("x,1", "x,1", HTTP_ARN)
    context = event["requestContext"]["authorizer"]
    assert (context["principalId"], context["key"]) == ("user", "1")
    policy["Statement"][0]["Resource"] = ARN
    assert asked.check(FORMAT_1, http_event("1.0"), Request("GET", "/zones", [])) is not None, "of another stage"
    denial = asked.check(FORMAT_1, http_event("1.0", target="/zones"), Request("GET", "/zones", []))
    assert denial == (401, '{"message":"Unauthorized"}', "content-type: application/json\r\n")
    assert len(asked.events) == 2, "without the identity nobody is asked"


@pytest.mark.parametrize("given", [b"abc", b"Bearer abc", b"bearer  abc"])
def test_a_token_is_verified_once_and_its_claims_are_in_the_event(given: bytes) -> None:
    asked = Asked({"result": {"context": {"jwt": {"claims": {"sub": "me"}}}, "valid_s": 60}})
    for _ in range(2):
        event = http_event("2.0", auth=given)
        assert asked.check(JWT, event, Request("GET", "/zones", [])) is None
        assert event["requestContext"]["authorizer"] == {"jwt": {"claims": {"sub": "me"}}}
        event["requestContext"]["authorizer"]["jwt"]["claims"]["sub"] = "changed by the handler"
    (sent,) = asked.events
    assert sent == {
        "token": "abc",
        "payload": "2.0",
        "issuer": "https://i",
        "audience": ("me",),
        "scopes": ("a",),
        "keys": "{}",
    }


def test_a_verdict_is_not_kept_beyond_the_tokens_end() -> None:
    asked = Asked({"result": {"context": {}, "valid_s": 0}})
    for _ in range(2):
        assert asked.check(JWT, http_event("2.0"), Request("GET", "/zones", [])) is None
    assert len(asked.events) == 2


@pytest.mark.parametrize(
    ("outcome", "payload", "status", "body", "challenge"),
    [
        (
            {"result": {"denied": [401, "Unauthorized", "Bearer x"]}},
            "2.0",
            401,
            '{"message":"Unauthorized"}',
            "Bearer x",
        ),
        ({"result": {"denied": [403, "Forbidden", "Bearer y"]}}, "1.0", 403, '{"message":"Forbidden"}', "Bearer y"),
        ({"result": {"denied": [401, "The token", ""]}}, "", 401, '{"message": "The token"}', ""),
        ({}, "2.0", 500, '{"message":"Internal Server Error"}', "Bearer"),
    ],
)
def test_a_refused_token_is_answered_in_the_apis_words(
    outcome: dict[str, Any], payload: str, status: int, body: str, challenge: str
) -> None:
    event = http_event(payload) if payload else event_of((b"auth", b"t"))
    denial = Asked(outcome).check(replace(JWT, payload=payload), event, Request("GET", "/zones", []))
    assert denial is not None
    assert denial[:2] == (status, body)
    assert denial[2].partition("www-authenticate: ")[2] == (f"{challenge}\r\n" if challenge else "")
    assert "authorizer" not in event["requestContext"] or payload == "1.0"


def test_without_a_valid_token_nobody_is_asked() -> None:
    asked = Asked(allowed())
    validated = AuthorizerSpec("auth", "TOKEN", (("header", "auth"),), "[a-z]+", 300)
    for headers in ((), ((b"auth", b""),), ((b"auth", b"abc1"),), ((b"auth", b"1abc"),)):
        assert asked.check(validated, event_of(*headers), Request("GET", "/zones", [])) == UNAUTHORIZED
    assert not asked.events


def test_an_authorizer_that_cannot_be_reached_denies() -> None:
    authorizers = Authorizers(spec(release_key="dev.3"), "/nowhere/hop.sock")
    assert authorizers.check(TOKEN, event_of((b"auth", b"x")), Request("GET", "/zones", [])) == FAILED


def test_an_invocation_is_taken_as_it_is_and_its_failure_is_no_failed_response() -> None:
    events = InvokedEvents(spec())
    assert events.build(Request(INVOKE, "/auth", [], b'{"type": "TOKEN"}'), ID, NOW) == {"type": "TOKEN"}
    assert events.flavour.fail is not None
    status, body = events.flavour.render({"a": 1}, head_only=False, extra="")
    assert (status, body.partition(b"\r\n\r\n")[2]) == (200, b'{"result": {"a": 1}}')
