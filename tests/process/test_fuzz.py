"""Requests by chance, through HAProxy and real workers: no 5xx that the handler did not cause, and no worker lost."""

from __future__ import annotations

import base64
import http.client
import json
import random
import socket
import string
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.process.conftest import Site

pytestmark = pytest.mark.process

HANDLERS = """
import json

def echo(event, context):
    shown = {name: event.get(name) for name in ("body", "isBase64Encoded")}
    return {"statusCode": 200, "body": json.dumps(shown)}
"""
SERVICE = """
service: fuzzed
provider: {name: aws, runtime: python3.11}
functions:
  rest:
    handler: handlers.echo
    events: [{http: 'ANY /'}, {http: 'ANY /rest/{proxy+}'}, {http: 'GET /one/{id}/{rest+}'}]
  http: {handler: handlers.echo, events: [{httpApi: 'ANY /http/{proxy+}'}, {httpApi: 'POST /two/{id}'}]}
custom:
  hitless: {workers: 2, stages: {dev: {listen: '127.0.0.1:0', alarms: {guard_s: 0}}}}
"""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "get", "M-SEARCH", "X" * 40)
PREFIXES = ("/rest/", "/http/", "/one/", "/two/", "/", "//", "/rest", "/%72est/", "/rest/../http/", "*", "")
PIECES = (
    "a",
    "%C3%A9",
    "b/c",
    "%00",
    "%",
    "%zz",
    "%2F",
    "..",
    ".",
    ";x=1",
    "+",
    "{id}",
    "é",
    "日",
    "//",
    "%25",
    "a:b@c",
    "\x7f",
)
QUERIES = (
    "",
    "?",
    "?a=1&a=2",
    "?=",
    "?&&",
    "?a",
    "?%zz=%",
    "?q=" + "x" * 3000,
    "?a[]=1&b.c=%E2%82%AC",
    "??",
    "?a=%00;b",
)
HEADERS = (
    ("X-Forwarded-For", "1.2.3.4, ::1"),
    ("X-Forwarded-Proto", "gopher"),
    ("Accept", "*/*, ;q=2"),
    ("Accept-Encoding", "gzip, br"),
    ("Content-Type", "application/json; charset=klingon"),
    ("Content-Type", "multipart/form-data"),
    ("Cookie", "a=1; b; =c; d=é"),
    ("Authorization", "Basic %%%"),
    ("Expect", "100-continue"),
    ("Connection", "keep-alive, X-Own"),
    ("Upgrade", "h2c"),
    ("X-HTTP-Method-Override", "DELETE"),
    ("If-None-Match", '"x'),
    ("Range", "bytes=5-1"),
    ("TE", "trailers"),
    ("X-Empty", ""),
    ("X-Latin", "caf\xe9"),
    ("X-Long", "y" * 6000),
    ("x-hitless-release", "1"),
    ("Host", "two.hosts.example"),
)


@dataclass
class Request:
    """One request as bytes, and the body in it."""

    raw: bytes
    method: str
    body: bytes


def a_request(chance: random.Random) -> Request:
    plain = chance.random() < 0.5  # half of all requests are for a route, or hardly one would reach a handler
    method = chance.choice(METHODS[:5] if plain else METHODS)
    path = chance.choice(PREFIXES[:2] if plain else PREFIXES)
    path += "".join(chance.choices(PIECES[:3] if plain else PIECES, k=chance.randrange(1, 4))) + chance.choice(QUERIES)
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {text}" for name, text in chance.sample(HEADERS, k=chance.randrange(5))]
    lines += ["X-" + "".join(chance.choices(string.printable[:94], k=8)) + ": z"] * (chance.random() < 0.1)
    body = chance.randbytes(chance.choice((0, 0, 1, 300, 70_000))) if method not in ("HEAD", "TRACE") else b""
    if chance.random() < 0.3:
        lines.append("Transfer-Encoding: chunked")
        sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part) + b"0\r\n\r\n"
    else:
        lines.append(f"Content-Length: {len(body)}")
        sent = body
    return Request("\r\n".join([*lines, "", ""]).encode("utf-8") + sent, method, body)


def answer(address: tuple[str, int], request: Request) -> tuple[int, bytes]:
    """Send on a connection of its own; status and body. HAProxy may respond before it has read everything."""
    with socket.create_connection(address, timeout=20) as connection:
        try:
            connection.sendall(request.raw)
        except OSError:
            pass
        response = http.client.HTTPResponse(connection, method=request.method)
        response.begin()
        return response.status, response.read()


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_no_request_by_chance_is_a_5xx_or_ends_a_worker(site: Site, count: int) -> None:
    (site.folder / "handlers.py").write_text(HANDLERS)
    (site.folder / "serverless.yml").write_text(SERVICE)
    site.up()
    url = urlsplit(site.url)
    address = (url.hostname or "", url.port or 0)
    workers = worker_pids(site)
    chance = random.Random(count)
    reached = 0
    for number in range(count):
        request = a_request(chance)
        status, body = answer(address, request)
        assert 200 <= status < 500, (number, status, request.raw[:300])
        if status == 200 and request.method != "HEAD":
            event = json.loads(body)
            sent = event["body"] or ""
            arrived = base64.b64decode(sent) if event["isBase64Encoded"] else sent.encode("utf-8")
            if b"/http/" in request.raw[:60]:
                assert arrived == request.body, (number, request.raw[:300])
            reached += 1
    assert reached > count / 5
    assert worker_pids(site) == workers


def worker_pids(site: Site) -> set[int]:
    return {worker["pid"] for function in site.stage()["functions"] for worker in function["workers"]}
