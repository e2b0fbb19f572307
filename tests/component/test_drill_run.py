"""A complete drill: real senders, a test server, and a fake engine that changes the server's release."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hitless.clock import SystemClock, timestamp
from hitless.drill import faults
from hitless.drill.faults import Fault, FaultContext
from hitless.drill.plan import DrillPlan
from hitless.drill.report import render
from hitless.drill.requests import DrillRequest
from hitless.drill.result import DrillResult
from hitless.drill.run import run_drill
from hitless.drill.scenarios import CANARY, LINEAR, LONG_CANARY, choose
from hitless.drill.shipper import Shipped, Shipper
from hitless.drill.target import parse_target
from hitless.drill.workspace import MARKER, Source
from hitless.errors import ConflictError, HitlessError, MachineError, UsageError
from hitless.pages.page import write_page
from tests.component.drill_fakes import FakeEngine, Silent
from tests.component.drill_faulty_server import FaultyServer

pytestmark = pytest.mark.component

OK = DrillRequest("GET", "/ok")
PLAN = DrillPlan("dev", 200, 1.5, (OK,))


class Stage:
    """A server, an engine that decides which release it serves, and a service's folder."""

    def __init__(self, folder: Path, server: FaultyServer, engine: FakeEngine) -> None:
        self.folder, self.server, self.engine = folder, server, engine
        self.progress = Silent()
        self.stop = asyncio.Event()

    async def drill(self, plan: DrillPlan, *, shipper: Shipper | None = None, load_only: bool = False) -> DrillResult:
        return await run_drill(
            plan,
            parse_target(self.engine.url),
            shipper=None if load_only else (shipper or self.engine),
            source=Source(self.folder, "serverless.yml", "dev", ("src/handlers.api",)),
            data_dir=self.folder / ".hitless",
            progress=self.progress,
            clock=SystemClock(),
            stop=self.stop,
        )


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    folder = tmp_path / "service"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "handlers.py").write_text("def api(event, context):\n    return {}\n")
    (folder / "serverless.yml").write_text("service: x\n")
    engines: list[FakeEngine] = []
    with FaultyServer(release=lambda: engines[0].live if engines else 1) as server:
        engines.append(FakeEngine(f"http://127.0.0.1:{server.port}"))
        yield Stage(folder, server, engines[0])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_releases_ship_under_load_and_the_first_one_is_live_at_the_end(stage: Stage) -> None:
    before = files_of(stage.folder)
    names = ["good", "import-crash", "never-ready", "rollback", "good"]
    plan = replace(PLAN, scenarios=choose(names, 5))
    result = asyncio.run(stage.drill(plan))
    assert result.exit_code == 0, result.to_json()
    assert [(one.scenario, one.outcome, one.release) for one in result.releases] == [
        ("good", "live", 2),
        ("import-crash", "rolled_back", 3),
        ("never-ready", "rolled_back", 4),
        ("rollback", "live", 1),
        ("good", "live", 5),
    ]
    assert result.restored is not None
    assert (result.restored.outcome, stage.engine.live) == ("live", 1)
    assert result.tally.requests == 300
    assert result.headline == "0 of 300 requests failed while 3 releases shipped"
    document = result.to_json()
    answered = [one["requests"] for one in document["releases"]]
    assert answered[0] > 0
    assert answered[1] == answered[2] == 0
    assert answered[4] > 0
    assert files_of(stage.folder) == before


def test_each_release_differs_only_by_its_marker_and_scenario(stage: Stage) -> None:
    plan = replace(PLAN, duration_s=0.5, scenarios=choose(["good", "import-crash", "never-ready", "good"], 4))
    asyncio.run(stage.drill(plan))
    good, crash, hanging, again = stage.engine.deployed
    marker = f"src/{MARKER}"
    original = {name: data.decode() for name, data in files_of(stage.folder).items()}
    assert {name: text for name, text in good.items() if name != marker} == original
    assert {name: text for name, text in again.items() if name != marker} == original
    assert len({one[marker] for one in stage.engine.deployed}) == 4
    assert crash["src/handlers.py"].startswith(original["src/handlers.py"])
    assert "raise RuntimeError" in crash["src/handlers.py"]
    assert "sleep" in hanging["src/handlers.py"]
    assert "ready_timeout_s: 3" in hanging["serverless.yml"]
    assert stage.engine.messages[1] == "drill: import-crash, 2 of 4"


def test_a_scenario_that_fails_during_the_bake_has_its_own_strategy(stage: Stage) -> None:
    plan = replace(PLAN, duration_s=0.5, scenarios=choose(["canary", "good", "linear", "exits"], 4))
    stage.engine.outcomes[5] = Shipped(5, "rolled_back", "alarm", {"requests": 20, "failed": 3, "shielded": 3})
    result = asyncio.run(stage.drill(plan))
    assert result.exit_code == 0
    assert stage.engine.strategies == [CANARY, None, LINEAR, LONG_CANARY]
    assert "os._exit(1)" in stage.engine.deployed[3]["src/handlers.py"]
    assert "smoke: []" in stage.engine.deployed[3]["serverless.yml"]
    assert result.to_json()["releases"][3]["gateway"] == {"requests": 20, "failed": 3, "shielded": 3}


def test_the_report_shows_a_rollouts_steps_on_the_drills_time_axis(stage: Stage) -> None:
    class Stepping(FakeEngine):
        async def deploy(self, folder: Path, *, message: str, strategy: str | None = None) -> Shipped:
            before = timestamp(datetime.now(UTC))
            await asyncio.sleep(0.1)  # what the axis is to show
            after = timestamp(datetime.now(UTC))
            shipped = await super().deploy(folder, message=message)
            steps = [("preparing", 0, before), ("shifting", 100, after)]
            return replace(shipped, steps=[{"at": at, "state": s, "weight_percent": w} for s, w, at in steps])

    engine = Stepping(stage.engine.url)
    result = asyncio.run(stage.drill(replace(PLAN, scenarios=choose([], 1)), shipper=engine))
    (release,) = result.to_json()["releases"]
    first, second = release["steps"]
    assert (first["state"], second["state"], second["weight_percent"]) == ("preparing", "shifting", 100)
    assert second["at_s"] - first["at_s"] >= 0.09
    assert release["at_s"] - 0.01 <= first["at_s"] <= second["at_s"] <= release["at_s"] + release["duration_s"]
    window = result.releases[0].window
    assert window.state_at(window.phases[0].start_us - 1) == "building"
    assert window.state_at(window.phases[1].start_us) == "shifting"


def test_a_drill_with_an_unexpected_rollout_exits_with_1(stage: Stage) -> None:
    stage.engine.outcomes[3] = Shipped(3, "rolled_back", "smoke request failed")
    result = asyncio.run(stage.drill(replace(PLAN, scenarios=choose([], 2))))
    assert result.exit_code == 1
    assert result.surprises == ("good ended rolled_back, expected live: smoke request failed",)
    assert any("expected live" in line for line in stage.progress.lines)


def test_a_drill_with_a_failed_request_exits_with_6_and_shows_its_kind_and_rollout(stage: Stage) -> None:
    stage.engine.outcomes[2] = Shipped(2, "rolled_back", "why not")
    plan = replace(PLAN, requests=(OK, DrillRequest("GET", "/every/10/drop")), scenarios=choose([], 2))
    result = asyncio.run(stage.drill(plan))
    assert result.exit_code == 6
    document = result.to_json()
    assert document["failed"] == stage.server.seen["/every/10/drop"] // 10 == 15
    assert {one["kind"]: one["count"] for one in document["failures"] if one["count"]} == {"closed_early": 15}
    assert document["samples"][0]["kind"] == "closed_early"


def test_requests_that_get_no_2xx_response_before_the_drill_are_excluded(stage: Stage) -> None:
    requests = (
        OK,
        DrillRequest("GET", "/404"),
        DrillRequest("GET", "/500"),
        DrillRequest("GET", "/drop"),
        DrillRequest("GET", "/204"),
    )
    result = asyncio.run(stage.drill(replace(PLAN, requests=requests, duration_s=0.5), load_only=True))
    assert [one.request for one in result.left_out] == ["GET /404", "GET /500", "GET /drop"]
    assert result.left_out[0].reason == "status 404"
    assert [one.name for one in result.plan.requests] == ["GET /ok", "GET /204"]
    assert [one.status for one in result.plan.requests] == [200, 204]
    assert stage.server.seen["/404"] == 1
    assert result.tally.failed == 0


def test_a_drill_without_any_2xx_response_is_an_error(stage: Stage) -> None:
    with pytest.raises(UsageError, match="GET /404 status 404"):
        asyncio.run(stage.drill(replace(PLAN, requests=(DrillRequest("GET", "/404"),)), load_only=True))


def test_an_unexpected_status_is_counted_but_not_failed(stage: Stage) -> None:
    plan = replace(PLAN, requests=(DrillRequest("GET", "/every/5/404"),), duration_s=0.5)
    result = asyncio.run(stage.drill(plan, load_only=True))
    document = result.to_json()
    assert document["failed"] == 0
    assert document["unexpected_statuses"] == document["statuses"]["404"] == 20


def test_a_target_that_accepts_no_connection_is_an_error(stage: Stage) -> None:
    stage.engine.url = "http://127.0.0.1:1"
    with pytest.raises(MachineError, match="accepts no connection") as error:
        asyncio.run(stage.drill(PLAN, load_only=True))
    assert error.value.hint


def test_releases_without_an_engine_are_refused(stage: Stage) -> None:
    with pytest.raises(UsageError, match="need an engine"):
        asyncio.run(stage.drill(replace(PLAN, scenarios=choose([], 1)), load_only=True))


def test_a_stage_without_a_release_is_refused(stage: Stage) -> None:
    class Bare(FakeEngine):
        async def status(self) -> dict[str, object]:
            return {"stages": [{"stage": "dev", "url": self.url, "live": None}]}

    with pytest.raises(ConflictError, match="has no live release"):
        asyncio.run(stage.drill(PLAN, shipper=Bare(stage.engine.url)))


def test_the_load_continues_until_the_last_rollout_has_ended(stage: Stage) -> None:
    stage.engine.takes_s = 0.5
    result = asyncio.run(stage.drill(replace(PLAN, duration_s=0.5, scenarios=choose([], 2))))
    assert result.restored is not None
    ended_us = result.restored.window.end_us
    assert ended_us is not None
    assert result.tally.requests > 100
    assert result.tally.last_sent_us > ended_us
    assert result.exit_code == 0


def test_a_stopped_drill_counts_its_requests_and_returns_to_the_first_release(stage: Stage) -> None:
    async def scenario() -> DrillResult:
        drill = asyncio.create_task(stage.drill(replace(PLAN, duration_s=30, scenarios=choose([], 10))))
        while not stage.progress.lines:
            await asyncio.wait({drill}, timeout=0.05)
        stage.stop.set()
        return await drill

    result = asyncio.run(scenario())
    assert result.interrupted
    assert result.exit_code == 1
    assert result.tally.failed == 0
    assert 0 < result.tally.requests < 3_000
    assert stage.engine.live == 1


def test_a_removed_first_release_is_shipped_again_if_it_can_be_rebuilt(stage: Stage) -> None:
    stage.engine.forgotten.add(1)
    result = asyncio.run(stage.drill(replace(PLAN, duration_s=0.5, scenarios=choose([], 1))))
    assert result.restored is not None
    assert result.restored.outcome == "live"
    assert f"src/{MARKER}" not in stage.engine.deployed[-1]
    assert "was no longer kept" in result.notices[0]


def test_a_removed_first_release_is_not_replaced_by_other_artifacts(stage: Stage) -> None:
    stage.engine.forgotten.add(1)
    stage.engine.digests_at_start = {"api": "sha256:other"}
    result = asyncio.run(stage.drill(replace(PLAN, duration_s=0.5, scenarios=choose([], 1))))
    assert result.exit_code == 1
    assert len(stage.engine.deployed) == 1
    assert "there is no release 1" in result.surprises[0]


def test_if_the_engine_dies_the_drill_reports_it_and_counts_every_request(stage: Stage) -> None:
    class Gone(FakeEngine):
        async def deploy(self, folder: Path, *, message: str, strategy: str | None = None) -> Shipped:
            raise HitlessError("no engine runs there")

    result = asyncio.run(stage.drill(replace(PLAN, scenarios=choose([], 1)), shipper=Gone(stage.engine.url)))
    assert result.releases[0].outcome == "error"
    assert result.exit_code == 1
    assert result.tally.requests == 300


def test_a_faults_duration_is_measured_until_the_service_has_recovered(stage: Stage) -> None:
    struck_s: list[float] = []

    class Killed(FakeEngine):
        async def status(self) -> Mapping[str, Any]:
            replaced = bool(struck_s) and time.monotonic() - struck_s[0] > 0.05
            return {**await super().status(), "engine": {"pid": 2 if replaced else 1}}

    @contextmanager
    def hold(context: FaultContext, before: object) -> Iterator[list[int]]:
        struck_s.append(time.monotonic())
        yield [1]

    plan = replace(PLAN, faults=(Fault("test", hold, 0),))
    result = asyncio.run(stage.drill(plan, shipper=Killed(stage.engine.url)))
    (fault,) = result.faults
    assert fault.recovered_ms is not None
    assert fault.recovered_ms >= 40
    assert result.exit_code == 0


def test_a_fault_that_ships_a_broken_release_expects_the_scenarios_outcome(stage: Stage) -> None:
    plan = replace(
        PLAN, scenarios=choose([], 1), faults=faults.choose(["ship-import-crash", "ship-hangs"]), fault_seed=1
    )
    result = asyncio.run(stage.drill(plan))
    assert [one.label for one in result.faults] == ["ship-import-crash", "ship-hangs"]
    assert result.faults[0].recovered_ms is not None
    assert result.faults[1].recovered_ms is None, "the fake engine makes this release live"
    assert result.surprises[0].startswith("ship-hangs at ")


def test_progress_is_reported_while_the_drill_runs(stage: Stage) -> None:
    result = asyncio.run(stage.drill(replace(PLAN, scenarios=choose([], 2))))
    assert result.releases[0].release == 2
    last = stage.progress.snapshots[-1]
    assert last.requests > 0
    assert last.releases == 2
    assert any(line.startswith("1/2 good: release 2 live") for line in stage.progress.lines)


def test_the_report_contains_readable_json(stage: Stage, tmp_path: Path) -> None:
    result = asyncio.run(stage.drill(replace(PLAN, duration_s=0.5), load_only=True))
    path = tmp_path / "new" / "drill.html"
    write_page(path, partial(render, result))
    assert path.read_text().startswith("<!doctype html>")
    assert [one.name for one in path.parent.iterdir()] == ["drill.html"]
    assert json.loads(json.dumps(result.to_json()))["requests"] == 100


def test_a_report_that_cannot_be_written_is_an_error_with_a_hint(stage: Stage, tmp_path: Path) -> None:
    result = asyncio.run(stage.drill(replace(PLAN, duration_s=0.5), load_only=True))
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        write_page(tmp_path / "file" / "drill.html", partial(render, result))
