"""`authorizer` of http events: the forms that the engine enforces, and the others, which stay refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hitless.documents import decode, to_text
from hitless.errors import ServiceFileError
from hitless.gateway.routes import literal_entries
from hitless.gateway.state import RouteState
from hitless.service.closed import check_served
from hitless.service.model import Authorizer, Function, Route, Service
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


@pytest.mark.parametrize(
    "authorizer",
    [
        "aws_iam",
        "none_such",
        "arn:aws:lambda:us-east-1:123456789012:function:auth",
        "{name: auth, arn: 'arn:aws:cognito-idp:us-east-1:123456789012:userpool/x'}",
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
    assert "http.authorizer: authorizers are not asked here" in service.notices[0]


def test_an_authorizer_is_no_route_of_a_client(folder: Path) -> None:
    routes = (RouteState("dev.1", "GET", "/x", "p00", http_api=True), RouteState("dev.1", INVOKE, "/auth", "p01"))
    entries = literal_entries(routes)
    assert entries["dev.1|ACL|/auth"] == "p01"
    assert entries["dev.1|NONE|/"] == entries["p00"] == "1", "the release has only an HTTP API's routes"
