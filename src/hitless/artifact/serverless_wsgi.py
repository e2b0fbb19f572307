"""Runs a WSGI application (Flask, Django, …) as a Lambda handler, in place of the plugin serverless-wsgi's module.

Goes into artifacts as `serverless_wsgi.py`, so it imports the standard library only and runs on Python 3.9. It takes
events of payload formats 1.0 (REST APIs too) and 2.0.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

CONFIGURATION = ".serverless-wsgi"
TEXT_MIME_TYPES = [
    "application/json",
    "application/javascript",
    "application/xml",
    "application/vnd.api+json",
    "image/svg+xml",
]
"""Bodies of these types and of `text/*` go out as text, others as base64."""

Event = dict[str, Any]
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def make_handler(folder: str) -> Callable[[Event, Any], Event]:
    """The handler of the application that the configuration in `folder` names. Raises what its import raises."""
    configuration = json.loads((Path(folder) / CONFIGURATION).read_text("utf-8"))
    TEXT_MIME_TYPES.extend(configuration.get("text_mime_types", ()))
    path, _, attribute = configuration["app"].rpartition(".")
    subfolder, _, module = path.rpartition("/")
    if subfolder:
        sys.path.insert(0, str(Path(folder) / subfolder))
    app = getattr(importlib.import_module(module), attribute)
    return lambda event, context: handle_request(app, event, context)


def handle_request(app: Application, event: Event, context: Any) -> Event:
    """The application's response to an event."""
    if event.get("source") in ("aws.events", "serverless-plugin-warmup"):
        return {}
    status, headers, body = _call(app, _environ(event, context))
    response: Event = {"statusCode": status}
    grouped: dict[str, list[str]] = {}
    for name, value in headers:
        grouped.setdefault(name.lower(), []).append(value)
    if event.get("version") == "2.0":
        if cookies := grouped.pop("set-cookie", None):
            response["cookies"] = cookies
        response["headers"] = {name: ",".join(values) for name, values in grouped.items()}
    else:
        response["multiValueHeaders"] = grouped
    if body:
        text = None if "content-encoding" in grouped else _text(body, grouped.get("content-type", ["text/plain"])[-1])
        response["isBase64Encoded"] = text is None
        response["body"] = base64.b64encode(body).decode() if text is None else text
    return response


def _call(app: Application, environ: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        started.append((status, headers))
        return written.append

    result = app(environ, start_response)
    try:
        chunks = list(result)  # an application may call start_response as late as here
    finally:
        if hasattr(result, "close"):
            result.close()
    status, headers = started[-1]
    return int(status.split()[0]), headers, b"".join([*written, *chunks])


def _text(body: bytes, content_type: str) -> str | None:
    kind = content_type.partition(";")[0].strip().lower()
    if not kind.startswith("text/") and kind not in TEXT_MIME_TYPES:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _environ(event: Event, context: Any) -> dict[str, Any]:
    of_format_2 = event.get("version") == "2.0"
    requested = event["requestContext"]
    headers = _headers(event)
    body = event.get("body") or ""
    sent = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    script, path = _paths(event["rawPath"] if of_format_2 else event["path"], headers, requested)
    queries = event.get("multiValueQueryStringParameters") or event.get("queryStringParameters") or {}
    environ = {
        "REQUEST_METHOD": requested["http"]["method"] if of_format_2 else event["httpMethod"],
        "SCRIPT_NAME": _latin(script),
        "PATH_INFO": _latin(unquote(path)),
        "QUERY_STRING": event.get("rawQueryString", "") if of_format_2 else urlencode(queries, doseq=True),
        "CONTENT_TYPE": headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(sent)),
        "REMOTE_ADDR": requested.get("http" if of_format_2 else "identity", {}).get("sourceIp") or "",
        "REMOTE_USER": (requested.get("authorizer") or {}).get("principalId", ""),
        "SERVER_NAME": headers.get("host", "lambda").partition(":")[0],
        "SERVER_PORT": headers.get("x-forwarded-port", "443"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": headers.get("x-forwarded-proto", "https"),
        "wsgi.input": io.BytesIO(sent),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "serverless.authorizer": requested.get("authorizer"),
        "serverless.event": event,
        "serverless.context": context,
    }
    for name, value in headers.items():
        if name not in ("content-type", "content-length"):
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = _latin(value)
    return environ


def _headers(event: Event) -> dict[str, str]:
    """By name in lower case; values of one name are joined as CGI does it."""
    headers: dict[str, str] = {}
    many = event.get("multiValueHeaders") or {name: [value] for name, value in (event.get("headers") or {}).items()}
    for name, values in many.items():
        headers[name.lower()] = ("; " if name.lower() == "cookie" else ",").join(values)
    if event.get("cookies"):
        headers["cookie"] = "; ".join(event["cookies"])
    return headers


def _paths(path: str, headers: dict[str, str], requested: dict[str, Any]) -> tuple[str, str]:
    """SCRIPT_NAME and the path below it: the stage on AWS's own domain, or what API_GATEWAY_BASE_PATH says."""
    if base := os.environ.get("API_GATEWAY_BASE_PATH"):
        script = f"/{base.strip('/')}"
        return script, path[len(script) :] if path.startswith(script) else path
    stripped = os.environ.get("STRIP_STAGE_PATH", "").strip().lower() in ("yes", "y", "true", "t", "1")
    stage = requested.get("stage", "$default")
    if "amazonaws.com" not in headers.get("host", "") or stripped or stage == "$default":
        return "", path
    return f"/{stage}", path


def _latin(text: str) -> str:
    """As WSGI wants it: the bytes of UTF-8, each as one character."""
    return text.encode().decode("latin-1")
