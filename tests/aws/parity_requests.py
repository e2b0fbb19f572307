"""The requests sent to both homes: worldclock's routes, and special cases of HTTP and API Gateway.

`/echo…` answers with its event, `/answer` with what the request's body says the handler returns, `/raise` raises.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any, Final

Headers = tuple[tuple[str, str], ...]
JSON: Final[Headers] = (("Content-Type", "application/json"),)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; `target` is sent unchanged, below the stage. The table of differences refers to it by `name`."""

    name: str
    method: str
    target: str
    headers: Headers = ()
    body: bytes | None = None

    @property
    def echoes(self) -> bool:
        return self.target.startswith("/echo")


def posted(name: str, target: str, body: Any, headers: Headers = JSON) -> Asked:
    return Asked(name, "POST", target, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def answered(name: str, result: Any, method: str = "POST", headers: Headers = ()) -> Asked:
    """The handler returns `result`."""
    return Asked(name, method, "/answer", (*JSON, *headers), json.dumps(result).encode())


_MEETING = {
    "date": "2026-11-24",
    "duration_minutes": 30,
    "participants": [{"zone": "Europe/Berlin"}, {"zone": "America/New_York"}],
}

WORLDCLOCK: Final = (
    Asked("list zones", "GET", "/zones"),
    Asked("search zones", "GET", "/zones?query=berlin"),
    Asked("unknown query field", "GET", "/zones?colour=red"),
    Asked("a zone", "GET", "/zones/UTC"),
    Asked("a zone with a slash", "GET", "/zones/Etc/UTC"),
    Asked("a zone that is none", "GET", "/zones/Europe/Atlantis"),
    Asked("a zone, slash encoded", "GET", "/zones/Etc%2FUTC"),
    Asked("a zone in unicode", "GET", "/zones/Z%C3%BCrich"),
    Asked("convert by query", "GET", "/convert?instant=2026-11-24T12:00:00Z&to=Asia/Tokyo&to=Europe/Berlin"),
    Asked("convert, plus encoded", "GET", "/convert?instant=2026-11-24T12:00:00%2B01:00&to=Asia/Tokyo"),
    Asked("convert without a field", "GET", "/convert"),
    posted("convert by body", "/convert", {"instant": "2026-11-24T12:00:00Z", "to": ["Asia/Tokyo"]}),
    posted("bad JSON", "/convert", b'{"instant": '),
    posted("JSON that is no object", "/convert", b"[1]"),
    Asked("POST without a body", "POST", "/convert"),
    posted("no Content-Type", "/convert", {"instant": "2026-11-24T12:00:00Z", "to": ["Asia/Tokyo"]}, ()),
    posted("a meeting", "/meetings", _MEETING),
    posted("a meeting of nobody", "/meetings", _MEETING | {"participants": []}),
    Asked("health", "GET", "/health"),
    Asked(
        "health, conditional",
        "GET",
        "/health",
        (("If-None-Match", '"x"'), ("If-Modified-Since", "Tue, 24 Nov 2026 12:00:00 GMT")),
    ),
    Asked("health, gzip accepted", "GET", "/health", (("Accept-Encoding", "gzip, br"),)),
    Asked("version", "GET", "/version"),
    Asked("openapi", "GET", "/openapi.json"),
    Asked("unknown route", "GET", "/nothing"),
    Asked("the root", "GET", "/"),
    Asked("wrong method", "DELETE", "/health"),
    Asked("HEAD of a GET route", "HEAD", "/health"),
    Asked("OPTIONS without CORS", "OPTIONS", "/health"),
    Asked("trailing slash", "GET", "/health/"),
    Asked("double slash", "GET", "//health"),
    Asked("another case", "GET", "/Health"),
    Asked("encoded letter", "GET", "/he%61lth"),
    Asked("dot segments", "GET", "/zones/../health"),
    Asked("a dot segment", "GET", "/./health"),
)

ECHOES: Final = (
    Asked("echo", "GET", "/echo"),
    Asked("echo HEAD", "HEAD", "/echo"),
    Asked("echo OPTIONS", "OPTIONS", "/echo"),
    Asked("echo PUT", "PUT", "/echo", JSON, b"{}"),
    Asked("echo PATCH", "PATCH", "/echo", JSON, b"{}"),
    Asked("echo DELETE", "DELETE", "/echo"),
    Asked("echo a parameter", "GET", "/echo/first"),
    Asked("echo a greedy parameter", "GET", "/echo/first/second/third"),
    Asked("echo an encoded parameter", "GET", "/echo/a%20b%2Fc%25d"),
    Asked("echo a plus in the path", "GET", "/echo/a+b"),
    Asked("echo unicode", "GET", "/echo/%E6%99%82%E8%A8%88"),
    Asked("echo bytes that are no UTF-8", "GET", "/echo/%FF"),
    Asked("echo a greedy trailing slash", "GET", "/echo/first/second/"),
    Asked("echo dot segments", "GET", "/echo/a/../b"),
    Asked("echo semicolon", "GET", "/echo/a;v=1"),
    Asked("echo a query", "GET", "/echo?a=1&b=two&c="),
    Asked("echo repeated query values", "GET", "/echo?a=1&a=2&b=3&a=3"),
    Asked("echo a query name alone", "GET", "/echo?flag"),
    Asked("echo an encoded query", "GET", "/echo?a%20b=c%26d&e=f+g&h=%C3%BC"),
    Asked("echo an empty query", "GET", "/echo?"),
    Asked("echo a query with a slash", "GET", "/echo?to=Asia/Tokyo?&x==y"),
    Asked("echo a header", "GET", "/echo", (("X-Custom", "one"),)),
    Asked("echo repeated headers", "GET", "/echo", (("X-Custom", "one"), ("x-custom", "two"), ("X-Custom", "one"))),
    Asked("echo cookies", "GET", "/echo", (("Cookie", "a=1; b=2"),)),
    Asked("echo repeated cookies", "GET", "/echo", (("Cookie", "a=1"), ("Cookie", "b=2"))),
    Asked("echo an empty header", "GET", "/echo", (("X-Empty", ""),)),
    Asked("echo a user agent", "GET", "/echo", (("User-Agent", "parity/1"),)),
    Asked("echo authorization", "GET", "/echo", (("Authorization", "Bearer abc"),)),
    Asked("echo forwarded", "GET", "/echo", (("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https"))),
    Asked("echo a trace id", "GET", "/echo", (("X-Amzn-Trace-Id", "Root=1-67891233-abcdef012345678912345678"),)),
    Asked("echo conditional headers", "GET", "/echo", (("If-Match", '"1"'), ("Range", "bytes=0-1"))),
    Asked(
        "echo hop-by-hop headers",
        "GET",
        "/echo",
        (("Connection", "keep-alive"), ("TE", "trailers"), ("Keep-Alive", "timeout=5")),
    ),
    posted("echo a body", "/echo", {"a": "ü"}),
    posted("echo an empty body", "/echo", b""),
    posted("echo a body without Content-Type", "/echo", b"plain", ()),
    posted("echo a form", "/echo", b"a=1&b=2", (("Content-Type", "application/x-www-form-urlencoded"),)),
    posted("echo a binary body", "/echo", bytes(range(256)), (("Content-Type", "application/octet-stream"),)),
    posted("echo a gzipped body", "/echo", gzip.compress(b"{}", mtime=0), (*JSON, ("Content-Encoding", "gzip"))),
    posted("echo a large body", "/echo", b'"' + b"x" * 300_000 + b'"'),
    Asked("echo a GET with a body", "GET", "/echo", JSON, b'{"a": 1}'),
)

_MULTI = {"statusCode": 200, "body": "x", "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2"], "X-Several": ["1", "2"]}}

ANSWERS: Final = (
    answered("no keys", {}),
    answered("status alone", {"statusCode": 202}),
    answered("status as text", {"statusCode": "201", "body": "x"}),
    answered("no content", {"statusCode": 204}),
    answered("not modified", {"statusCode": 304, "headers": {"ETag": '"1"'}}),
    answered("redirect", {"statusCode": 302, "headers": {"Location": "https://example.com/"}, "body": ""}),
    answered("a returned 500", {"statusCode": 500, "body": '{"error": 1}'}),
    answered("a returned 503", {"statusCode": 503, "headers": {"Retry-After": "1"}, "body": ""}),
    answered("text", {"statusCode": 200, "headers": {"Content-Type": "text/plain; charset=utf-8"}, "body": "grüß"}),
    answered(
        "binary",
        {"statusCode": 200, "headers": {"Content-Type": "image/png"}, "body": "iVBORw0KGgo=", "isBase64Encoded": True},
    ),
    answered("base64 that is none", {"statusCode": 200, "body": "!", "isBase64Encoded": True}),
    answered("multi-value headers", _MULTI),
    answered("headers of both kinds", _MULTI | {"headers": {"X-Several": "3", "X-One": "1", "Set-Cookie": "a=1"}}),
    answered("number and boolean headers", {"statusCode": 200, "headers": {"X-Number": 7, "X-True": True}, "body": ""}),
    answered("a null header", {"statusCode": 200, "headers": {"X-Null": None}, "body": ""}),
    answered(
        "a header's case", {"statusCode": 200, "headers": {"X-CaSe": "1", "content-TYPE": "text/csv"}, "body": ""}
    ),
    answered("a body that is an object", {"statusCode": 200, "body": {"a": 1}}),
    answered("an unknown key", {"statusCode": 200, "body": "", "cookies": ["a=1"]}),
    answered("a status that is none", {"statusCode": 99, "body": ""}),
    answered("a status in words", {"statusCode": "OK", "body": ""}),
    answered("text instead of an object", "hello"),
    answered("a list instead of an object", [1]),
    answered("nothing", None),
    answered("headers that are a list", {"statusCode": 200, "headers": ["a"], "body": ""}),
    answered(
        "own length and connection",
        {"statusCode": 200, "headers": {"Content-Length": "1", "Connection": "close"}, "body": "abc"},
    ),
    answered("a null body", {"statusCode": 200, "body": None}),
    Asked("an exception", "GET", "/raise"),
)

REQUESTS: Final = (*WORLDCLOCK, *ECHOES, *ANSWERS)
