"""Node.js functions behind HAProxy: a service of three languages, failures in a request, and releases that fail."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import SERVICES, Site
from tests.support import eventually, gone

pytestmark = pytest.mark.process

FAILED = {"message": "Internal server error"}
MORE_FUNCTIONS = """functions:
  py: {runtime: python3.11, handler: other.handler, events: [{http: GET /in/python}]}
  sh: {runtime: provided.al2023, handler: any, package: {artifact: sh.zip}, events: [{http: GET /in/bash}]}
"""
BASH = """#!/bin/bash
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation
while id=$(curl -sS -o /dev/null -D - $api/next | tr -d '\\r' | sed -n 's/^Lambda-Runtime-Aws-Request-Id: //p')
do curl -sS $api/$id/response -d '{"statusCode": 200, "body": "\\"bash\\""}'
done
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Site]:
    """The Node.js service, not started."""
    site = Site(shutil.copytree(SERVICES / "node", tmp_path / "node"))
    yield site
    site.end()


def test_a_service_of_three_languages_fails_as_on_lambda_and_rolls_back(node: Site) -> None:
    node.edit("functions:\n", MORE_FUNCTIONS, "serverless.yml")
    node.edit("timeout: 5", "timeout: 1", "serverless.yml")
    (node.folder / "other.py").write_text("def handler(e, c):\n    return {'statusCode': 200, 'body': '\"python\"'}\n")
    bootstrap = zipfile.ZipInfo("bootstrap")
    bootstrap.external_attr = 0o100755 << 16
    with zipfile.ZipFile(node.folder / "sh.zip", "w") as archive:
        archive.writestr(bootstrap, BASH)
    node.up()
    assert (node.get("/in/python")[2], node.get("/in/bash")[2]) == ("python", "bash")
    first = node.get("/well", "POST", b"a")[2]
    assert (first["event"]["httpMethod"], first["event"]["body"]) == ("POST", "a")

    for how in ("error", "circular", "large"):
        assert node.get(f"/{how}")[::2] == (502, FAILED), how
    assert node.get("/well")[2]["pid"] == first["pid"], "none of that ends the process"
    for how in ("lost", "exit", "never"):
        status, _, shown = node.get("/well")
        assert status == 200, (how, status, shown)
        pid = shown["pid"]
        assert node.get(f"/{how}", "POST")[::2] == (502, FAILED), how
        eventually(lambda pid=pid: gone(pid), what="the process has ended")  # type: ignore[misc]
    invoked = node.hitless("invoke", "api", "--request", "GET /error", exit_code=1).document
    assert invoked["errorType"] == "TypeError"
    assert invoked["trace"][0] == "TypeError: as asked"
    log = str(node.hitless("logs", "api").document)
    for line in (
        "INFO\\tasked for error", 'ERROR\\tInvoke Error \\t{"errorType":"TypeError"', "Unable to stringify response",
        "Function.ResponseSizeTooLarge", "Unhandled Promise Rejection", "exit status 7", "Task timed out after 1.00",
    ):  # fmt: skip
        assert line in log, line
    assert log.count("TypeError: as asked") == 1, "the bootstrap logs it, and the worker does not"

    text = (node.folder / "api.mjs").read_text()
    for change, reason in {
        "export const = 1": "Runtime.UserCodeSyntaxError: SyntaxError: Unexpected token",
        "process.exit(3)": "exited with status 3",
    }.items():
        (node.folder / "api.mjs").write_text(f"{text}\n{change};\n")
        failed = node.hitless("deploy", exit_code=3).document
        assert failed["outcome"] == "rolled_back"
        assert reason in failed["reason"], failed
    (node.folder / "api.mjs").unlink()
    refused = node.hitless("deploy", exit_code=2).document["error"]["message"]
    assert refused == "functions.api.handler: api.handler: the package does not contain api.js, .mjs or .cjs"
    assert node.get("/well")[0] == 200
