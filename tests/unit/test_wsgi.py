"""The WSGI adapter: events of both formats as a WSGI environment, and an application's response as a result.

What serverless-wsgi does: github.com/logandk/serverless-wsgi, serverless_wsgi.py and serverless_wsgi_test.py.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from hitless.artifact.serverless_wsgi import handle_request

pytestmark = pytest.mark.unit

HEADERS = {"Host": ["api.example.org:8080"], "Cookie": ["a=1", "b=2"], "X-Forwarded-Proto": ["http"], "X-Own": ["é"]}
EVENT_1: dict[str, Any] = {
    "httpMethod": "POST",
    "path": "/caf%C3%A9",
    "multiValueHeaders": {**HEADERS, "Content-Type": ["text/plain"]},
    "multiValueQueryStringParameters": {"q": ["1", "2"]},
    "requestContext": {"stage": "dev", "identity": {"sourceIp": "192.0.2.1"}},
    "body": "hello",
    "isBase64Encoded": False,
}
EVENT_2: dict[str, Any] = {
    "version": "2.0",
    "rawPath": "/a b",
    "rawQueryString": "q=1&q=2",
    "cookies": ["a=1", "b=2"],
    "headers": {"host": "api.example.org"},
    "requestContext": {"stage": "$default", "http": {"method": "GET", "sourceIp": "192.0.2.1"}},
    "isBase64Encoded": False,
}


class App:
    """Keeps the environment and gives a response that a test chooses."""

    def __init__(self, body: bytes = b"ok", content_type: str = "text/html", *more: tuple[str, str]) -> None:
        self.environ: dict[str, Any] = {}
        self.sent = b""
        self._body, self._headers = body, [("Content-Type", content_type), *more]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.environ, self.sent = environ, environ["wsgi.input"].read()
        yield b""  # begins late, as an application may
        start_response("201 Created", self._headers)(b"<")
        yield self._body


def test_an_event_of_format_1_becomes_a_wsgi_environment() -> None:
    app = App()
    handle_request(app, EVENT_1, None)
    wanted = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/cafÃ©",
        "QUERY_STRING": "q=1&q=2",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "api.example.org:8080",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_OWN": "Ã©",
        "SERVER_NAME": "api.example.org",
        "SCRIPT_NAME": "",
        "wsgi.url_scheme": "http",
    }
    assert {name: app.environ[name] for name in wanted} == wanted
    assert app.sent == b"hello"
    assert app.environ["serverless.event"] is EVENT_1
    assert "HTTP_CONTENT_TYPE" not in app.environ


def test_an_event_of_format_2_becomes_a_wsgi_environment() -> None:
    app = App()
    handle_request(app, EVENT_2, None)
    wanted = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "q=1&q=2",
        "HTTP_COOKIE": "a=1; b=2",
        "REMOTE_ADDR": "192.0.2.1",
        "CONTENT_LENGTH": "0",
    }
    assert {name: app.environ[name] for name in wanted} == wanted


def test_a_base64_body_reaches_the_application_as_bytes() -> None:
    app = App()
    handle_request(app, {**EVENT_1, "body": base64.b64encode(b"\xff\x00").decode(), "isBase64Encoded": True}, None)
    assert app.sent == b"\xff\x00"


def test_a_wsgi_response_keeps_all_its_headers() -> None:
    app = App(b"ok", "text/html; charset=utf-8", ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))
    assert handle_request(app, EVENT_1, None) == {
        "statusCode": 201,
        "multiValueHeaders": {"content-type": ["text/html; charset=utf-8"], "set-cookie": ["a=1", "b=2"]},
        "isBase64Encoded": False,
        "body": "<ok",
    }
    assert handle_request(app, EVENT_2, None) == {
        "statusCode": 201,
        "headers": {"content-type": "text/html; charset=utf-8"},
        "cookies": ["a=1", "b=2"],
        "isBase64Encoded": False,
        "body": "<ok",
    }


@pytest.mark.parametrize(
    ("app", "encoded"),
    [
        (App(b"{}", "application/json"), False),
        (App(b"\x89PNG", "image/png"), True),
        (App(b"x", "text/css", ("Content-Encoding", "gzip")), True),
        (App(b"\xff", "text/plain"), True),
    ],
)
def test_the_content_type_of_a_response_decides_whether_it_is_base64(app: App, encoded: bool) -> None:
    assert handle_request(app, EVENT_2, None)["isBase64Encoded"] is encoded


def test_script_name_is_the_stage_only_on_awss_own_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    own = {**EVENT_1, "multiValueHeaders": {"Host": ["x.execute-api.eu-west-1.amazonaws.com"]}, "path": "/base/x"}
    handle_request(app, own, None)
    assert (app.environ["SCRIPT_NAME"], app.environ["PATH_INFO"]) == ("/dev", "/base/x")
    monkeypatch.setenv("API_GATEWAY_BASE_PATH", "base")
    handle_request(app, own, None)
    assert (app.environ["SCRIPT_NAME"], app.environ["PATH_INFO"]) == ("/base", "/x")


def test_a_warm_up_event_does_not_run_the_application() -> None:
    assert handle_request(App(), {"source": "serverless-plugin-warmup"}, None) == {}
