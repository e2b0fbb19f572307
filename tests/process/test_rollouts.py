"""Canary, guard and hooks with real processes: what ends each of them early, and SIGKILL of the daemon meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.process.conftest import Site, kill
from tests.process.load import Wrk
from tests.support import eventually, gone

pytestmark = pytest.mark.process

SETTINGS = "alarms: {guard_s: 0}"
ANY_ANSWER = '    query = event.get("queryStringParameters") or {}\n'
HOOK = """

def check(event: dict[str, Any], context: Any) -> None:
    import boto3

    if pids := os.environ.get("PIDS"):
        with open(pids, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)
    seen = boto3.client("lambda").invoke(FunctionName="plain-dev-api", Payload=json.dumps({"path": "/fast"}))
    status = "Succeeded" if json.load(seen["Payload"]).get("statusCode") == 200 else "Failed"
    boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status=status,
    )
"""


def settings(site: Site, text: str) -> None:
    site.edit(SETTINGS, text, "serverless.yml")


@contextmanager
def shipping(site: Site) -> Iterator[Any]:
    """Run a deploy in the background."""
    command = [sys.executable, "-m", "hitless", "deploy", "--json", "--service-dir", str(site.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def releases(site: Site) -> list[tuple[int, bool, str]]:
    rows = site.hitless("releases").document
    return [(row["release"], row["live"], row["outcome"]) for row in rows]


def test_killing_the_daemon_during_a_canary_fails_no_request_and_rolls_it_back(site: Site) -> None:
    settings(site, "strategy: Canary20Percent5Minutes")
    site.up()
    with Wrk(site.url) as load:
        site.touch("two")
        with shipping(site) as deploy:
            eventually(
                lambda: (
                    (site.stage()["candidate"] or {}).get("state") == "baking"
                    and site.get("/fast")[2]["release"] == "2"
                ),
                deadline_s=30,
                what="requests reach the candidate",
            )
            kill(site.status()["engine"]["pid"])
            deploy.wait(30)
        both = eventually(lambda: {site.get("/fast")[2]["release"] for _ in range(60)} == {"1", "2"}, what="both serve")
        assert both
        site.up()
        assert {site.get("/fast")[2]["release"] for _ in range(60)} == {"1"}
        assert load.running, "the load outlasted it all"
        seen = load.end()
    assert seen.failed == 0, seen
    assert seen.requests > 500
    assert releases(site)[0] == (2, False, "rolled_back")


def test_the_guard_rolls_back_a_broken_release(site: Site) -> None:
    settings(site, "alarms: {guard_s: 60}")
    site.edit("smoke: [GET /fast]", "smoke: []", "serverless.yml")
    site.up()
    site.edit(ANY_ANSWER, f"{ANY_ANSWER}    raise ValueError('on purpose')\n")
    with Wrk(site.url):
        assert site.hitless("deploy").document["outcome"] == "live"
        eventually(lambda: site.stage()["live"]["release"] == 1, deadline_s=20, what="release 1 took over again")
        eventually(lambda: {site.get("/fast")[0] for _ in range(20)} == {200}, what="it answers")
    rolled_back = [(2, False, "rolled_back"), (1, True, "live")]
    eventually(lambda: releases(site) == rolled_back, what="the rollback is recorded")
    assert any("rolling back release 2" in event["sentence"] for event in site.hitless("events").document)


def test_a_guard_continues_after_the_daemons_death_and_can_be_aborted(site: Site) -> None:
    settings(site, "alarms: {guard_s: 3600}")
    site.up()
    before = site.stage()["functions"][0]["workers"]
    with Wrk(site.url) as load:
        site.touch("two")
        site.hitless("deploy")
        kill(site.status()["engine"]["pid"])
        site.up()
        guard = eventually(lambda: site.stage()["guard"], what="the guard goes on")
        assert guard["previous"] == 1
        assert not any(gone(worker["pid"]) for worker in before), "release 1 is kept warm"
        assert site.hitless("abort").document["outcome"] == "live"
        eventually(lambda: all(gone(worker["pid"]) for worker in before), what="release 1 has ended")
        assert load.running
        assert load.end().failed == 0
    assert site.stage()["live"]["release"] == 2


@pytest.fixture
def hooked(site: Site) -> Site:
    """The service with one hook for both lifecycle events."""
    handlers = site.folder / "handlers.py"
    handlers.write_text(handlers.read_text() + HOOK)
    site.edit("custom:\n", "  check:\n    handler: handlers.check\n    timeout: 30\ncustom:\n", "serverless.yml")
    settings(site, "alarms: {guard_s: 0}\n        hooks: {pre_traffic: check, post_traffic: check}")
    return site


def test_a_hook_that_invokes_the_candidate_decides_whether_it_gets_traffic(hooked: Site) -> None:
    status = hooked.up()
    names = [function["name"] for function in status["stages"][0]["functions"]]
    assert names == ["api", "misbehave"], "a hook has no workers"
    hooked.edit(ANY_ANSWER, f"{ANY_ANSWER}    raise ValueError('on purpose')\n")
    hooked.edit("smoke: [GET /fast]", "smoke: []", "serverless.yml")
    document = hooked.hitless("deploy", exit_code=3).document
    assert document["reason"].startswith("the pre_traffic hook check of release 2 reported Failed")
    assert {step["weight_percent"] for step in document["steps"]} == {0}
    assert "START RequestId" in "\n".join(hooked.hitless("logs", "check", "--release", "2").document)
    sentences = [event["sentence"] for event in hooked.hitless("events").document]
    assert sum("hook check of release 1 succeeded" in sentence for sentence in sentences) == 2


def test_killing_the_daemon_in_a_hook_ends_the_hook_and_rolls_back(hooked: Site, tmp_path: Path) -> None:
    pids = tmp_path / "marks" / "pids"
    hooked.allow(pids.parent)
    hooked.up()
    hooked.edit(
        "    handler: handlers.check\n",
        f"    handler: handlers.check\n    environment: {{PIDS: {pids}}}\n",
        "serverless.yml",
    )
    with shipping(hooked) as deploy:
        pid = int(str(eventually(lambda: pids.exists() and pids.read_text(), deadline_s=30, what="the hook runs")))
        kill(hooked.status()["engine"]["pid"])
        deploy.wait(30)
    eventually(lambda: gone(pid), what="the hook's process has ended")
    hooked.up()
    assert releases(hooked)[0] == (2, False, "rolled_back")
    assert hooked.get("/fast")[2]["release"] == "1"
    assert not (hooked.folders.data / "hooks").exists()
