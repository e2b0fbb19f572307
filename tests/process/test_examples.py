"""The examples run as they are: routes, queries, bodies and errors of their frameworks through real workers."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import boto3
import pytest
from moto.server import ThreadedMotoServer

from hitless.workers.isolation import PATHS_VARIABLE
from tests.process.conftest import Site

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parents[2] / "examples"
NAME = quote("Zoë & 日本")
NOT_FOUND = {  # each framework's own words, and API Gateway's where only listed paths are routes
    "flask": (404, {"error": "Not Found"}),
    "fastapi": (404, {"detail": "Not Found"}),
    "django": (404, {"error": "Not Found"}),
    "chalice": (403, {"message": "Missing Authentication Token"}),
    "node": (403, {"message": "Missing Authentication Token"}),
    "powertools": (403, {"message": "Missing Authentication Token"}),
}


@pytest.fixture
def example(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A copy of the example that the test's parameter names, not started."""
    site = Site(shutil.copytree(EXAMPLES / request.param, tmp_path / "service", ignore=shutil.ignore_patterns(".*")))
    yield site
    site.end()


@pytest.fixture
def payments_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The table of the Powertools example, on an emulator that boto3 finds by `~/.aws`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    aws = tmp_path / ".aws"
    aws.mkdir()
    (aws / "credentials").write_text("[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n")
    (aws / "config").write_text(f"[default]\nendpoint_url = http://{host}:{port}\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(PATHS_VARIABLE, str(aws))
    boto3.Session(region_name="eu-central-1").client("dynamodb").create_table(
        TableName="powertools-example-dev-payments",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    yield
    server.stop()


@pytest.mark.parametrize("example", sorted(NOT_FOUND), indirect=True)
def test_the_example_serves_its_routes(example: Site, request: pytest.FixtureRequest) -> None:
    framework = request.node.callspec.params["example"]
    if framework == "powertools":
        request.getfixturevalue("payments_table")
    example.up("--listen", "127.0.0.1:0")
    assert example.get(f"/greetings/{NAME}?times=3")[::2] == (200, {"greeting": "Hello, Zoë & 日本", "times": 3})
    assert example.get("/nowhere/at/all")[::2] == NOT_FOUND[framework]
    if framework != "powertools":
        assert post(example, "/sums", {"numbers": [1, 2, 39]}) == (201, {"total": 42})
        return
    answers = [post(example, "/payments", {"order": 7, "amount": 12}) for _ in range(3)]
    assert answers[0][0] == 201
    assert answers[0] == answers[1] == answers[2], "a payment that is sent again is not made again"
    assert post(example, "/payments", {"order": 8, "amount": 12}) != answers[0]


def post(site: Site, path: str, document: object) -> tuple[int, object]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(site.url + path, json.dumps(document).encode(), headers)
    with urllib.request.urlopen(request, timeout=15) as response:
        return response.status, json.load(response)
