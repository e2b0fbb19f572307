"""A service's life by the command line: up, requests, deploy, broken deploys, rollback, logs, down."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from hitless.worker import compiled
from hitless.workers.isolation import HANDLER_UIDS
from tests.process.conftest import Site
from tests.support import eventually

pytestmark = pytest.mark.process


def test_a_service_is_started_released_rolled_back_and_stopped(site: Site) -> None:
    status = site.up()
    assert status["stages"][0]["live"]["release"] == 1
    assert status["engine"]["compiled"] is bool(compiled.find(os.environ))
    assert site.get("/fast")[2] == {"release": "1", "function_version": "1"}
    assert site.get("/fast")[1]["x-hitless-release"] == "1"

    site.touch("two")
    deployed = site.hitless("deploy", "--message", "second").document
    assert (deployed["outcome"], deployed["release"], deployed["live"]["failed"]) == ("live", 2, 0)
    assert site.get("/release")[2]["release"] == "2"
    assert site.hitless("deploy").document["outcome"] == "unchanged"

    back = site.hitless("rollback").document
    assert (back["outcome"], back["release"]) == ("live", 1)
    assert site.get("/fast")[2]["release"] == "1"

    listed = site.hitless("releases").document
    assert [(row["release"], row["live"], row["message"]) for row in listed] == [
        (2, False, "second"),
        (1, True, "first release"),
    ]
    assert any("release 2 is live" in event["sentence"] for event in site.hitless("events").document)

    assert site.hitless("down").document == {"stopped": True}
    assert not site.folders.remains()
    assert site.hitless("status", exit_code=5).document["error"]["code"] == "engine_not_running"


def test_the_engines_log_is_rotated_at_a_start_and_while_it_runs(site: Site) -> None:
    log, aside = site.folders.daemon_log, site.folders.data / "engine.log.1"
    site.folders.data.mkdir(mode=0o700)
    log.write_bytes(b"before\n" * (1 << 20))
    site.up()
    assert aside.read_bytes().startswith(b"before")
    with log.open("ab") as file:
        file.write(b"while\n" * (1 << 20))
    eventually(lambda: log.stat().st_size < 1 << 20, deadline_s=60, what="a new log")
    assert b"while" in aside.read_bytes()


def test_up_after_down_serves_the_last_live_release(site: Site) -> None:
    site.up()
    site.touch("two")
    site.hitless("deploy")
    site.hitless("down")
    site.up()
    assert site.get("/fast")[2]["release"] == "2"


def test_up_with_a_running_engine_changes_nothing(shared: Site) -> None:
    before = shared.status()
    after = shared.up()
    assert after["engine"]["pid"] == before["engine"]["pid"]
    assert [stage["url"] for stage in after["stages"]] == [stage["url"] for stage in before["stages"]]
    assert shared.stage()["live"]["release"] == 1


def test_up_in_the_foreground_shows_only_new_events(site: Site) -> None:
    site.up()
    site.hitless("down")
    command = [sys.executable, "-m", "hitless", "up", "--service-dir", str(site.folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as engine:
        assert engine.stderr is not None
        assert "Ctrl-C stops the engine" in engine.stderr.readline()
        site.hitless("deploy", "--force")
        assert "release 2 is live" in engine.stderr.readline()
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(timeout=20) == 0
    assert not site.folders.remains()


def interrupted(site: Site, *words: str, when: str) -> str:
    """The command's stderr after Ctrl-C, sent when it has written `when`. It starts with SIGINT ignored, as a
    background job.
    """
    command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", "hitless", *words]
    with subprocess.Popen([*command, "--service-dir", str(site.folder)], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            assert any(when in line for line in running.stderr)
            running.send_signal(signal.SIGINT)
            assert running.wait(timeout=20) == 130
            return running.stderr.read()
        finally:
            running.kill()


def test_ctrl_c_leaves_the_engines_work_running_and_stops_a_foreground_engine(site: Site) -> None:
    site.edit("import time\n", "import time\ntime.sleep(1.5)\n")
    told = interrupted(site, "up", "--detach", when="preparing")
    assert told.endswith(
        "error: interrupted: the rollout of release 1 continues in the engine\n"
        "hint: `hitless abort --stage dev` stops it; `hitless status` shows it\n"
    )
    eventually(lambda: site.stage()["live"], what="the first release is live")
    told = interrupted(site, "deploy", "--force", "--strategy", "Canary10Percent30Seconds", when="baking")
    assert "error: interrupted: the rollout of release 2 continues in the engine\n" in told
    assert site.hitless("abort").document["outcome"] == "aborted"
    told = interrupted(site, "up", when="Ctrl-C stops the engine")
    assert told.endswith("error: interrupted: the engine was stopped\nhint: `hitless up` starts it again\n")
    assert not site.folders.remains()


def test_a_release_that_cannot_be_imported_is_rolled_back_without_traffic(shared: Site) -> None:
    shared.edit("import json", "import json\nimport not_there")
    ran = shared.hitless("deploy", exit_code=3)
    assert ran.document["outcome"] == "rolled_back"
    assert "not_there" in ran.document["reason"]
    assert ran.document["candidate"]["requests"] == 0
    assert "error: " in ran.stderr
    number = str(ran.document["release"])
    assert f"hint: `hitless logs --release {number}`" in ran.stderr
    assert any("not_there" in line for line in shared.hitless("logs", "--release", number).document)
    assert shared.get("/fast")[2]["release"] == "1"
    assert shared.stage()["candidate"] is None


def test_a_release_whose_smoke_request_fails_is_rolled_back(shared: Site) -> None:
    shared.edit("case _:", 'case "/fast":\n            raise ValueError("smoke")\n        case _:')
    ran = shared.hitless("deploy", exit_code=3)
    assert "smoke request GET /fast: 502 instead of 200" in ran.document["reason"]
    assert shared.get("/fast")[0] == 200


def test_a_first_up_sends_one_request_and_fails_only_if_the_handler_returns_no_result(site: Site) -> None:
    site.edit("smoke: [GET /fast]", "smoke: []", "serverless.yml")
    site.edit("case _:", 'case "/fast":\n            return {"message": "hello"}\n        case _:')
    ran = site.hitless("up", "--detach", exit_code=3)
    assert "error: release 1 was rolled back: handlers.py: api (function api) returned no statusCode to" in ran.stderr
    assert "GET /fast: keys that API Gateway does not accept: 'message'" in ran.document["reason"]
    assert not site.folders.remains()
    site.edit('return {"message": "hello"}', 'raise ValueError("no database yet")')
    site.up()
    assert "GET /fast: 502, see `hitless logs api`" in str(site.hitless("events").document)
    assert site.stage()["live"]["release"] == 2
    assert site.get("/release")[0] == 200
    receipt = site.hitless("releases", "2").document["rollouts"][0]
    assert (receipt["candidate"]["requests"], [step.get("note") for step in receipt["steps"]].count(None)) == (
        0,
        len(receipt["steps"]) - 1,
    )


def test_a_release_that_is_never_ready_is_rolled_back(shared: Site) -> None:
    shared.edit("import time\n", "import time\ntime.sleep(30)\n")
    shared.edit("ready_timeout_s: 20", "ready_timeout_s: 3", "serverless.yml")
    ran = shared.hitless("deploy", exit_code=3)
    assert "not ready" in ran.document["reason"]
    assert shared.get("/fast")[0] == 200


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ("raise", 502, "Internal server error"),
        ("none", 502, "Internal server error"),
        ("exit", 502, "Internal server error"),
        ("hang", 502, "Internal server error"),
    ],
)
def test_a_failing_handler_responds_as_on_api_gateway(shared: Site, how: str, status: int, message: str) -> None:
    got = shared.get(f"/misbehave/{how}")
    assert (got[0], got[2]) == (status, {"message": message})
    assert got[1]["content-type"] == "application/json"
    assert shared.get("/misbehave/nothing")[0] == 200, "the function goes on"


def test_a_request_that_ends_its_worker_gets_a_502(shared: Site) -> None:
    """On a used keep-alive connection, where a gateway without a response could only close it."""
    before = shared.stage()["functions"][1]["restarts"]
    parts = urlsplit(shared.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=15)
    for path, status in (("/misbehave/nothing", 200), ("/misbehave/exit", 502), ("/misbehave/nothing", 200)):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == status
        assert status == 200 or body == {"message": "Internal server error"}
    connection.close()
    assert shared.stage()["functions"][1]["restarts"] == before + 1


def test_an_unknown_route_and_a_stage_without_a_release_get_json_responses(shared: Site) -> None:
    assert shared.get("/nowhere")[::2] == (403, {"message": "Missing Authentication Token"})
    prod = Site(shared.folder, url=shared.stage("prod")["url"])
    assert prod.get("/fast")[::2] == (503, {"message": "Service Unavailable"})


def test_logs_show_the_same_lines_as_cloudwatch(shared: Site) -> None:
    shared.get("/misbehave/print")
    shared.get("/misbehave/raise")
    text = "\n".join(shared.hitless("logs", "misbehave").document)
    for part in (
        "START RequestId: ",
        "a line of the handler's own",
        "END RequestId: ",
        "REPORT RequestId: ",
        "Billed Duration",
    ):
        assert part in text
    assert "ValueError: on purpose" in text


def test_a_function_can_be_invoked_outside_http(site: Site) -> None:
    (site.folder / "event.json").write_text(json.dumps({"path": "/fast"}))
    ran = site.hitless("invoke", "api", "--event", str(site.folder / "event.json"))
    assert ran.document["statusCode"] == 200
    assert "REPORT" in ran.stderr
    assert "--request 'METHOD PATH' or --event FILE" in site.hitless("invoke", "api", exit_code=1).stderr


def test_a_route_can_be_invoked_by_its_method_and_path(site: Site) -> None:
    ran = site.hitless("invoke", "api", "--request", "post /echo?s=0", "--body", '{"b": 2}')
    told = json.loads(ran.document["body"])
    assert (told["method"], told["length"]) == ("POST", 8)
    error = site.hitless("invoke", "api", "--request", "GET /nowhere", exit_code=2).document["error"]
    assert error["message"] == "api has no route for GET /nowhere"
    assert error["hint"].startswith("its routes: GET /fast")


def test_the_engines_sockets_and_folders_are_private(shared: Site) -> None:
    assert stat.S_IMODE(shared.folders.run.stat().st_mode) == 0o700
    assert stat.S_IMODE(shared.folders.data.stat().st_mode) == 0o700
    sockets = [path for path in shared.folders.run.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    assert sockets
    for path in sockets:
        shown = path.parent in (shared.folders.run / "gw" / "hop", shared.folders.run / "gw" / "handed")
        closed = path.parents[1] if shown else path  # workers with another user see the folder between them
        assert stat.S_IMODE(closed.stat().st_mode) & 0o077 == 0, path
        assert closed.stat().st_uid == os.getuid() or ("w" in path.parts and path.stat().st_uid in HANDLER_UIDS)
