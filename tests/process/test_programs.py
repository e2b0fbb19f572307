"""Custom runtimes: a program of the service's own behind HAProxy, by Lambda's Runtime API, and what it does wrong."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.process.conftest import SERVICES, Site, kill
from tests.process.pipeline_support import Team, states
from tests.support import eventually, gone

pytestmark = pytest.mark.process

FAILED = {"message": "Internal server error"}
# AWS's tutorial, docs.aws.amazon.com/lambda/latest/dg/runtimes-walkthrough.html: a runtime of curl and bash.
TUTORIAL = """#!/bin/bash
set -euo pipefail
source $LAMBDA_TASK_ROOT/"$(echo $_HANDLER | cut -d. -f1).sh"
while true
do
  HEADERS="$(mktemp)"
  EVENT_DATA=$(curl -sS -LD "$HEADERS" "http://${AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation/next")
  REQUEST_ID=$(grep -Fi Lambda-Runtime-Aws-Request-Id "$HEADERS" | tr -d '[:space:]' | cut -d: -f2)
  RESPONSE=$($(echo "$_HANDLER" | cut -d. -f2) "$EVENT_DATA")
  curl "http://${AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation/$REQUEST_ID/response"  -d "$RESPONSE"
done
"""

COMPILES = """version: 0.2
env: {exported-variables: [COMPILER]}
phases:
  install: {runtime-versions: {}}
  build: {commands: ["sed 's/as asked/as built/' source > bootstrap", chmod +x bootstrap, export COMPILER="sed 1"]}
artifacts: {files: [bootstrap]}
"""


@pytest.fixture
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The service whose runtime does as its events ask (or the parameter's), not started."""
    site = Site(shutil.copytree(SERVICES / getattr(request, "param", "program"), tmp_path / "program"))
    yield site
    site.end()


def worker(site: Site) -> int:
    return int(site.stage()["functions"][0]["workers"][0]["pid"])


def test_a_program_gets_events_and_errors_as_on_lambda(program: Site) -> None:
    program.edit("    told = []", "    ballast, told = b'x' * (80 << 20), []", "bootstrap")
    program.up()
    status, _, shown = program.get("/well?x=1", "POST", b'{"a": 1}')
    assert (status, shown["event"]["httpMethod"], shown["event"]["body"]) == (200, "POST", '{"a": 1}')
    assert shown["headers"]["Lambda-Runtime-Aws-Request-Id"] == shown["event"]["requestContext"]["requestId"]
    assert int(shown["headers"]["Lambda-Runtime-Deadline-Ms"]) > 1_700_000_000_000
    assert shown["headers"]["Lambda-Runtime-Trace-Id"].startswith("Root=1-")
    assert shown["environment"]["_HANDLER"] == "anything.you.like"
    assert "AWS_EXECUTION_ENV" not in shown["environment"]
    pid, first = shown["pid"], worker(program)
    assert shown["worker"] == first

    for how in ("error", "text", "large"):
        assert program.get(f"/{how}")[::2] == (502, FAILED), how
    too_large = {
        "errorMessage": "Exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "RequestEntityTooLarge",
    }
    assert program.get("/twice")[2]["told"] == [[413, too_large]]
    another = {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}
    assert program.get("/impatient")[2]["told"] == [[202, {"status": "OK"}], [400, another]]
    told = program.get("/well")[2]["told"]
    assert [status for status, _ in told] == [400, 403, 202]
    assert (program.get("/well")[2]["pid"], worker(program)) == (pid, first), "none of that ends the program"

    text = str(program.hitless("logs").document)
    reported = [int(found) for found in re.findall(r"Max Memory Used: (\d+) MB", text)]
    assert reported
    assert min(reported) >= 80, "the program's memory, not its worker's"
    for line in ("[ERROR] Odd: as asked", "main.go:7", "asked for error", "Runtime.InvalidResponse"):
        assert line in text
    invoked = program.hitless("invoke", "api", "--request", "GET /well").document
    assert invoked["statusCode"] == 200


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_another_user_of_the_machine_gets_no_event(program: Site) -> None:
    program.up()
    address = program.get("/well")[2]["environment"]["AWS_LAMBDA_RUNTIME_API"]
    ask = "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)"
    url = f"http://{address}/2018-06-01/runtime/invocation/next"
    thief = subprocess.Popen([sys.executable, "-c", ask, url], user=65534, stderr=subprocess.PIPE, text=True)
    shown = program.get("/well")
    assert shown[0] == 200
    assert "RemoteDisconnected" in thief.communicate(timeout=15)[1] or thief.returncode == 1
    assert program.get("/well")[0] == 200


def test_a_program_that_ends_takes_its_worker_along_and_both_are_replaced(program: Site) -> None:
    program.edit("region: eu-central-1", "region: eu-central-1, memorySize: 128", "serverless.yml")
    program.up()
    pid, first = program.get("/well")[2]["pid"], worker(program)
    assert program.get("/exit", "POST")[::2] == (502, FAILED)
    eventually(lambda: gone(pid) and worker(program) not in (0, first), what="another worker")
    second = program.get("/well")[2]
    assert second["worker"] == worker(program) != first

    kill(second["pid"])  # between two requests
    assert program.get("/well")[2]["pid"] != second["pid"], "no request fails of it"
    third = program.get("/well")[2]
    kill(third["worker"])
    eventually(lambda: gone(third["pid"]), what="the program has ended with its worker")
    assert program.get("/well")[0] == 200

    assert program.get("/hold")[::2] == (502, FAILED)
    assert program.get("/well")[0] == 200
    text = str(program.hitless("logs").document)
    assert text.count("Error Type: Runtime.OutOfMemory") == 1, "the request does not run again"


@pytest.mark.parametrize(
    ("program", "kills"),
    [
        ("program", 10),
        ("node", 20),
        pytest.param("program", 100, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
        pytest.param("node", 100, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
    indirect=["program"],
)
def test_killed_programs_and_workers_run_no_post_twice_and_fail_no_get(program: Site, kills: int) -> None:
    program.edit("workers: 1", "workers: 3", "serverless.yml")
    program.allow(program.folder.parent / "runs")
    program.up()
    ledger, ended, sent = program.folder.parent / "runs" / "ledger", threading.Event(), itertools.count()
    failed: list[int] = []

    def has_more_than(least: int) -> bool:
        return ledger.exists() and len(ledger.read_text().split()) > least

    def post() -> None:
        while not ended.is_set():
            program.get(f"/ledger?file={quote(str(ledger))}", "POST", str(next(sent)).encode())

    def get() -> None:
        while not ended.is_set():
            if (status := program.get("/well")[0]) != 200:
                failed.append(status)

    with ThreadPoolExecutor(3) as clients:
        for client in (post, post, get):
            clients.submit(client)
        for number in range(kills):
            eventually(partial(has_more_than, number), what="POSTs run between the kills")
            shown = program.get("/well")[2]
            kill(shown["pid" if number % 2 else "worker"])
        ended.set()
    lines = ledger.read_text().split()
    assert len(lines) >= kills
    assert len(lines) == len(set(lines))
    assert failed == []


def test_a_program_that_does_not_start_is_rolled_back(program: Site) -> None:
    program.up()
    for name, reason in (("exit-at-once", "exited with status 3"), ("init-error", "Config.Missing: no configuration")):
        (program.folder / name).touch()
        failed = program.hitless("deploy", exit_code=3).document
        assert failed["outcome"] == "rolled_back"
        assert reason in str(failed), failed
        (program.folder / name).unlink()
        assert program.get("/well")[0] == 200
    (program.folder / "bootstrap").chmod(0o644)
    refused = program.hitless("deploy", exit_code=2).document
    assert refused["error"]["message"] == "functions.api: bootstrap is not executable"


def test_the_runtime_of_lambdas_tutorial_serves(program: Site) -> None:
    (program.folder / "bootstrap").write_text(TUTORIAL)
    script = """function handler () { echo '{"statusCode": 200, "body": "7"}'; }"""
    (program.folder / "function.sh").write_text(script)
    program.edit("anything.you.like", "function.handler", "serverless.yml")
    program.up()
    for _ in range(3):
        assert program.get("/hello")[::2] == (200, 7)


def test_a_push_ships_the_program_that_its_build_made(program: Site) -> None:
    hitless = (
        "  hitless: {workers: 1, stages: {dev: {listen: '127.0.0.1:0', ready_timeout_s: 20, alarms: {guard_s: 0}}}}"
    )
    program.edit(hitless, "  hitless:\n    workers: 1\n    stages: {}", "serverless.yml")
    team = Team(program, buildspec=COMPILES.replace("install: {runtime-versions: {}}", "").partition("artifacts:")[0])
    bootstrap = program.folder / "bootstrap"
    (program.folder / "source").write_text(bootstrap.read_text())
    with team.at_work():
        (program.folder / "buildspec-build.yml").write_text(COMPILES)
        with (program.folder / ".gitignore").open("a") as ignored:
            ignored.write("bootstrap\n")
        team.git("rm", "--quiet", "--cached", "bootstrap")
        bootstrap.unlink()
        team.commit("build the program")
        said = team.push("dev")
        assert "buildspec-build.yml: added to the package's files: bootstrap" in said
        assert "release 2 is live in dev" in said
        (step,) = (one for one in team.run(team.last_run())["steps"] if one["name"] == "build")
        assert step["detail"]["built"]["exported"] == {"COMPILER": "sed 1"}
        assert program.get("/error")[0] == 502
        assert "as built" in str(program.hitless("logs").document)

        missing = COMPILES.replace("runtime-versions: {}", "runtime-versions: {golang: '9.9'}")
        (program.folder / "buildspec-build.yml").write_text(missing)
        team.commit("require a Go that is not here")
        assert "the buildspec requires Go 9.9, and there is " in team.push("dev")
        assert states(team.run(team.last_run()))["build"] == "failed"
        assert program.get("/well")[0] == 200
