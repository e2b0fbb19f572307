"""`cors` as Serverless Framework reads it, and the preflight responses that a worker makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hitless.release.document import ArtifactRef, ReleaseDocument
from hitless.rollout.release import Release, pool_spec
from hitless.service.event_sources import Cors
from hitless.service.model import Service
from hitless.worker.http_api import event_builder
from hitless.worker.request import Request
from hitless.worker.spec import PoolSpec
from tests.component.service_folder import HEAD, fault, folder, load

__all__ = ["folder"]

pytestmark = pytest.mark.component

USUAL = (
    "Content-Type", "X-Amz-Date", "Authorization", "X-Api-Key", "X-Amz-Security-Token", "X-Amz-User-Agent",
    "X-Amzn-Trace-Id",
)  # fmt: skip
REST = "functions:\n  api:\n    handler: handlers.api\n    events:\n"
HTTP_API = "service: demo\nprovider: {{name: aws, runtime: python3.11, httpApi: {{cors: {cors}}}}}\n"
ROUTES = "functions:\n  api: {handler: handlers.api, events: [{httpApi: GET /x}, {httpApi: 'POST /y/{id}'}]}\n"


def spec_of(service: Service) -> PoolSpec:
    document = ReleaseDocument(
        service.name, service.region, service.functions, {"api": ArtifactRef("sha256:0", False)}, service.settings
    )
    spec = pool_spec(Release("dev", 1, document), service.functions[0], key="k", task_root="/t", log_dir="/l")
    assert PoolSpec.from_json(spec.to_json()) == spec
    return spec


def preflight(spec: PoolSpec, path: str, origin: str | None = "https://a.example") -> tuple[str, list[str]] | None:
    """The status line and the header lines, or None if the request became an event or found no route."""
    headers = [(b"Origin", origin.encode()), (b"Access-Control-Request-Method", b"GET")] if origin else []
    builder, request = event_builder(spec), Request("OPTIONS", path, headers)
    if builder.build(request, "0f9c9cd2-5b1f", 0.0) is not None:
        return None
    first, *lines = builder.respond(request, "").decode().partition("\r\n\r\n")[0].split("\r\n")
    return first.partition(" ")[2], sorted(line for line in lines if line.startswith(("access-control", "cache")))


def test_cors_settings_of_one_path_are_combined_and_any_means_six_methods(folder: Path) -> None:
    """Serverless Framework's lib/plugins/aws/package/compile/events/api-gateway/lib/{validate,cors}.js."""
    events = (
        "      - http: {method: get, path: x, cors: true}\n      - http: {method: post, path: x, cors: {maxAge: 5}}\n"
    )
    function = load(
        folder, HEAD + REST + events + "      - http: {method: any, path: y, cors: {headers: A}}\n"
    ).functions[0]
    assert {one.path: one.cors for one in function.preflights} == {
        "/x": Cors(("*",), ("OPTIONS", "POST", "GET"), USUAL, max_age_s=5),
        "/y": Cors(("*",), ("OPTIONS", "DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"), ("A",)),
    }


def test_a_rest_apis_preflight_is_answered_without_the_handler(folder: Path) -> None:
    cors = "{origins: ['https://*.example', 'https://b'], allowCredentials: true}"
    events = f"      - http: {{method: any, path: 'x/{{id}}', cors: {cors}}}\n"
    spec = spec_of(load(folder, HEAD + REST + events))
    found = preflight(spec, "/x/1")
    assert found is not None
    assert found[0] == "200 OK"
    assert found[1] == [
        "access-control-allow-credentials: true",
        f"access-control-allow-headers: {','.join(USUAL)}",
        "access-control-allow-methods: OPTIONS,DELETE,GET,HEAD,PATCH,POST,PUT",
        "access-control-allow-origin: https://a.example",
    ]
    other = preflight(spec, "/x/1", "https://evil")
    assert other is not None
    assert "access-control-allow-origin: https://*.example" in other[1]
    assert event_builder(spec).build(Request("GET", "/x/1", []), "0f9c9cd2-5b1f", 0.0) is not None


def test_an_explicit_options_route_is_answered_by_the_handler(folder: Path) -> None:
    events = "      - http: {method: get, path: x, cors: true}\n      - http: {method: options, path: x}\n"
    service = load(folder, HEAD + REST + events)
    assert service.functions[0].preflights == ()
    assert preflight(spec_of(service), "/x") is None
    off = load(folder, HEAD + REST + "      - http: {method: get, path: x, cors: false}\n")
    assert off.functions[0].preflights == ()


def test_an_http_api_answers_preflight_requests_on_each_path(folder: Path) -> None:
    """docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html"""
    cors = "{allowedOrigins: ['https://a.example'], allowedHeaders: [authorization], maxAge: 300}"
    spec = spec_of(load(folder, HTTP_API.format(cors=cors) + ROUTES))
    assert preflight(spec, "/y/1") == (
        "204 No Content",
        [
            "access-control-allow-headers: authorization",
            "access-control-allow-methods: OPTIONS,GET,POST",
            "access-control-allow-origin: https://a.example",
            "access-control-max-age: 300",
        ],
    )
    assert preflight(spec, "/y/1", "https://evil") == ("204 No Content", [])
    assert preflight(spec, "/y/1", None) == ("404 Not Found", [])


def test_an_http_apis_cors_headers_replace_the_handlers(folder: Path) -> None:
    spec = spec_of(
        load(folder, HTTP_API.format(cors="{allowCredentials: true, exposedResponseHeaders: [date]}") + ROUTES)
    )
    builder = event_builder(spec)
    result = {"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "https://own", "a": "b"}}

    def lines(*headers: tuple[bytes, bytes]) -> list[str]:
        builder.build(Request("GET", "/x", list(headers)), "0f9c9cd2-5b1f", 0.0)
        raw = builder.flavour.render(result, head_only=False, extra="")[1].decode()
        return sorted(line for line in raw.split("\r\n") if line.startswith(("access", "a:", "Access")))

    assert lines((b"Origin", b"https://a.example")) == [
        "a: b",
        "access-control-allow-credentials: true",
        "access-control-allow-origin: *",
        "access-control-expose-headers: date",
    ]
    assert lines() == ["a: b"]


def test_a_line_break_in_a_cors_header_is_an_error(folder: Path) -> None:
    assert (
        "is not valid in a header"
        in fault(folder, HTTP_API.format(cors='{allowedHeaders: ["a\\nb"]}') + ROUTES).message
    )
