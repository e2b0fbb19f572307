"""A fake API Gateway: `send("GET", "/health")` calls the handler with a REST proxy event."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from app.api import handler

Send = Callable[..., tuple[int, Any]]


@pytest.fixture
def send() -> Send:
    """Sends a request and returns the status and the JSON of the response."""

    def send(method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        event = {
            "resource": path,
            "path": path,
            "httpMethod": method,
            "headers": {"Content-Type": "application/json"},
            "multiValueHeaders": {"Content-Type": ["application/json"]},
            "queryStringParameters": None,
            "multiValueQueryStringParameters": None,
            "pathParameters": None,
            "requestContext": {"stage": "test", "path": f"/test{path}", "requestId": "a-request"},
            "body": body,
            "isBase64Encoded": False,
        }
        response = handler(event, SimpleNamespace(aws_request_id="a-request"))
        return response["statusCode"], json.loads(response["body"])

    return send
