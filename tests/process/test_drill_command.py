"""`hitless drill` as a user runs it, on a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hitless.drill.pace import interleave
from hitless.drill.scenarios import READY_TIMEOUT_S
from tests.component.drill_faulty_server import FaultyServer
from tests.process.conftest import Site
from tests.support import eventually

pytestmark = pytest.mark.process

REQUESTS = [
    {"path": "/fast", "weight": 4},
    {"method": "POST", "path": "/echo", "body": "x" * 2000, "weight": 2},
]


def requests_file(folder: Path, requests: list[dict[str, Any]]) -> str:
    path = folder.parent / "requests.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in requests))
    return str(path)


def test_releases_of_every_scenario_ship_under_load_without_a_failed_request(running: Site) -> None:
    scenarios = "good,import-crash,canary,never-ready,rollback,raises-on-route,exits"
    ran = running.hitless(
        *("drill", "--rate", "200", "--duration", "20", "--scenarios", scenarios, "--idempotency-key"),
        *("--requests", requests_file(running.folder, REQUESTS)),
        timeout_s=150,
    )
    document = ran.document
    assert document["failed"] == 0, document["failures"]
    assert document["requests"] == document["answered"] >= 4_000
    assert [(one["scenario"], one["outcome"], one["release"]) for one in document["releases"]] == [
        ("good", "live", 2),
        ("import-crash", "rolled_back", 3),
        ("canary", "live", 4),
        ("never-ready", "rolled_back", 5),
        ("rollback", "live", 2),
        ("raises-on-route", "rolled_back", 6),
        ("exits", "rolled_back", 7),
    ]
    for broken in document["releases"][-2:]:
        assert broken["reason"].startswith("alarm: "), "the bake found it, not a smoke request"
        assert broken["shielded"] == broken["gateway"]["shielded"] > 0
        assert {step["state"] for step in broken["steps"]} >= {"baking", "withdrawing"}
    assert document["shielded"] == sum(one["shielded"] for one in document["releases"])
    assert "broken on purpose" in document["releases"][1]["reason"]
    reason = document["releases"][3]["reason"]
    assert f"was not ready within {READY_TIMEOUT_S:g} s" in reason, (
        "the copy's ready time-out is shorter than the default"
    )
    answered = {one["release"]: one["requests"] for one in document["releases"]}
    assert answered[3] == answered[5] == 0
    assert answered[4] > 0
    assert document["restored"]["outcome"] == "live"
    assert running.stage()["live"]["release"] == 1
    assert [one["request"] for one in document["by_request"]] == ["GET /fast", "POST /echo"]
    assert document["connections"]["new"] > 0.15 * document["requests"]
    assert Path(document["report"]).is_absolute()
    page = Path(document["report"]).read_text()
    assert f"0 of {document['requests']:,} requests failed while 3 releases shipped" in page
    assert not (running.folder / "hitless_drill_marker.py").exists()


def test_unsafe_requests_fail_only_in_the_canarys_share_until_the_alarm(running: Site) -> None:
    ran = running.hitless(
        *("drill", "--rate", "200", "--duration", "6", "--scenarios", "raises-on-route"),
        *("--requests", requests_file(running.folder, [{"method": "POST", "path": "/echo", "body": "{}"}])),
        exit_code=6,
        timeout_s=90,
    )
    document = ran.document
    (broken,) = document["releases"]
    assert broken["outcome"] == "rolled_back"
    assert document["shielded"] == 0
    assert 0 < document["failed"] == broken["failed"] <= broken["gateway"]["requests"]
    assert broken["gateway"]["requests"] < 0.25 * 200 * broken["duration_s"] + 20, "a tenth of the traffic, by chance"
    assert {(one["kind"], one["during"]) for one in document["failures_by_moment"]} == {
        ("status_5xx", f"release {broken['release']} (raises-on-route)")
    }
    assert {one["state"] for one in document["failures_by_moment"]} <= {"shifting", "baking", "withdrawing"}


def test_killed_workers_zygotes_and_daemons_fail_no_get(running: Site) -> None:
    daemon = running.status()["engine"]["pid"]
    faults = "kill-worker,hang,kill-zygote,kill-guardian,kill-daemon"
    ran = running.hitless(
        *("drill", "--rate", "200", "--duration", "12", "--releases", "0", "--faults", faults),
        *("--protocol", "h2", "--arrivals", "poisson"),
        *("--requests", requests_file(running.folder, [{"path": "/fast"}])),
        timeout_s=120,
    )
    document = ran.document
    assert document["failed"] == 0, document["failures"]
    assert document["requests"] >= 2_400
    assert document["protocol"] == "h2"
    assert [one["fault"] for one in document["faults"]] == faults.split(",")
    assert all(one["recovered_ms"] is not None for one in document["faults"])
    assert running.status()["engine"]["pid"] != daemon


def test_random_faults_during_rollouts_fail_no_request(running: Site) -> None:
    faults = "kill-gateway,kill-worker+kill-spooler,full-disk,half-closed-clients,ship-closes-descriptors"
    ran = running.hitless(
        *("drill", "--rate", "60", "--duration", "12", "--releases", "2", "--faults", faults, "--seed", "5"),
        *("--idempotency-key", "--requests", requests_file(running.folder, REQUESTS)),
        timeout_s=150,
    )
    document = ran.document
    assert document["failed"] == document["excused"], document["failures"]
    assert sorted(one["fault"] for one in document["faults"]) == sorted(faults.split(","))
    assert all(one["restored"] for one in document["faults"]), document["faults"]
    assert {one["fault"] for one in document["faults"] if one["excused"]} <= {"kill-gateway"}
    assert running.stage()["live"]["release"] == 1


def test_a_lost_request_exits_with_6_and_prints_the_document(site: Site) -> None:
    requests: list[dict[str, Any]] = [{"path": "/ok", "weight": 3}, {"path": "/every/10/500"}]
    with FaultyServer() as server:
        ran = site.hitless(
            *("drill", "--target", f"http://127.0.0.1:{server.port}", "--rate", "200", "--duration", "2"),
            *("--requests", requests_file(site.folder, requests), "--report", str(site.folder.parent / "page.html")),
            exit_code=6,
        )
        sent = interleave([3, 1]).count(1) * 400 // 4 + 1  # the probe's is one more
        assert server.seen["/every/10/500"] == sent
    assert ran.document["failed"] == sent // 10
    assert {one["kind"]: one["count"] for one in ran.document["failures"] if one["count"]} == {"status_5xx": sent // 10}
    assert ran.document["releases"] == []
    assert "error: 10 of 400 requests failed" in ran.stderr
    assert "hint: " in ran.stderr
    assert ran.document["report"] == str(site.folder.parent / "page.html")


def test_an_unexpected_rollout_result_exits_with_1(running: Site) -> None:
    running.edit("import time\n", "import time\nimport not_there\n")  # what ships as good is not
    ran = running.hitless(
        *("drill", "--rate", "50", "--duration", "2", "--releases", "1"),
        *("--requests", requests_file(running.folder, [{"path": "/fast"}])),
        exit_code=1,
    )
    assert ran.document["failed"] == 0
    assert ran.document["releases"][0]["outcome"] == "rolled_back"
    assert "error: good ended rolled_back, expected live" in ran.stderr


def test_an_interrupted_drill_restores_the_first_release_and_prints_its_document(running: Site) -> None:
    command = [sys.executable, "-m", "hitless", "drill", "--rate", "100", "--duration", "60", "--releases", "20"]
    options = ["--json", "--service-dir", str(running.folder)]
    options += ["--requests", requests_file(running.folder, [{"path": "/fast"}])]
    drill = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        eventually(lambda: running.stage()["live"]["release"] >= 2, deadline_s=30)
        os.killpg(drill.pid, signal.SIGINT)  # as a terminal does
        out, err = drill.communicate(timeout=60)
    finally:
        drill.kill()
        drill.communicate()
    document = json.loads(out)
    assert drill.returncode == 1, err
    assert document["interrupted"]
    assert document["failed"] == 0
    assert 0 < document["requests"] < 6_000
    assert running.stage()["live"]["release"] == 1
