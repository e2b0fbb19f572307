"""Requests of clients, and responses to wrong ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from app.greetings import GREETINGS

Send = Callable[..., tuple[int, Any]]


def test_hello_greets_by_name(send: Send) -> None:
    assert send("GET", "/hello/Zoë") == (200, {"greeting": "Hello, Zoë!"})


def test_a_greeting_is_in_the_requested_language(send: Send) -> None:
    body = json.dumps({"name": "Zoë", "language": "fr"})

    assert send("POST", "/greetings", body) == (200, {"greeting": "Bonjour, Zoë!", "language": "fr"})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"name": ""}', "name"),
        ('{"name": 5}', "name"),
        ('{"language": "tlh"}', "language"),
        ('{"language": []}', "language"),
        ("[]", None),
        ("{", None),
        (None, None),
    ],
)
def test_a_wrong_body_is_400_with_its_field(send: Send, body: str | None, field: str | None) -> None:
    status, response = send("POST", "/greetings", body)

    assert (status, response["error"]["code"]) == (400, "invalid_request")
    assert response["error"]["details"].get("field") == field


def test_an_unknown_route_is_404(send: Send) -> None:
    status, response = send("DELETE", "/health")

    assert (status, response["error"]["code"]) == (404, "unknown_route")


def test_health_says_ok(send: Send) -> None:
    assert send("GET", "/health") == (200, {"status": "ok"})


def test_the_version_names_the_release(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "12")
    monkeypatch.setenv("HITLESS_COMMIT", "1a2b3c")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "{{service}}")
    monkeypatch.setenv("STAGE", "prod")

    expected = {"service": "{{service}}", "stage": "prod", "release": 12, "commit": "1a2b3c"}
    assert send("GET", "/version") == (200, expected)


def test_a_bug_is_left_to_the_platform(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(GREETINGS, "en")

    with pytest.raises(KeyError):
        send("GET", "/hello/Zoë")
