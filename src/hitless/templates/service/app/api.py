"""The Lambda function: routes in, JSON out.

Nothing here opens a connection or starts a thread at import, so that workers can be forked from a warm process. A
bug is logged and raised again: the platform responds with 502 and counts it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response, content_types

from app.errors import ApiError, InvalidRequest, UnknownRoute
from app.greetings import GREETINGS, greet

app = APIGatewayRestResolver()
logger = Logger()  # the service's name comes from POWERTOOLS_SERVICE_NAME


@app.get("/hello/<name>")
def hello(name: str) -> dict[str, object]:
    return {"greeting": greet(name)}


@app.post("/greetings")
def create_greeting() -> dict[str, object]:
    body = _json_object()
    name, language = body.get("name", "world"), body.get("language", "en")
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise InvalidRequest("name: must be a string of 1 to 100 characters", field="name")
    if not isinstance(language, str) or language not in GREETINGS:
        raise InvalidRequest(f"language: must be one of {', '.join(GREETINGS)}", field="language")
    return {"greeting": greet(name, language), "language": language}


@app.get("/health")
def health() -> dict[str, object]:
    return {"status": "ok"}


@app.get("/version")
def version() -> dict[str, object]:
    lambda_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
    return {
        "service": os.environ.get("POWERTOOLS_SERVICE_NAME"),
        "stage": os.environ.get("STAGE"),
        # null if the function is unpublished ($LATEST)
        "release": int(lambda_version) if lambda_version.isdecimal() else None,
        "commit": os.environ.get("HITLESS_COMMIT"),
    }


@app.exception_handler(ApiError)
def error_response(error: ApiError) -> Response[str]:
    return Response(error.status, content_types.APPLICATION_JSON, json.dumps(error.to_json(), separators=(",", ":")))


@app.not_found
def unknown_route(_: Exception) -> Response[str]:
    event = app.current_event
    return error_response(UnknownRoute(f"there is no {event.http_method} {event.path}"))


def _json_object() -> dict[str, Any]:
    try:
        document = app.current_event.json_body
    except (ValueError, RecursionError):
        raise InvalidRequest("the body must be JSON") from None
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    return document


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The entry point that Lambda calls."""
    try:
        return app.resolve(event, context)
    except Exception:
        logger.exception("unexpected error", route=event.get("resource"), request_id=context.aws_request_id)
        raise
