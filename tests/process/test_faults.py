"""SIGKILL of every part under load: requests succeed, and the part is replaced."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.process.conftest import Site, kill
from tests.process.load import Seen, Wrk
from tests.support import eventually, gone, over_and_over

pytestmark = pytest.mark.process


def api(site: Site) -> Any:
    return next(function for function in site.stage()["functions"] if function["name"] == "api")


def under_load(site: Site, strike: Callable[[], None], *, closing_one_in: int = 10) -> Seen:
    """Run the load before, during and after the strikes."""
    with Wrk(site.url, closing_one_in=closing_one_in) as load:
        eventually(lambda: answered(site) > 50, what="the load has begun")
        strike()
        before = answered(site)
        eventually(lambda: answered(site) > before + 500, what="the load goes on after the strikes")
        assert load.running, "the load outlasted the strikes"
        return load.end()


def answered(site: Site) -> int:
    """Requests that the api function's workers have answered; 0 while the daemon is away."""
    return int(api(site)["requests"])


def test_a_killed_daemon_fails_no_request_and_up_adopts_what_runs(running: Site) -> None:
    before = running.status()

    def strike() -> None:
        kill(before["engine"]["pid"])
        assert (
            running.hitless("status", exit_code=5)
            .document["error"]["hint"]
            .endswith("adopts the processes that still serve")
        )
        running.up()

    seen = under_load(running, strike)
    assert seen.failed == 0, seen
    after = running.status()
    assert after["engine"]["pid"] != before["engine"]["pid"]
    assert after["engine"]["gateway_pid"] == before["engine"]["gateway_pid"]
    assert api(running)["workers"][0]["pid"] == before["stages"][0]["functions"][0]["workers"][0]["pid"]
    running.touch("after the adoption")
    assert running.hitless("deploy").document["outcome"] == "live"
    assert running.get("/fast")[2]["release"] == "2"


def replace_one(running: Site) -> None:
    """Kill a worker, and wait for its successor."""
    before = [worker["pid"] for worker in api(running)["workers"]]
    kill(before[0])

    def replaced() -> bool:
        now = [worker["pid"] for worker in api(running)["workers"]]
        return len(now) == len(before) and before[0] not in now

    eventually(replaced, what="a new worker")


def test_killed_workers_fail_no_get_and_are_replaced_at_once(running: Site) -> None:
    def strike() -> None:
        for _ in range(6):
            replace_one(running)

    seen = under_load(running, strike)
    assert seen.connect == seen.read == seen.write == seen.timeout == 0, seen
    assert seen.status <= 6, "a POST in hand may end as 502, a GET never"
    assert api(running)["restarts"] >= 6


def test_a_killed_zygote_fails_no_request_and_is_replaced(running: Site) -> None:
    before = api(running)

    def strike() -> None:
        kill(before["zygote_pid"])
        eventually(lambda: api(running)["zygote_pid"] not in (None, before["zygote_pid"]), what="a new zygote")

    seen = under_load(running, strike)
    assert seen.failed == 0, seen
    old = {worker["pid"] for worker in before["workers"]}
    assert not old & {worker["pid"] for worker in api(running)["workers"]}
    eventually(lambda: all(gone(pid) for pid in old), what="the old workers have ended")
    running.touch("after the renewal")
    assert running.hitless("deploy").document["outcome"] == "live"


def test_a_killed_root_zygote_is_replaced_and_releases_still_ship(running: Site) -> None:
    root = running.status()["engine"]["root_zygote_pid"]
    seen = under_load(running, lambda: kill(root))
    assert seen.failed == 0, seen
    eventually(lambda: running.status()["engine"]["root_zygote_pid"] != root, what="a new root zygote")
    running.touch("after the root's death")
    assert running.hitless("deploy").document["outcome"] == "live"


def test_a_killed_gateway_refuses_no_connection_and_restarts_with_its_state(running: Site) -> None:
    running.touch("two")
    running.hitless("deploy")
    before = running.status()["engine"]
    seen = under_load(running, lambda: kill(before["gateway_pid"]), closing_one_in=1)
    assert seen.connect == 0, seen
    assert seen.read <= 16, "only what was open on it is lost"
    assert seen.status == seen.timeout == 0, seen
    eventually(lambda: running.status()["engine"]["gateway_pid"] not in (None, before["gateway_pid"]))
    assert running.status()["engine"]["guardian_pid"] == before["guardian_pid"]
    assert running.get("/fast")[2]["release"] == "2"
    running.touch("three")
    assert running.hitless("deploy").document["live"]["failed"] == 0
    assert running.get("/fast")[2]["release"] == "3"


def test_a_killed_guardian_fails_no_request_and_is_replaced(running: Site) -> None:
    before = running.status()["engine"]
    seen = under_load(running, lambda: kill(before["guardian_pid"]))
    assert seen.failed == 0, seen
    eventually(lambda: running.status()["engine"]["guardian_pid"] not in (None, before["guardian_pid"]))
    assert running.status()["engine"]["gateway_pid"] == before["gateway_pid"]
    kill(before["gateway_pid"])
    eventually(lambda: running.get("/fast")[0] == 200, what="the new guardian has started HAProxy again")


def test_daemon_guardian_and_zygote_killed_together_are_all_replaced_by_up(running: Site) -> None:
    before = running.status()["engine"]
    zygote = api(running)["zygote_pid"]

    def strike() -> None:
        for pid in (before["pid"], before["guardian_pid"], zygote):
            kill(pid)
        running.up()
        eventually(lambda: api(running)["zygote_pid"] not in (None, zygote), what="a new zygote")

    seen = under_load(running, strike)
    assert seen.connect == seen.status == seen.timeout == 0, seen
    running.touch("after it all")
    assert running.hitless("deploy").document["outcome"] == "live"


def test_up_restarts_everything_after_all_parts_were_killed(running: Site) -> None:
    address, answered = running.url.removeprefix("http://"), set[int]()
    engine = running.status()["engine"]
    functions = running.stage()["functions"]
    victims = [engine[name] for name in ("pid", "guardian_pid", "gateway_pid", "root_zygote_pid")]
    victims += [f["zygote_pid"] for f in functions] + [w["pid"] for f in functions for w in f["workers"]]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: all(map(gone, victims)))

    def call() -> None:
        with suppress(OSError):  # nobody listens yet
            answered.add(running.get("/fast")[0])

    with over_and_over(call):
        running.up("--listen", address)
    assert running.get("/fast")[2]["release"] == "1"
    assert answered == {200}


def test_a_failed_first_release_does_not_end_adopted_processes(running: Site) -> None:
    kill(running.status()["engine"]["pid"])
    running.edit("import json", "import json\nimport not_there")
    ran = running.hitless("up", "--detach", "--stage", "prod", exit_code=3)
    assert "not_there" in ran.stderr
    assert running.get("/fast")[0] == 200
    assert running.stage()["live"]["release"] == 1


def test_up_fails_if_the_live_release_cannot_start_and_deploy_fixes_it(running: Site) -> None:
    running.hitless("down")
    shutil.rmtree(running.folder / ".hitless" / "artifacts")
    ran = running.hitless("up", "--detach", exit_code=1)
    assert (
        "release 1 of dev does not serve requests: api, misbehave could not be started"
        in ran.document["error"]["message"]
    )
    assert running.hitless("deploy").document["outcome"] == "live"
    running.up()
    assert running.get("/fast")[2]["release"] == "2"
