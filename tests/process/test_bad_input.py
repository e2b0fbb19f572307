"""Invalid input is refused at the edge, with place, reason, hint and exit code, and leaves running releases alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.conftest import Ran, Site

pytestmark = pytest.mark.process


def refused(ran: Ran, code: str, *words: str) -> None:
    """The error has the code, every word in its message or hint, and both lines on stderr."""
    error = ran.document["error"]
    assert error["code"] == code
    told = error["message"] + " " + error["hint"]
    for word in words:
        assert word in told, told
    assert f"error: {error['message']}" in ran.stderr
    assert error["hint"]
    assert f"hint: {error['hint']}" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_invalid_service_file_exits_with_2(shared: Site) -> None:
    before = shared.hitless("releases").document
    file = shared.folder / "serverless.yml"
    valid = file.read_text()
    for old, new, *words in (
        ("service: plain", "service: [plain", "serverless.yml"),
        ("runtime: python3.11", "runtime: ruby3.3", "serverless.yml:", "provider.runtime", "ruby3.3"),
        ("handler: handlers.api", "handler: handlers.nothing", "serverless.yml:", "functions.api.handler", "nothing"),
        ("handler: handlers.api", "handler: elsewhere.api", "serverless.yml:", "functions.api.handler", "elsewhere"),
        ("timeout: 1", "timeout: 0", "serverless.yml:", "functions.misbehave.timeout"),
        ("workers: 2", "worker: 2", "serverless.yml:", "custom.hitless.worker", "workers"),
    ):
        shared.edit(old, new, file.name)
        refused(shared.hitless("deploy", exit_code=2), "invalid_service", *words)
        file.write_text(valid)
    assert shared.get("/fast")[2]["release"] == "1"
    assert shared.hitless("releases").document == before


def test_a_syntax_error_is_reported_and_the_live_release_keeps_serving(shared: Site) -> None:
    shared.edit("def note_run(event", "def note_run((event")
    ran = shared.hitless("deploy", exit_code=None)
    assert ran.exit_code in (2, 3)
    assert "handlers" in ran.stderr
    assert shared.get("/fast")[2]["release"] == "1"


def test_an_unknown_requirement_exits_with_2_and_leaves_no_release(shared: Site) -> None:
    before = shared.hitless("releases").document
    (shared.folder / "requirements.txt").write_text("hitless-has-no-such-dependency==9.9.9\n")
    refused(shared.hitless("deploy", exit_code=2), "build_failed", "hitless-has-no-such-dependency")
    assert shared.hitless("releases").document == before
    assert shared.get("/fast")[0] == 200


def test_a_port_in_use_is_reported_before_anything_is_started(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = site.hitless("up", "--detach", "--listen", f"127.0.0.1:{port}", exit_code=1)
        refused(ran, "machine", str(port))
    assert "built" not in ran.stderr
    assert not site.folders.remains()


def test_a_new_address_for_a_running_engine_is_a_notice_and_changes_nothing(shared: Site) -> None:
    port = int(shared.url.rpartition(":")[2])
    other = shared.hitless("up", "--detach", "--listen", f"127.0.0.1:{port + 1}")
    assert "note: dev keeps its address while the engine runs" in other.stderr
    assert shared.stage()["url"] == shared.url
    assert "note:" not in shared.hitless("up", "--detach", "--listen", f"127.0.0.1:{port}").stderr


def test_up_without_haproxy_or_with_an_old_one_says_what_to_install(site: Site, tmp_path: Path) -> None:
    site.environ["HITLESS_HAPROXY"] = str(tmp_path / "missing")
    refused(site.hitless("up", "--detach", exit_code=1), "machine", "HITLESS_HAPROXY")
    old = tmp_path / "haproxy"
    old.write_text("#!/bin/sh\necho 'HA-Proxy version 1.8.8 2018/04/19'\n")
    old.chmod(0o755)
    site.environ["HITLESS_HAPROXY"] = str(old)
    refused(site.hitless("up", "--detach", exit_code=1), "machine", "1.8", "2.6")
    assert not site.folders.remains()


def test_a_data_folder_that_cannot_be_created_is_an_error_that_names_it(site: Site) -> None:
    (site.folder / "a-file").write_text("")
    ran = site.hitless("up", "--detach", "--data-dir", str(site.folder / "a-file"), exit_code=1)
    refused(ran, "machine", "a-file")


def test_commands_without_an_engine_exit_with_5(site: Site) -> None:
    for words in (["deploy"], ["rollback"], ["abort"], ["status"], ["releases"], ["events"], ["down"]):
        refused(site.hitless(*words, exit_code=5), "engine_not_running")


def test_a_second_daemon_for_the_same_data_folder_is_refused(shared: Site) -> None:
    read, write = os.pipe()
    command = [
        sys.executable,
        "-m",
        "hitless.processes.engine",
        "--data-dir",
        str(shared.folders.data),
        "--ready-fd",
        str(write),
    ]
    second = subprocess.run(command, pass_fds=(write,), capture_output=True, timeout=30, check=False)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert "another engine is running" in pipe.read()
    assert second.returncode == 1
    assert shared.get("/fast")[0] == 200


def test_two_concurrent_ups_start_one_engine_and_one_release(site: Site) -> None:
    command = [sys.executable, "-m", "hitless", "up", "--detach", "--json", "--service-dir", str(site.folder)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    engines = {json.loads(output)["engine"]["pid"] for output, _ in outputs}
    assert len(engines) == 1
    assert [row["release"] for row in site.hitless("releases").document] == [1]


def test_the_newest_of_two_concurrent_deploys_wins(running: Site) -> None:
    running.edit("ready_timeout_s: 20", "ready_timeout_s: 60", "serverless.yml")
    running.edit("import time\n", "import time\ntime.sleep(50)\n")
    command = [sys.executable, "-m", "hitless", "deploy", "--json", "--service-dir", str(running.folder)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    while "preparing" not in first.stderr.readline():
        assert first.poll() is None
    running.edit("time.sleep(50)\n", "")
    assert running.hitless("deploy").document["outcome"] == "live"
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 4
    assert '"superseded"' in output
    assert running.get("/fast")[2]["release"] == "3"


def test_unknown_options_and_strategies_exit_with_2(shared: Site) -> None:
    refused(shared.hitless("deploy", "--strategy", "Sometimes", exit_code=2), "usage", "Sometimes", "AllAtOnce")
    assert shared.hitless("rollback", "99", exit_code=2).document["error"]["message"] == "dev has no release 99"
    refused(shared.hitless("deploy", "--stage", "qa", exit_code=2), "usage", "qa", "dev")


def test_doctor_passes_on_this_machine_and_reports_faults(site: Site) -> None:
    looked = site.hitless("doctor").document
    assert looked["well"]
    assert "nothing listens until `hitless up` runs" in next(
        c["found"] for c in looked["checks"] if c["check"] == "restart"
    )
    site.environ["HITLESS_HAPROXY"] = "/nowhere/haproxy"
    ran = site.hitless("doctor", exit_code=1)
    amiss = [check for check in ran.document["checks"] if not check["well"]]
    assert [check["check"] for check in amiss] == ["HAProxy"]
    assert amiss[0]["mend"]


def test_up_warns_about_a_low_descriptor_limit(site: Site) -> None:
    words = [sys.executable, "-m", "hitless", "up", "--service-dir", str(site.folder)]
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -n 1000; exec "$@"', "sh", *words],
        capture_output=True, text=True, timeout=30, check=False, env={**os.environ, "HITLESS_HAPROXY": "/not/there"},
    )  # fmt: skip
    assert "warning: descriptor limit 1000, may be raised to 1000" in done.stderr
    assert "LimitNOFILE" in done.stderr
