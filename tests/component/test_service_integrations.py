"""`integration` of http events, read as Serverless Framework reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hitless.documents import decode, to_text
from hitless.errors import ServiceFileError
from hitless.service.closed import check_served
from hitless.service.event_sources import MappedRoute, Route
from hitless.service.model import Function
from tests.component.service_folder import HEAD, folder, load

__all__ = ["folder"]

pytestmark = pytest.mark.component

ROUTE = Route("GET", "/x")
JSON = ("content-type", "application/json")


def written(more: str) -> str:
    return f"{HEAD}functions:\n  api:\n    handler: handlers.api\n    events: [http: {{method: get, path: /x{more}}}]\n"


def mapped(folder: Path, more: str) -> tuple[MappedRoute, ...]:
    service = load(folder, written(more))
    check_served(service)
    assert not service.notices
    return service.functions[0].mapped


@pytest.mark.parametrize("kind", ["", ", integration: lambda-proxy", ", integration: AWS_PROXY"])
def test_a_proxy_integration_is_not_mapped(folder: Path, kind: str) -> None:
    assert mapped(folder, kind) == ()


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ("", (JSON,)),
        (", cors: true", (JSON, ("access-control-allow-origin", "*"))),
        (", cors: {origins: ['https://a.example', 'https://b.example'], allowCredentials: true}",
         (JSON, ("access-control-allow-origin", "https://a.example,https://b.example"),
          ("access-control-allow-credentials", "true"))),
        (""", response: {headers: {Content-Type: "'text/html'", Cache-Control: "'max-age=5'"}}""",
         (("content-type", "text/html"), ("cache-control", "max-age=5"))),
        (", response: {headers: {Content-Type: integration.response.header.Content-Type}}", (JSON,)),
    ],
)  # fmt: skip
def test_a_lambda_integration_has_its_own_response_headers(
    folder: Path, more: str, headers: tuple[tuple[str, str], ...]
) -> None:
    assert mapped(folder, ", integration: lambda" + more) == (MappedRoute(ROUTE, headers),)


def test_a_functions_stored_document_keeps_its_mapped_routes(folder: Path) -> None:
    [function] = load(folder, written(", integration: lambda")).functions
    assert decode(to_text(function), Function, "a function") == function


@pytest.mark.parametrize(
    ("more", "at", "message"),
    [
        ("integration: http", "integration", "the engine runs functions only"),
        ("integration: mock", "integration", "the engine runs functions only"),
        ("integration: lambda, request: {template: {application/json: '{}'}}", "request.template", "mapping templates"),
        ("integration: lambda, request: {passThrough: WHEN_NO_MATCH}", "request.passThrough", "mapping templates"),
        ("integration: lambda, response: {statusCodes: {'201': {pattern: ''}}}", "response.statusCodes",
         "mapping templates"),
        ("integration: lambda, response: {headers: {X-A: integration.response.body.a}}", "response.headers.X-A",
         "not a fixed value in single quotes"),
    ],
)  # fmt: skip
def test_the_engine_refuses_mappings_that_only_api_gateway_supports(
    folder: Path, more: str, at: str, message: str
) -> None:
    service = load(folder, written(", " + more))
    with pytest.raises(ServiceFileError, match=message) as caught:
        check_served(service)
    assert f"functions.api.events[0].http.{at}: " in caught.value.message
    check_served(load(folder, written(", " + more) + "custom: {hitless: {stages: {dev: {home: aws}}}}\n"))


def test_binary_media_types_apply_only_to_functions_with_rest_routes(folder: Path) -> None:
    head = HEAD.replace("name: aws", "name: aws, apiGateway: {binaryMediaTypes: [image/*, '*/*']}")
    text = f"{head}functions:\n  api: {{handler: handlers.api, events: [http: GET /]}}\n"
    service = load(folder, f"{text}  other: {{handler: handlers.other, events: [httpApi: GET /b]}}\n")
    assert [function.binary_media_types for function in service.functions] == [("image/*", "*/*"), ()]
    assert not service.notices
    with pytest.raises(ServiceFileError, match="'images' is not a media type"):
        load(folder, text.replace("image/*", "images"))
