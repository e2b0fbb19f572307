"""Non-proxy Lambda integrations (`integration: lambda`), as Serverless Framework's default templates map them.

The handler gets an event of the framework's own form, and what it returns is the body. If it fails, the client gets
Lambda's error document, with the status that its message names in brackets: `[404] no such user`. Without such a
status it gets 200, as on AWS.
Sources: `method/integration.js` and `validate.js` of the framework (osls), its page on API Gateway events, and
docs.aws.amazon.com/apigateway/latest/developerguide/integration-passthrough-behaviors.html.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from hitless.worker.cors import CorsEventBuilder
from hitless.worker.event import REST, ApiFlavour, Event
from hitless.worker.handler import marshalled
from hitless.worker.request import Request, header
from hitless.worker.response import http_response
from hitless.worker.spec import PoolSpec

_STATUSES: Final = tuple(
    (status, re.compile(pattern))
    for status, pattern in (
        *((status, rf"[\s\S]*\[{status}\][\s\S]*") for status in (400, 401, 403, 404, 422)),
        (500, r"[\s\S]*(Process\s?exited\s?before\s?completing\s?request|\[500\])[\s\S]*"),
        (502, r"[\s\S]*\[502\][\s\S]*"),
        (504, r"([\s\S]*\[504\][\s\S]*)|(.*Task timed out after \d+\.\d+ seconds$)"),
    )
)
"""The framework's default status codes, with the pattern of the error messages that select each."""

_JSON_TYPE: Final = "application/json"
_FORM_TYPE: Final = "application/x-www-form-urlencoded"


class MappingEventBuilder(CorsEventBuilder):
    """The events of a function with REST routes, of which some are non-proxy integrations."""

    def __init__(self, spec: PoolSpec) -> None:
        super().__init__(spec)
        self._mapped = {
            (route.method, route.resource): _flavour(route.mapped) for route in spec.routes if route.mapped is not None
        }

    def build(self, request: Request, request_id: str, now_s: float) -> Event | None:
        """The event as for any function; in the framework's form for a non-proxy route; None for a body that API
        Gateway would not map. Sets `flavour`.
        """
        self.flavour = REST
        event = super().build(request, request_id, now_s)
        if event is None:
            return None
        resource = event["resource"]
        flavour = self._mapped.get((request.method, resource)) or self._mapped.get(("ANY", resource))
        if flavour is None:
            return event
        try:
            body = _read_body(request)
        except _UnmappedBodyError as error:
            self.flavour = flavour._replace(
                unknown_status=error.status, unknown_body=json.dumps({"message": str(error)})
            )
            return None
        self.flavour = flavour
        context = event["requestContext"]
        return {
            "body": body,
            "method": request.method,
            "principalId": "",
            "stage": context["stage"],
            "cognitoPoolClaims": {"sub": ""},
            "enhancedAuthContext": {},
            "headers": event["headers"],
            "query": event["queryStringParameters"] or {},
            "path": {name: unquote(value) for name, value in (event["pathParameters"] or {}).items()},
            "identity": {name: value or "" for name, value in context["identity"].items()},
            "stageVariables": {},
            "requestPath": resource,
        }


class _UnmappedBodyError(Exception):
    """API Gateway responds itself with `status`, because no template accepts the body."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _read_body(request: Request) -> Any:
    body = request.body.decode("utf-8", "replace")
    content_type = (header(request, b"content-type") or _JSON_TYPE).partition(";")[0].strip().lower()
    if content_type == _FORM_TYPE:
        return dict(parse_qsl(body, keep_blank_values=True))
    if content_type != _JSON_TYPE:
        raise _UnmappedBodyError(415, "Unsupported Media Type")
    try:
        return json.loads(body) if body else {}
    except ValueError as error:
        raise _UnmappedBodyError(400, f"Could not parse request body into json: {error}") from error


def _flavour(lines: str) -> ApiFlavour:
    def render(result: Any, *, head_only: bool, extra: str) -> tuple[int, bytes]:
        return 200, http_response(200, marshalled(result).encode(), lines + extra, head_only=head_only)

    return REST._replace(
        render=render, fail=lambda failure: (_status(failure.message), json.dumps(failure.to_json()), lines)
    )


def _status(message: str) -> int:
    return next((status for status, pattern in _STATUSES if pattern.fullmatch(message)), 200)
