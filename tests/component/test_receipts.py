"""Receipts on a real state file: their content, also if the daemon dies, and the caller."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import sqlite3
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from hitless.api.client import EngineClient
from hitless.api.server import PeerProtocol, user_of
from hitless.documents import to_plain
from hitless.engine.recovery import recover
from hitless.engine.releases import release, releases
from hitless.errors import UsageError
from hitless.gateway.counts import Counts
from hitless.gateway.state import GatewayState
from hitless.pages.page import write_page
from hitless.receipts.words import headline
from hitless.release.receipt import ReceiptFacts, Side
from hitless.release.who import Who
from hitless.rollout.receipt import Receipt
from hitless.rollout.rollout import Rollout
from hitless.service.model import AlarmSettings
from hitless.store.migrations import MIGRATIONS
from hitless.store.store import Store
from tests.component.engine_bench import Bench, run, until
from tests.fakes import release_document

pytestmark = pytest.mark.component


def counts(requests: int, failed: int = 0, restarts: int = 0) -> Counts:
    return {"requests": requests, "2xx": requests - failed, "5xx": failed, "restarts": restarts}


def traffic_on(bench: Bench) -> None:
    """Each change of the stage's entry finds 90 more requests at the live release and 10 more at the candidate."""
    seen = {"p00": 0, "p01": 0}

    def more(state: GatewayState) -> None:
        seen["p00"] += 90
        if state.stage("dev").weight:
            seen["p01"] += 10
        bench.gateway.requests.update({pool: counts(number) for pool, number in seen.items()})

    bench.gateway.on_apply = more


def shown_release(bench: Bench, number: int) -> Any:
    return to_plain(release(bench.engine.store, "dev", number))


def receipt_of(bench: Bench, number: int) -> Any:
    return shown_release(bench, number)["rollouts"][0]["receipt"]


def test_a_receipt_has_the_rollouts_caller_reason_and_failed_requests(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        traffic_on(bench)
        document = release_document(digest="sha256:2", strategy="Canary10Percent30Seconds")
        who = Who(user="ada", ci="GitHub Actions", actor="octocat", run="17")
        await bench.end(await bench.engine.deploy("dev", document, strategy=None, force=False, who=who))
        receipt = receipt_of(bench, 2)
        assert receipt["who"] == to_plain(who)
        assert receipt["artifacts"] == {"api": "sha256:2"}
        assert receipt["complete"]
        assert receipt["cost"]["requests"] == receipt["candidate"]["requests"] + receipt["live"]["requests"] > 0
        assert receipt["candidate"]["functions"]["api"]["by_class"] == {"2xx": receipt["candidate"]["requests"]}
        assert [w["asked_percent"] for w in receipt["weights"]] == [10, 100]
        assert sum(receipt["alarms"]["verdicts"].values()) > 100, "each look is counted"
        assert len(receipt["alarms"]["readings"]) <= 4, "and few are kept"
        assert "resume" not in receipt, "what recovery needs is nobody else's business"
        assert to_plain(releases(bench.engine.store, "dev")[0].cost) == receipt["cost"]

    run(tmp_path, story)


def test_a_receipt_continues_after_the_daemons_death_without_losing_a_request(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.requests["p00"] = counts(5000, 5)
        document = release_document(digest="sha256:2", strategy="Canary10Percent5Minutes")
        await bench.engine.deploy("dev", document, strategy=None, force=False)
        await until(lambda: bench.gateway.state.stage("dev").weight == 1000)
        bench.gateway.requests |= {"p00": counts(5090, 6), "p01": counts(10, 1)}
        await until(lambda: (saved := bench.store.receipt(2)) is not None and saved.candidate.requests == 10)
        for task in tuple(bench.engine._tasks):
            task.cancel()
        await asyncio.gather(*bench.engine._tasks, return_exceptions=True)
        bench.gateway.requests |= {"p00": counts(5190, 6), "p01": counts(25, 2)}  # nobody asks meanwhile

        successor = bench.again()
        await recover(successor.engine)
        receipt = receipt_of(successor, 2)
        assert shown_release(successor, 2)["outcome"] == "rolled_back"
        assert receipt["complete"]
        rollout = shown_release(successor, 2)["rollouts"][0]
        assert rollout["candidate"] == {"requests": 25, "failed": 2, "shielded": 0}
        assert rollout["live"] == {"requests": 190, "failed": 1}
        assert (receipt["candidate"]["requests"], receipt["candidate"]["failed"]) == (25, 2)
        assert (receipt["live"]["requests"], receipt["live"]["failed"]) == (190, 1)

    run(tmp_path, story)


def test_a_receipt_reports_a_restart_of_haproxy(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.requests["p00"] = counts(10, restarts=0)

        def killed(state: GatewayState) -> None:
            if state.stage("dev").weight:
                bench.gateway.requests["p00"] = counts(20, restarts=1)

        bench.gateway.on_apply = killed
        await bench.deploy(digest="sha256:2", strategy="Canary10Percent30Seconds")
        receipt = receipt_of(bench, 2)
        assert not receipt["complete"]
        assert "HAProxy was restarted" in receipt["missing"][0]

    run(tmp_path, story)


def test_every_request_of_a_guards_rollback_is_in_one_of_two_receipts(tmp_path: Path) -> None:
    seen = {"p00": 0, "p01": 0}

    async def story(bench: Bench) -> None:
        async def more_at_each_reading(pools: Collection[str] | None = None) -> dict[str, Counts]:
            seen["p00"], seen["p01"] = seen["p00"] + 7, seen["p01"] + (10 if bench.store.pools("dev", 2) else 0)
            return {pool: counts(number, number // 2 if pool == "p01" else 0) for pool, number in seen.items()}

        await bench.deploy()
        vars(bench.gateway)["counts"] = more_at_each_reading
        alarms = AlarmSettings(1, 20, guard_s=30)
        started = await bench.engine.deploy(
            "dev", release_document(digest="sha256:2", alarms=alarms), strategy=None, force=False
        )
        await bench.engine.wait_until_idle()
        assert isinstance(started, Rollout)
        back, taken = bench.store.rollouts("dev")[:2]
        assert (taken.outcome, back.verb) == ("rolled_back", "guard")
        first, second = bench.store.receipt(taken.rollout), bench.store.receipt(back.rollout)
        assert first
        assert second
        assert first.live
        assert second.live
        assert first.resume
        assert first.alarms.readings[-1].verdict == "alarm", "the alarm stands where it rang"
        assert first.candidate.requests + second.live.requests == seen["p01"]
        assert first.candidate.failed + second.live.failed == seen["p01"] // 2
        shown = shown_release(bench, 2)
        assert shown["rollouts"][0]["taken_back"]["rollout"] == back.rollout
        assert shown["cost"]["failed"] == seen["p01"] // 2, "the whole of it"
        assert f": {seen['p01'] // 2} of" in headline(2, shown["rollouts"][0])
        assert shown_release(bench, 1)["cost"]["failed"] == 0, "the one that returns did not fail them"
        before = first.resume.base[Side.LIVE]["api"]["dev-r1-api-1"].requests
        assert first.live.requests + second.candidate.requests == seen["p00"] - before

    run(tmp_path, story)


def test_a_state_file_of_the_first_schema_is_read_and_its_rollouts_have_no_receipt(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1;")
        old.execute("INSERT INTO stages VALUES ('dev', 1, '2026-11-24T06:00:00.000Z')")
        document = release_document().to_json()
        old.execute(
            "INSERT INTO releases VALUES ('dev', 1, json(?), 'f', NULL, 'early', '2026-11-24T06:00:00.000Z')",
            (json.dumps(document),),
        )
        old.execute(
            "INSERT INTO rollouts VALUES (1, 'dev', 1, 'deploy', 'AllAtOnce', 'ended', NULL, 'live', NULL,"
            ' \'{"stage": "dev", "release": 1, "outcome": "live", "strategy": "AllAtOnce", "reason": null, "steps": [],'
            ' "candidate": {"requests": 3, "failed": 0, "shielded": 0}, "live": null, "duration_s": 1.5}\','
            " '2026-11-24T06:00:00.000Z', '2026-11-24T06:00:02.000Z')"
        )
    old.close()

    async def story(bench: Bench) -> None:
        shown = shown_release(bench, 1)
        assert (shown["cost"], shown["rollouts"][0]["receipt"]) == (None, None)
        assert shown["rollouts"][0]["candidate"]["requests"] == 3

    run(tmp_path, story)


def test_receipts_survive_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    number = store.begin_rollout(
        "dev", 1, verb="deploy", strategy="AllAtOnce", state="preparing", previous=None, at="0"
    )
    first, second = (Receipt(ReceiptFacts(release=release)).document() for release in (1, 2))
    store.save_receipt(number, first)
    store.save_receipt(number, second)
    store.close()
    again = Store(tmp_path / "state.sqlite")
    assert again.receipt(number) == second
    assert again.receipt(99) is None
    again.close()


def test_a_bounded_number_of_receipts_outlives_the_releases(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        for number in range(1, 6):
            await bench.deploy(digest=f"sha256:{number}")
        bench.store.forget_release("dev", 2)
        forgotten = shown_release(bench, 2)
        assert (forgotten["kept"], forgotten["artifacts"]) == (False, {"api": "sha256:2"})
        assert forgotten["rollouts"][0]["receipt"]["complete"]
        assert 2 not in [each.release for each in releases(bench.engine.store, "dev")]
        assert bench.store.forget_rollouts("dev", kept=3) == 2
        assert [row.rollout for row in bench.store.rollouts("dev")] == [5, 4, 3]
        assert bench.store.receipt(2) is None
        assert bench.store.steps(2) == ()
        assert bench.store.steps(3)
        with pytest.raises(UsageError, match="dev has no release 2"):
            shown_release(bench, 2)

    run(tmp_path, story)


def test_an_unfinished_rollout_is_never_removed_from_the_state_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    begin = partial(store.begin_rollout, "dev", 1, verb="deploy", strategy="x", state="y", previous=None, at="0")
    first, second, third = begin(), begin(), begin()
    for ended in (second, third):
        store.end_rollout(ended, "live", None, None, "1")
    assert store.forget_rollouts("dev", kept=1) == 1
    assert [row.rollout for row in store.rollouts()] == [third, first]
    store.close()


@contextmanager
def served(path: Path) -> Iterator[EngineClient]:
    """An application on a Unix socket that returns the caller."""

    async def who(request: Request) -> JSONResponse:
        return JSONResponse({"user": user_of(request)})

    app = Starlette(routes=[Route("/who", who)])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(app, http=PeerProtocol, log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield EngineClient(path)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def test_the_callers_user_is_determined_by_the_kernel(tmp_path: Path) -> None:
    with served(tmp_path / "api.sock") as client:
        assert client.call("GET", "/who") == {"user": pwd.getpwuid(os.getuid()).pw_name}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Who()),
        ({"GITHUB_ACTOR": "octocat"}, Who()),
        (
            {"GITHUB_ACTIONS": "true", "GITHUB_ACTOR": "octocat", "GITHUB_RUN_ID": "17"},
            Who(ci="GitHub Actions", actor="octocat", run="17"),
        ),
        ({"CODEBUILD_BUILD_ID": "shop:1"}, Who(ci="CodeBuild", run="shop:1")),
        ({"SUDO_USER": "ada\n\x1b[31m"}, Who(sudo_user="ada[31m")),
    ],
)
def test_a_build_service_is_recognised_only_by_its_own_variables(environ: dict[str, str], expected: Who) -> None:
    assert Who.of_environment(environ) == expected


def test_a_caller_cannot_claim_to_be_another_user() -> None:
    sent = Who("root", actor="ada\n", run="r" * 10_000)
    assert sent.called_by("ada").user == "ada"
    assert sent.called_by(None) == Who(actor="ada", run="r" * 200)


def test_writing_a_receipts_page_to_a_pipe_does_not_replace_the_pipe(tmp_path: Path) -> None:
    """As root, `--html /dev/null` took the device away from the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text, "utf-8")
        write_page(pipe, lambda suffix: "the page")
        assert read.result(30) == "the page"
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
