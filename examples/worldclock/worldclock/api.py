"""What the functions share: the resolver with its errors, reading bodies and queries, and the Lambda entry point."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response, content_types
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

from worldclock.errors import ApiError, InvalidRequest, UnknownRoute
from worldclock.fields import Fields

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

logger = Logger()  # the service's name comes from POWERTOOLS_SERVICE_NAME


def resolver() -> APIGatewayRestResolver:
    """A router for API Gateway's events whose every error has the API's one shape."""
    app = APIGatewayRestResolver()

    def unknown_route(_: Exception) -> Response[str]:
        event = app.current_event
        return _answer(UnknownRoute(f"there is no {event.http_method} {event.path}"))

    app.exception_handler(ApiError)(_answer)
    app.not_found(unknown_route)
    return app


def _answer(error: ApiError) -> Response[str]:
    return Response(error.status, content_types.APPLICATION_JSON, json.dumps(error.to_json(), separators=(",", ":")))


def entry(app: APIGatewayRestResolver) -> Handler:
    """The function that Lambda calls. A defect is logged and let go, so that the platform answers 502 and counts it."""

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        try:
            return app.resolve(event, context)
        except Exception:
            logger.exception("unexpected error", route=event.get("resource"), request_id=context.aws_request_id)
            raise

    return handler


def query(event: APIGatewayProxyEvent, *, known: set[str], lists: frozenset[str] = frozenset()) -> Fields:
    """The query's fields: of one that is repeated the last value counts, except where it is a list."""
    values = event.multi_value_query_string_parameters
    return Fields({name: found if name in lists else found[-1] for name, found in values.items()}, known)


def body(event: APIGatewayProxyEvent, *, known: set[str]) -> Fields:
    """The fields of a JSON body. Raises InvalidRequest if it is not a JSON object."""
    try:
        document = event.json_body
    except (ValueError, RecursionError):
        raise InvalidRequest("the body must be JSON") from None
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    return Fields(document, known)
