"""`httpApi` events and `provider.httpApi`, read as Serverless Framework reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hitless.documents import decode, to_text
from hitless.errors import ServiceFileError
from hitless.service.closed import check_served
from hitless.service.event_sources import DEFAULT_PATH, URL_PAYLOAD, HttpApi, Route
from hitless.service.model import Function
from tests.component.service_folder import HEAD, fault, folder, load

__all__ = ["folder"]

pytestmark = pytest.mark.component

FUNCTION = "functions:\n  api:\n    handler: handlers.api\n    events: [{events}]\n"


def function(folder: Path, events: str, provider: str = "", own: str = "") -> Function:
    head = HEAD.replace("}", f", {provider}}}") if provider else HEAD
    service = load(folder, head + FUNCTION.format(events=events) + (f"    {own}\n" if own else ""))
    check_served(service)
    return service.functions[0]


@pytest.mark.parametrize(
    ("event", "route"),
    [
        ("GET /x", Route("GET", "/x")),
        ("'* /x'", Route("ANY", "/x")),
        ("{method: get, path: '/x/{id}'}", Route("GET", "/x/{id}")),
        ("{method: '*', path: '/{proxy+}'}", Route("ANY", "/{proxy+}")),
        ("'*'", Route("ANY", DEFAULT_PATH)),
        ("{path: '*'}", Route("ANY", DEFAULT_PATH)),
        ("{method: '*', path: '*'}", Route("ANY", DEFAULT_PATH)),
    ],
)
def test_an_http_api_event_becomes_a_route(folder: Path, event: str, route: Route) -> None:
    read = function(folder, f"httpApi: {event}")
    assert (read.routes, read.http_api) == ((route,), HttpApi((route,), "2.0"))
    assert decode(to_text(read), Function, "function") == read


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("GET", "is not a route"),
        ("{path: /x}", "has no method"),
        ("{method: get}", "has no path"),
        ("{method: get, path: '*'}", "cannot be the default route's method"),
        ("FETCH /x", "has an unknown method"),
        ("'GET /{$default+}'", "is reserved"),
    ],
)
def test_an_invalid_http_api_event_is_an_error(folder: Path, event: str, message: str) -> None:
    assert message in fault(folder, HEAD + FUNCTION.format(events=f"httpApi: {event}")).message


def test_the_payload_format_is_the_functions_or_else_the_providers(folder: Path) -> None:
    routes = (Route("GET", "/x"),)
    provider = function(folder, "httpApi: GET /x", "httpApi: {payload: '1.0'}")
    own = function(folder, "httpApi: GET /x", "httpApi: {payload: 1.0}", "httpApi: {payload: '2.0'}")
    assert (provider.http_api, own.http_api) == (HttpApi(routes, "1.0"), HttpApi(routes, "2.0"))


def test_only_an_http_api_allows_two_parameter_names_at_one_place_of_a_path(folder: Path) -> None:
    assert len(function(folder, "{httpApi: 'GET /x/{a}'}, {httpApi: 'PUT /x/{b}'}").routes) == 2
    twice = HEAD + FUNCTION.format(events="{httpApi: GET /x}, {httpApi: GET /x}")
    assert "GET /x is routed twice" in fault(folder, twice).message


def test_a_route_in_both_apis_is_served_as_a_rest_route(folder: Path) -> None:
    service = load(folder, HEAD + FUNCTION.format(events="{http: GET /x}, {httpApi: GET /x}, {httpApi: GET /y}"))
    assert service.functions[0].routes == (Route("GET", "/x"), Route("GET", "/y"))
    assert service.functions[0].http_api == HttpApi((Route("GET", "/y"),))
    assert any("events[1].httpApi: GET /x is an http event too" in notice for notice in service.notices)


def test_a_route_with_an_authorizer_is_refused_until_it_is_opened(folder: Path) -> None:
    text = HEAD + FUNCTION.format(events="httpApi: {path: '*', authorizer: {name: jwt}}")
    service = load(folder, text)
    with pytest.raises(ServiceFileError, match="needs an authorizer") as caught:
        check_served(service)
    assert "- '$default'" in caught.value.hint
    check_served(load(folder, text + "custom: {hitless: {open: ['$default']}}\n"))


URL = "functions:\n  api:\n    handler: handlers.api\n    url: {url}\n"


def test_a_function_url_without_other_routes_becomes_the_default_route(folder: Path) -> None:
    [read] = load(folder, HEAD + URL.format(url="true")).functions
    assert read.http_api == HttpApi((Route("ANY", DEFAULT_PATH),), URL_PAYLOAD)
    [read] = load(folder, HEAD + URL.format(url="{cors: {allowedOrigins: [https://a.example], maxAge: 5}}")).functions
    assert read.http_api is not None
    assert read.http_api.cors is not None
    assert (read.http_api.cors.origins, read.http_api.cors.max_age_s) == (("https://a.example",), 5)


def test_a_function_url_is_not_served_if_there_are_other_routes(folder: Path) -> None:
    service = load(folder, HEAD + URL.format(url="true") + "    events: [http: GET /x]\n")
    assert service.functions[0].routes == (Route("GET", "/x"),)
    assert any("functions.api.url: a function URL is served here only if" in notice for notice in service.notices)
    assert not load(folder, HEAD + URL.format(url="false") + "    events: [http: GET /x]\n").notices


def test_a_function_url_protected_by_iam_is_refused_until_it_is_opened(folder: Path) -> None:
    text = HEAD + URL.format(url="{authorizer: aws_iam}")
    with pytest.raises(ServiceFileError, match="needs an authorizer"):
        check_served(load(folder, text))
    check_served(load(folder, text + "custom: {hitless: {open: ['$default']}}\n"))


def test_a_functions_timeout_limit_depends_on_its_api(folder: Path) -> None:
    text = HEAD + FUNCTION.format(events="httpApi: GET /x") + "    timeout: 30\n"
    assert not any("timeout" in notice for notice in load(folder, text).notices)
    assert any("over 30 s" in notice for notice in load(folder, text.replace("30", "31")).notices)
