"""A dashboard over a real state file, and an engine that records the requests it gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx

from hitless.api.client import EngineClient
from hitless.clock import Clock
from hitless.dashboard.door import Door
from hitless.dashboard.pages import Pages
from hitless.dashboard.server import Dashboard
from hitless.dashboard.sources import Elsewhere, Feed, History
from hitless.documents import convert, to_plain
from hitless.engine.folders import Folders
from hitless.errors import ConflictError, EngineNotRunningError, MachineError
from hitless.homes.home import RolloutNews, StageHome, Workplace
from hitless.release.receipt import ReceiptDocument
from hitless.release.who import Who
from hitless.service.model import Home
from hitless.store.runs import NewRun, RunRecords
from hitless.store.store import Store
from tests.fakes import FakeClock, release_document
from tests.unit.test_receipt_page import NASTY, rolled_back, shown

AT = "2026-11-24T05:50:00.000Z"
HOST = "http://127.0.0.1:9191"


def stage(name: str, *, digest: str = "sha256:1", live: bool = True, **more: Any) -> dict[str, Any]:
    """A stage of the status document."""
    worker = {"pid": 1, "busy": False}
    function = {
        "name": "api", "release": 11, "workers": [worker, {**worker, "busy": True}], "restarts": 0,
        "requests": 8000, "failed": 2, "latency_ms": {"p50": 1.5, "p99": 7.25},
        "scaling": {"min": 2, "max": 6, "now": 2, "target_percent": 70, "reason": "1.2 busy workers on average"},
    }  # fmt: skip
    release = {"release": 11, "commit": "1a2b3c4d5e6f", "artifacts": {"api": digest}, "since": AT}
    shown: dict[str, Any] = {"live": release, "functions": [function]} if live else {"live": None, "functions": []}
    return {"stage": name, "url": "http://127.0.0.1:8080", "strategy": "AllAtOnce", "candidate": None, **shown, **more}


CANDIDATE = {
    "release": 12, "state": "baking", "weight_percent": 10, "requests": 810, "failed": 2, "shielded": 40,
    "left_s": 21.5, "latency_ms": {"p50": 1.5, "p99": 12.5}, "live": {"requests": 7190, "failed": 0},
    "live_latency_ms": {"p50": 1.25, "p99": 7.5}, "alarms": {"verdict": "ok", "sentence": "42 of 8100 requests failed"},
}  # fmt: skip


ON_AWS = [
    {
        "stage": "cloud", "home": "aws", "url": "https://x.example.com", "live": stage("x")["live"],
        "functions": [{"name": "api", "release": 11, "weights": {"7": 90, "8": 10}}],
        "troubles": [{"where": "alias live", "what": "was moved by hand", "mends": "hitless aws repair"}],
    },
    {"stage": "far", "home": "aws", "error": "AWS cannot be reached"},
]  # fmt: skip


class FarHome:
    """A stage on AWS with two releases. `denies` is the sentence of a missing permission."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.denies = ""

    def at(self, home: Home, place: Workplace) -> StageHome:
        self.asked.append((home, place.stage))
        return cast(StageHome, self)

    def _check(self) -> None:
        if self.denies:
            raise MachineError(self.denies, hint="ask for the permission")

    def releases(self, limit: int | None = None) -> list[dict[str, Any]]:
        self._check()
        common = {"strategy": "AllAtOnce", "commit": "1a2b3c4d5e6f", "message": NASTY, "created_at": AT}
        newest = {"release": 12, "live": False, "outcome": "rolled_back", "reason": "an alarm"}
        return [{**common, **newest}, {**common, "release": 11, "live": True, "outcome": "live", "reason": None}]

    def release(self, number: int) -> dict[str, Any]:
        self._check()
        return {**shown(), "release": number, "stage": "cloud"}

    def rollback(self, release: int | None, message: str | None) -> Iterator[RolloutNews]:
        self._check()
        self.asked.append(("rollback", release, message))
        yield RolloutNews(result={"release": release or 10, "outcome": "live"})

    def abort(self) -> Iterator[RolloutNews]:
        self.asked.append(("abort",))
        yield RolloutNews(result={"release": None, "outcome": "aborted"})


def samples(*of: tuple[float, int, int]) -> list[list[float]]:
    """Samples of the engine: so many seconds ago, of a release, with so many requests."""
    now_s = FakeClock().now().timestamp()
    return [[now_s - ago_s, release, requests, 1, 2.5, 40.0] for ago_s, release, requests in of]


class FakeEngine:
    """The engine's API as the dashboard calls it."""

    def __init__(self) -> None:
        self.stages = [
            stage("dev", digest="sha256:2"), stage("staging", candidate=CANDIDATE), stage("prod", live=False)
        ]  # fmt: skip
        self.recent: list[list[float]] = []
        self.begun: list[tuple[str, Any]] = []
        self.runs = False
        """Whether it responds."""
        self.refuses = ""

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        if not self.runs:
            raise EngineNotRunningError("no engine is running here", hint="start it with `hitless up`")
        if path.endswith("/recent"):
            return self.recent
        engine = {"pid": 1, "version": "0.1.0", "started_at": AT, "gateway_pid": 2, "guardian_pid": 3}
        return {"service": "shop", "engine": {**engine, "root_zygote_pid": 4}, "stages": self.stages}

    def begin(self, method: str, path: str, body: Any = None) -> None:
        if self.refuses:
            raise ConflictError(self.refuses, hint="try again")
        self.begun.append((path, to_plain(body)))


class DashboardSite:
    """A dashboard for tests. An alarm rolled back the newest release of staging; run 1 waits for a person."""

    def __init__(self, folder: Path, *, releases: int = 1, clock: Clock | None = None) -> None:
        folders = Folders.of(folder / ".hitless", {"XDG_RUNTIME_DIR": str(folder)})
        folders.data.mkdir(mode=0o700)
        self.store, self.engine, self.clock = Store(folders.state_file), FakeEngine(), FakeClock()
        ticking = clock or self.clock
        self.engine.runs = True
        self.folders = folders
        self.history = History(folders.state_file)
        self.fill(releases)
        self.door = Door(ticking)
        client = cast(EngineClient, self.engine)
        self.far = FarHome()
        place = Workplace(stage="dev", service_dir=folder, data_dir=folders.data, say=print)
        feed = Feed(client, ticking, Elsewhere(ticking, place, tuple, self.far.at))
        pages = Pages(feed, self.history, folders, ticking)
        self.dashboard = Dashboard(client, self.door, pages, ticking, "ada@here (dashboard)", Who(user="ada"))
        self.application = self.dashboard.application()

    def fill(self, releases: int) -> None:
        over = rolled_back()
        receipt = convert(over["receipt"], ReceiptDocument, "a receipt")
        for number in range(1, releases + 1):
            self.store.add_release("staging", release_document(digest=f"sha256:{number}", message=NASTY), AT)
            rollout = self.store.begin_rollout(
                "staging",
                number,
                verb="deploy",
                strategy="Canary10Percent5Minutes",
                state="baking",
                previous=None,
                at=AT,
            )
            if number == releases:
                self.store.save_receipt(rollout, receipt)
                self.store.record_step(rollout, "shifting", 10, NASTY, AT)
            self.store.end_rollout(rollout, "rolled_back", over["reason"], None, AT)
            self.store.add_event(f"release {number} was rolled back", "staging", AT)
        records = RunRecords(self.store)
        new = NewRun(
            stage="prod", branch="prod", commit="c0ffee" * 7, verb="push", actor="ada", message=NASTY, options={}
        )
        row = records.add(new, state="waiting_for_approval", at=AT)
        records.set_step(row.run, "approve", "waiting", started_at=AT)
        question = {"configuration": [NASTY], "commits": [{"commit": "c0ffee00", "subject": "Count <zones>"}]}
        folder = self.folders.data / "pipeline" / "runs" / str(row.run)
        folder.mkdir(parents=True)
        (folder / "question.json").write_text(json.dumps(question))
        (folder / "log").write_text(f"== test\n{NASTY}\n")

    def close(self) -> None:
        self.history.close()
        self.store.close()

    @asynccontextmanager
    async def client(self, *, enter: bool = True) -> AsyncIterator[httpx.AsyncClient]:
        """A browser; with `enter` it has used a link. Paths are below the dashboard's."""
        transport = httpx.ASGITransport(self.application)
        async with httpx.AsyncClient(transport=transport, base_url=HOST + self.door.base) as client:
            if enter:
                response = await client.get(HOST + self.door.new_link())
                assert response.status_code == 200
            yield client

    def form(self, **fields: str) -> dict[str, str]:
        """A form's fields with the key of the newest session."""
        return {"form_key": self.newest_session.form_key, **fields}

    @property
    def newest_session(self) -> Any:
        return list(self.door._sessions.values())[-1]


def visit(site: DashboardSite, *paths: str) -> list[httpx.Response]:
    """The pages, read with a session."""

    async def story() -> list[httpx.Response]:
        async with site.client() as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(story())


def post(
    site: DashboardSite,
    path: str,
    fields: dict[str, str] | None = None,
    *,
    origin: str | None = HOST,
    keyed: bool = True,
) -> httpx.Response:
    """A form's response; by default that of a page of this dashboard."""

    async def story() -> httpx.Response:
        async with site.client() as client:
            headers = {"origin": origin} if origin is not None else {}
            given = fields or {}
            return await client.post(path, data=site.form(**given) if keyed else given, headers=headers)

    return asyncio.run(story())
