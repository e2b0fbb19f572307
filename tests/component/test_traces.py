"""The export of traces: what a collector gets, and that a bad collector costs spans only."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Coroutine, Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.clock import SystemClock
from hitless.gateway.state import Access
from hitless.service.model import SAMPLED_PER_S
from hitless.traces.exporter import MOST_QUEUED, MOST_REQUESTS, Exporter
from hitless.traces.otlp import INTERNAL, SERVER, Recorded, TraceSettings, encode, span
from hitless.traces.records import Requests, Rollouts
from tests.component.engine_bench import Bench, run, until
from tests.fakes import FakeClock, release_document
from tests.traces import Collector, facts_of, spans_of

pytestmark = pytest.mark.component

SECRET = "do-not-print-me"


def recorded(count: int, kind: int = INTERNAL) -> list[Recorded]:
    about = ("shop", 1, "dev")
    return [(about, span((f"{n:032x}", f"{n:016x}", ""), "deploy dev", kind, (1, 2), {})) for n in range(1, count + 1)]


class World:
    """An exporter with a collector, a clock, the spans to collect next, and the events."""

    def __init__(self, *responses: str | None, **environ: str) -> None:
        self.collector, self.clock = Collector(*responses), FakeClock()
        self.said: list[str] = []
        self.waiting: list[Recorded] = []
        self.environ = environ

    def collect(self) -> Iterable[Recorded]:
        taken, self.waiting = self.waiting, []
        return taken

    def run(self, story: Coroutine[Any, Any, None]) -> None:
        async def told() -> None:
            async with asyncio.timeout(30), self.collector.running():
                self.exporter = self.exporter_of()
                await story

        asyncio.run(told())

    def exporter_of(self) -> Exporter:
        settings = TraceSettings.of({**self.collector.environ, **self.environ})
        assert settings is not None
        return Exporter(settings, lambda text, _: self.said.append(text), self.clock, Random(1), self.collect)

    async def step(self, *spans: Recorded, later_s: float = 0) -> tuple[int, int, int]:
        """One step of the exporter. Returns requests, exported and dropped spans so far."""
        self.waiting += spans
        await self.clock.sleep(later_s)
        await self.exporter.step()
        return len(self.collector.bodies), self.exporter.exported, self.exporter.dropped


def test_new_spans_are_posted_once_with_the_given_headers() -> None:
    world = World("200 OK", OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{SECRET}")

    async def story() -> None:
        assert await world.step(*recorded(3)) == (1, 3, 0)
        assert await world.step() == (1, 3, 0)

    world.run(story())
    assert [len(spans_of(body)) for body in world.collector.bodies] == [3]
    head = world.collector.heads[0].split("\r\n")
    assert head[0] == "POST /v1/traces HTTP/1.1"
    assert {"content-type: application/json", f"authorization: Bearer {SECRET}"} <= {*head}
    assert world.said == []


def test_retry_after_is_respected_and_nothing_is_lost() -> None:
    world = World("429 Too Many Requests\r\nRetry-After: 30", "200 OK")

    async def story() -> None:
        assert await world.step(*recorded(3)) == (1, 0, 0)
        assert await world.step(later_s=29) == (1, 0, 0)
        assert await world.step(later_s=1) == (2, 3, 0)

    world.run(story())
    assert world.collector.bodies[0] == world.collector.bodies[1]


@pytest.mark.parametrize("response", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", None, ""])
def test_a_failure_that_may_pass_is_retried_with_longer_pauses(response: str | None) -> None:
    # "The requests that receive a response status code listed in following table SHOULD be retried" (OTLP)
    world = World(response)

    async def story() -> None:
        world.exporter.timeout_s = 0.05 if response is None else 10
        instants = []
        for _ in range(200):
            before = world.exporter._failures
            await world.step(*recorded(1), later_s=1)
            if world.exporter._failures > before:
                instants.append(world.clock.elapsed_s)
        pauses = [b - a for a, b in itertools.pairwise(instants)]
        assert 4 < len(instants) < 16
        assert pauses[:3] < pauses[3:6]
        world.collector.responses, world.exporter.timeout_s = ["200 OK"], 10
        assert (await world.step(later_s=60))[1:] == (200, 0)

    world.run(story())
    assert len(world.said) == 2, world.said


@pytest.mark.parametrize("response", ["400 Bad Request", "401 Unauthorized", "302 Found\r\nlocation: /", "500 Error"])
def test_what_a_collector_refuses_is_dropped_and_counted_with_one_event(response: str) -> None:
    # "All other 4xx or 5xx response status codes MUST NOT be retried" (OTLP, Retryable Response Codes)
    world = World(response, OTEL_EXPORTER_OTLP_HEADERS=f"authorization={SECRET}")

    async def story() -> None:
        assert await world.step(*recorded(3)) == (1, 0, 3)
        assert await world.step(*recorded(2), later_s=60) == (2, 0, 5)
        (event,) = world.said
        assert response[:3] in event
        world.collector.responses = ["200 OK"]
        assert await world.step(*recorded(1), later_s=60) == (3, 1, 5)

    world.run(story())
    assert "5 spans were lost" in world.said[1]
    assert SECRET not in "".join(world.said)
    assert [sample.value for metric in world.exporter.metrics() for sample in metric.samples] == [1, 5]


def test_the_queue_is_bounded_and_requests_leave_room_for_rollouts() -> None:
    world = World("503 Service Unavailable")

    async def story() -> None:
        await world.step(*recorded(MOST_QUEUED, SERVER))
        assert world.exporter.dropped == MOST_QUEUED - MOST_REQUESTS
        await world.step(*recorded(MOST_QUEUED))
        assert world.exporter.dropped == MOST_QUEUED

    world.run(story())


def test_a_collector_that_never_answers_delays_no_rollout(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        collector = Collector(None)
        async with collector.running():
            settings = TraceSettings.of(collector.environ)
            assert settings is not None
            source = Rollouts(bench.store).ended
            exporter = Exporter(settings, bench.engine.say, SystemClock(), Random(1), source)
            exporter.timeout_s = 1000
            async with exporter.running():
                assert (await bench.deploy())["outcome"] == "live"
                assert (await bench.deploy(digest="sha256:2"))["outcome"] == "live"
        assert collector.bodies, "the last export, when the daemon leaves"

    run(tmp_path, story)


def test_a_shared_engines_stage_is_exported_without_its_services_name(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        rollouts = Rollouts(bench.store)
        await bench.deploy(stage="shop_prod")
        assert {about for about, _ in rollouts.ended()} == {("shop", 1, "prod")}

    run(tmp_path, story, stages=("shop_prod",))


def test_each_rollout_is_exported_once_when_it_has_ended(tmp_path: Path) -> None:
    def exported(rollouts: Rollouts) -> list[tuple[str, int | None, object]]:
        spans = [(about[1], one) for about, one in rollouts.ended()]
        found = spans_of(encode([(("shop", number, "dev"), one) for number, one in spans], {}))
        return [
            (one.name, int(about["service.version"]), facts_of(one)["deployment.status"])
            for about, one in found
            if not one.parent_span_id
        ]

    async def story(bench: Bench) -> None:
        await bench.deploy()
        rollouts = Rollouts(bench.store)
        assert exported(rollouts) == [], "it had ended before the daemon started"
        await bench.deploy(digest="sha256:2")
        bench.workers.fails["api"] = "ImportError"
        await bench.deploy(digest="sha256:3")
        assert exported(rollouts) == [("deploy dev", 2, "succeeded"), ("deploy dev", 3, "failed")]
        assert exported(rollouts) == []

        bench.workers.fails, bench.workers.hold = {}, asyncio.Event()
        shipping = asyncio.create_task(bench.deploy(digest="sha256:4"))
        await until(lambda: bench.diary[-1] == "start api r4")
        of_next_daemon = Rollouts(bench.store)
        assert exported(of_next_daemon) == []
        bench.workers.hold.set()
        await shipping
        assert exported(of_next_daemon) == [("deploy dev", 4, "succeeded")]

        begun: Any = {
            "verb": "deploy",
            "strategy": "AllAtOnce",
            "state": "preparing",
            "previous": 4,
            "at": "2026-11-24",
        }
        number = bench.store.begin_rollout("dev", 5, **begun)
        assert exported(of_next_daemon) == []
        bench.store.write("DELETE FROM rollouts WHERE rollout = ?", (number,))
        assert exported(of_next_daemon) == [], "its stage was removed"

    run(tmp_path, story)


def test_requests_are_read_once_from_the_log_of_a_stage_that_traces_them_and_over_its_rotation(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "dev" / "access.log"
    log.parent.mkdir(parents=True)

    def add(number: int, release: int = 1) -> None:
        known = {"at_ms": 1_795_500_000_000, "release": f"dev.{release}", "method": "POST", "status": 201}
        known |= {"duration_ms": 5, "bytes": 1, "server": "w", "end": "--", "path": "/api", "query": "-"}
        known["request"] = f"{number:08x}-16cd-43dd-8448-eb211c80319c"
        known["traceparent"] = f"00-{'4' * 32}-{'2' * 16}-01"
        with log.open("a") as file:
            file.write(json.dumps(known) + "\n")

    async def story(bench: Bench) -> None:
        bench.engine.pools.traced = 0
        document = release_document()
        settings = replace(document.settings, trace_requests=True)
        await bench.end(
            await bench.engine.deploy("dev", replace(document, settings=settings), strategy=None, force=True)
        )
        assert bench.gateway.state.stage("dev").access == Access(SAMPLED_PER_S, traced=0)
        requests = Requests(bench.engine, tmp_path / "logs")

        def logged() -> list[tuple[str, str]]:
            return [(one.name, one.span_id[:8]) for about, one in requests.logged() if about == ("shop", 1, "dev")]

        add(1)
        assert logged() == [], "it was logged before the daemon started"
        add(2)
        add(3, release=9)
        assert logged() == [("POST /api", "00000002")]
        add(4)
        log.rename(f"{log}.1")
        add(5)
        assert logged() == [("POST /api", "00000004"), ("POST /api", "00000005")]
        assert logged() == []
        await bench.deploy(digest="sha256:2")
        assert bench.gateway.state.stage("dev").access == Access(SAMPLED_PER_S)
        add(6)
        assert logged() == [], "the stage no longer traces requests"

    run(tmp_path, story)
