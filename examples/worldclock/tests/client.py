"""A client that calls the functions as API Gateway would: by the routes of `serverless.yml`, with REST proxy events.

Each answer is checked against `openapi.json`: a status or a field that is not documented fails the test that meets it.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

FOLDER = Path(__file__).parent.parent
DOCUMENT_URI = "urn:worldclock:openapi"
CONTEXT = SimpleNamespace(aws_request_id="a-request", function_name="worldclock-test")
Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


@dataclass(frozen=True)
class Route:
    """One `http` event of serverless.yml with the function behind it."""

    method: str
    resource: str
    handler: Handler

    @property
    def documented(self) -> str:
        """The path in the OpenAPI document, which has no greedy parameters."""
        return self.resource.replace("+}", "}")

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The path's parameters, or None if this is not the route."""
        pattern = re.sub(
            r"\{(\w+)\\\+\}", r"(?P<\1>.+)", re.escape(self.resource).replace(r"\{", "{").replace(r"\}", "}")
        )
        found = re.fullmatch(pattern, path)
        return found.groupdict() if found and method == self.method else None


@dataclass(frozen=True)
class Answer:
    """What a client gets."""

    status: int
    json: Any
    headers: dict[str, list[str]] = field(default_factory=dict)


class Client:
    """Sends requests to the functions, and holds their answers to the OpenAPI document."""

    def __init__(self, routes: list[Route], document: dict[str, Any]) -> None:
        self.routes = routes
        self.document = document
        self._registry: Registry[Any] = Registry().with_resource(DOCUMENT_URI, DRAFT202012.create_resource(document))

    def get(self, target: str) -> Answer:
        return self.send("GET", target)

    def post(self, target: str, document: Any) -> Answer:
        return self.send("POST", target, json.dumps(document))

    def send(self, method: str, target: str, body: str | None = None) -> Answer:
        url = urlsplit(target)
        for route in self.routes:
            if (parameters := route.match(method, url.path)) is not None:
                raw = route.handler(event(route, url.path, url.query, parameters, body), CONTEXT)
                answer = Answer(raw["statusCode"], json.loads(raw["body"]), raw["multiValueHeaders"])
                self._check(route, answer)
                return answer
        raise AssertionError(f"no route for {method} {target}")

    def _check(self, route: Route, answer: Answer) -> None:
        assert answer.headers["Content-Type"] == ["application/json"]
        operation = ("paths", route.documented, route.method.lower())
        pointer = (*operation, "responses", str(answer.status), "content", "application/json", "schema")
        reference = "/".join(part.replace("/", "~1") for part in pointer)
        Draft202012Validator({"$ref": f"{DOCUMENT_URI}#/{reference}"}, registry=self._registry).validate(answer.json)


def event(route: Route, path: str, query: str, parameters: dict[str, str], body: str | None) -> dict[str, Any]:
    """API Gateway's REST proxy event, as far as the functions read it."""
    values = parse_qs(query, keep_blank_values=True) or None
    return {
        "resource": route.resource,
        "path": path,
        "httpMethod": route.method,
        "headers": {"Content-Type": "application/json"},
        "multiValueHeaders": {"Content-Type": ["application/json"]},
        "queryStringParameters": {name: found[-1] for name, found in values.items()} if values else None,
        "multiValueQueryStringParameters": values,
        "pathParameters": parameters or None,
        "stageVariables": None,
        "requestContext": {"stage": "test", "path": f"/test{path}", "requestId": "a-request"},
        "body": body,
        "isBase64Encoded": False,
    }


def routes() -> Iterator[Route]:
    """Every route of serverless.yml."""
    service = yaml.safe_load((FOLDER / "serverless.yml").read_text(encoding="utf-8"))
    for function in service["functions"].values():
        module, attribute = function["handler"].rsplit(".", 1)
        handler = getattr(importlib.import_module(module.replace("/", ".")), attribute)
        for http in function["events"]:
            method, resource = http["http"].split()
            yield Route(method, resource, handler)
