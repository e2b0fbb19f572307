"""`authorizer` of http events: the forms that the engine enforces, and the others, which stay refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hitless.documents import decode, to_text
from hitless.errors import ServiceFileError
from hitless.gateway.routes import literal_entries
from hitless.gateway.state import RouteState
from hitless.service.closed import check_served
from hitless.service.event_sources import Authorizer, Route
from hitless.service.model import CHECKS, Function, Service, with_pools
from hitless.worker.request import INVOKE
from tests.component.service_folder import HEAD, folder, load

__all__ = ["folder"]

pytestmark = pytest.mark.component

ROUTE = Route("GET", "/x")
HEADER = (("header", "authorization"),)


def read(folder: Path, authorizer: str, more: str = "") -> Service:
    text = (
        f"{HEAD}functions:\n  auth: {{handler: handlers.other}}\n  api:\n    handler: handlers.api\n"
        f"    events: [http: {{method: get, path: /x, authorizer: {authorizer}{more}}}]\n"
    )
    return load(folder, text)


@pytest.mark.parametrize(
    ("authorizer", "expected"),
    [
        ("auth", Authorizer("auth", "TOKEN", HEADER)),
        ("{name: auth}", Authorizer("auth", "TOKEN", HEADER)),
        (
            "{name: auth, type: TOKEN, identitySource: method.request.header.Auth, "
            "identityValidationExpression: '[a-z]+'}",
            Authorizer("auth", "TOKEN", (("header", "auth"),), "[a-z]+"),
        ),
        ("{name: auth, type: request}", Authorizer("auth", "REQUEST", HEADER)),
        ("{name: auth, type: request, resultTtlInSeconds: 0}", Authorizer("auth", "REQUEST", (), ttl_s=0)),
        (
            "{name: auth, type: request, identitySource: 'method.request.header.A, method.request.querystring.Q'}",
            Authorizer("auth", "REQUEST", (("header", "a"), ("querystring", "Q"))),
        ),
    ],
)
def test_a_function_of_the_service_is_asked(folder: Path, authorizer: str, expected: Authorizer) -> None:
    service = read(folder, authorizer)
    check_served(service)
    assert not service.notices
    asked, api = service.functions
    assert api.guarded == ((ROUTE, expected),)
    assert (asked.authorizer, api.authorizer) == (True, False)
    assert decode(to_text(api), Function, "a function") == api


POOL = "arn:aws:cognito-idp:eu-west-1:123456789012:userpool/eu-west-1_Ab"
ISSUER = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab"


def tokens(sources: tuple[tuple[str, str], ...] = HEADER, **more: Any) -> Authorizer:
    return Authorizer(**{"function": CHECKS.name, "kind": "JWT", "sources": sources, "issuer": ISSUER, **more})


@pytest.mark.parametrize(
    ("authorizer", "expected"),
    [
        (f"'{POOL}'", tokens()),
        (f"{{arn: '{POOL}', type: COGNITO_USER_POOLS, scopes: [a/b]}}", tokens(scopes=("a/b",))),
        (f"{{name: p, arn: '{POOL}', identitySource: method.request.header.X}}", tokens((("header", "x"),))),
    ],
)
def test_a_user_pool_is_named_by_its_arn(folder: Path, authorizer: str, expected: Authorizer) -> None:
    service = read(folder, authorizer)
    check_served(service)
    assert service.functions[1].guarded == ((ROUTE, expected),)
    assert [one.name for one in with_pools(service.functions)] == ["api", "hitless-checks"]


def read_http_api(folder: Path, shared: str, authorizer: str = "{name: shared}", payload: str = "2.0") -> Service:
    http_api = f"httpApi: {{payload: '{payload}', authorizers: {{shared: {shared}}}}}"
    text = HEAD.replace("python3.11}", f"python3.11, {http_api}}}")
    text += "functions:\n  auth: {handler: handlers.other}\n  api:\n    handler: handlers.api\n"
    text += f"    events: [httpApi: {{method: get, path: /x, authorizer: {authorizer}}}]\n"
    return load(folder, text + f"custom: {{hitless: {{jwks: {{'{ISSUER}': {{keys: [{{kid: k}}]}}}}}}}}\n")


KEYS = '{"keys": [{"kid": "k"}]}'
JWT = f"type: jwt, issuerUrl: '{ISSUER}', audience: me"


@pytest.mark.parametrize(
    ("shared", "authorizer", "payload", "expected"),
    [
        (f"{{{JWT}}}", "shared", "2.0", tokens(payload="2.0", audience=("me",), keys=KEYS)),
        (
            f"{{{JWT}, identitySource: $request.querystring.t}}",
            "{name: shared, scopes: [a, b]}",
            "1.0",
            tokens((("querystring", "t"),), payload="1.0", audience=("me",), scopes=("a", "b"), keys=KEYS),
        ),
        (
            "{type: request, functionName: auth, enableSimpleResponses: true}",
            "{name: shared, type: request}",
            "2.0",
            Authorizer("auth", "REQUEST", (), ttl_s=0, payload="2.0", simple=True),
        ),
        (
            "{type: request, functionName: auth, payloadVersion: '1.0', resultTtlInSeconds: 9,"
            " identitySource: [$request.header.A, $request.querystring.B]}",
            "shared",
            "1.0",
            Authorizer("auth", "REQUEST", (("header", "a"), ("querystring", "B")), ttl_s=9, payload="1.0"),
        ),
    ],
)
def test_an_http_api_has_shared_authorizers(
    folder: Path, shared: str, authorizer: str, payload: str, expected: Authorizer
) -> None:
    service = read_http_api(folder, shared, authorizer, payload)
    check_served(service)
    assert service.functions[1].guarded == ((ROUTE, expected),)
    assert not service.notices


@pytest.mark.parametrize(
    ("shared", "authorizer"),
    [
        (f"{{{JWT}}}", "other"),
        (f"{{{JWT}}}", "{id: x}"),
        (f"{{{JWT}}}", "{name: shared, type: aws_iam}"),
        (f"{{{JWT}, identitySource: $context.path}}", "shared"),
        (f"{{type: jwt, issuerUrl: '{ISSUER}'}}", "shared"),
        ("{issuerUrl: 'http://issuer', audience: me}", "shared"),
        ("{issuerUrl: {Ref: Issuer}, audience: me}", "shared"),
        (f"{{issuerUrl: '{ISSUER}', audience: [{{Ref: Client}}]}}", "shared"),
        ("{type: request, functionArn: arn}", "shared"),
        ("{type: request, functionName: api}", "shared"),
        ("{type: request, functionName: auth, payloadVersion: '1.0'}", "shared"),
        ("{type: request, functionName: auth, resultTtlInSeconds: 9}", "shared"),
        ("{type: request, functionName: auth, identitySource: $context.routeKey}", "shared"),
    ],
)
def test_an_http_api_authorizer_that_the_engine_cannot_ask_is_refused(
    folder: Path, shared: str, authorizer: str
) -> None:
    service = read_http_api(folder, shared, authorizer)
    with pytest.raises(ServiceFileError, match="GET /x needs an authorizer, which the engine does not enforce"):
        check_served(service)


def test_a_service_may_have_no_function_of_the_name_of_the_checks(folder: Path) -> None:
    with pytest.raises(ServiceFileError, match="at most 64, and not hitless-checks"):
        load(folder, f"{HEAD}functions: {{hitless-checks: {{handler: handlers.api, events: [http: GET /]}}}}\n")


@pytest.mark.parametrize(
    "authorizer",
    [
        "aws_iam",
        "{arn: {Ref: Pool}, name: pool}",
        "{type: COGNITO_USER_POOLS, authorizerId: {Ref: Pool}}",
        f"{{arn: '{POOL}', identityValidationExpression: x}}",
        f"{{arn: '{POOL}', type: token}}",
        "none_such",
        "arn:aws:lambda:us-east-1:123456789012:function:auth",
        "{name: auth, arn: 'arn:aws:cognito-idp:us-east-1:123456789012:userpool/x', claims: [email]}",
        "{name: auth, type: COGNITO_USER_POOLS}",
        "{type: token}",
        "{name: auth, scopes: [a]}",
        "{name: auth, identitySource: method.request.querystring.Q}",
        "{name: auth, identitySource: 'method.request.header.A, method.request.header.B'}",
        "{name: auth, type: request, identitySource: context.sourceIp}",
        "{name: auth, identityValidationExpression: '['}",
        "{name: api}",
    ],
)
def test_an_authorizer_that_the_engine_cannot_ask_is_refused(folder: Path, authorizer: str) -> None:
    service = read(folder, authorizer)
    assert all(not function.guarded for function in service.functions)
    with pytest.raises(ServiceFileError, match="GET /x needs an authorizer, which the engine does not enforce"):
        check_served(service)


def test_a_route_that_is_open_or_not_a_proxy_integration_is_not_guarded(folder: Path) -> None:
    with pytest.raises(ServiceFileError, match="GET /x needs an authorizer"):
        check_served(read(folder, "auth", ", integration: lambda"))
    text = (folder / "serverless.yml").read_text().replace(", integration: lambda", "")
    service = load(folder, f"{text}custom: {{hitless: {{open: [GET /x]}}}}\n")
    check_served(service)
    assert not service.functions[1].guarded
    assert "http.authorizer: this authorizer is not enforced here" in service.notices[0]


def test_an_authorizer_is_no_route_of_a_client(folder: Path) -> None:
    routes = (RouteState("dev.1", "GET", "/x", "p00", http_api=True), RouteState("dev.1", INVOKE, "/auth", "p01"))
    entries = literal_entries(routes)
    assert entries["dev.1|ACL|/auth"] == "p01"
    assert entries["dev.1|NONE|/"] == entries["p00"] == "1", "the release has only an HTTP API's routes"
