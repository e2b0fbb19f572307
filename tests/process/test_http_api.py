"""An HTTP API through HAProxy and real workers: routes, events, inferred responses, failures."""

from __future__ import annotations

import urllib.request

import pytest

from tests.process.conftest import Site

pytestmark = pytest.mark.process

HANDLERS = """
import os, time

def echo(event, context):
    return event

def misbehave(event, context):
    how = event["pathParameters"]["how"]
    if how == "raise":
        raise ValueError(how)
    if how == "exit":
        os._exit(3)
    if how == "sleep":
        time.sleep(30)
    return {"statusCode": 200, "body": 7}
"""
SERVICE = """
service: two
provider: {name: aws, runtime: python3.11, httpApi: {cors: {allowedOrigins: ['https://a.example']}}}
functions:
  echo:
    handler: handlers.echo
    events: [{httpApi: 'GET /items/{id}'}, {httpApi: 'GET /items'}]
  misbehave:
    handler: handlers.misbehave
    timeout: 1
    events: [httpApi: 'GET /misbehave/{how}']
custom:
  hitless: {workers: 1, stages: {dev: {listen: '127.0.0.1:0', ready_timeout_s: 3, alarms: {guard_s: 0}}}}
"""
FAILED = {"message": "Internal Server Error"}


def test_a_service_with_only_an_http_api_is_served(site: Site) -> None:
    (site.folder / "handlers.py").write_text(HANDLERS)
    (site.folder / "serverless.yml").write_text(SERVICE)
    site.up()
    status, headers, event = site.get("/items/a?x=1&x=2")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert (event["version"], event["routeKey"], event["pathParameters"]) == ("2.0", "GET /items/{id}", {"id": "a"})
    assert event["queryStringParameters"] == {"x": "1,2"}
    assert headers["apigw-requestid"] == event["requestContext"]["requestId"]

    asks = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    preflight = urllib.request.Request(f"{site.url}/items/a", method="OPTIONS", headers=asks)
    with urllib.request.urlopen(preflight, timeout=15) as response:
        told = response.headers
        assert (response.status, told["access-control-allow-origin"]) == (204, "https://a.example")
        assert (told["access-control-allow-methods"], response.read()) == ("OPTIONS,GET", b"")

    for path, method in (("/nowhere", "GET"), ("/items", "POST"), ("/items/", "GET")):
        assert site.get(path, method)[::2] == (404, {"message": "Not Found"}), path
    for how in ("raise", "malformed", "sleep", "exit"):
        assert site.get(f"/misbehave/{how}")[::2] == (500, FAILED), how
    assert site.get("/items")[2]["routeKey"] == "GET /items"
