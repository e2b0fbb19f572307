"""Gathers the values of each page of the dashboard. The templates have the same names as the methods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from hitless.clock import Clock
from hitless.dashboard import views
from hitless.dashboard.sources import Feed, History
from hitless.engine import releases
from hitless.engine.folders import Folders, service_of
from hitless.errors import UsageError
from hitless.gateway.accesslog import AccessLine, newest
from hitless.gateway.logfiles import ACCESS_LOG
from hitless.pipeline.runs import RunDocument, RunState
from hitless.release.document import ReleaseDocument
from hitless.release.history import RolloutDocument
from hitless.release.status import StageStatus
from hitless.service.model import AlarmSettings, Home
from hitless.store.runs import RunRecords
from hitless.store.store import RolloutRow, Store

ROWS = 50
ACCESS_READ = 5000
"""The newest lines of an access log that a filter looks at."""
ACCESS_SHOWN = 100
LISTED = 20
"""Releases that are read of a stage on AWS: each takes a call."""
LOG_BYTES = 48 * 1024
"""The end of a run's log that a page shows."""


@dataclass(slots=True)
class Pages:
    """The values of each page, by the request's path and query."""

    feed: Feed
    history: History
    folders: Folders
    clock: Clock

    async def overview(self, request: Request) -> dict[str, Any]:
        await self.feed.read()
        runs = await self._runs(state=RunState.WAITING, limit=20)
        events = await self.history.read(lambda store: store.events(limit=8))
        shown = {"waiting": runs, "events": events[::-1], "problem": self.feed.problem}
        return {"headline": "Overview", **shown}

    async def stage(self, request: Request) -> dict[str, Any]:
        name, status = request.path_params["stage"], await self.feed.read()
        every = (*status.stages, *status.previews) if status else ()
        stage = next((one for one in every if one.stage == name), StageStatus(name))
        rows = await self.history.read(lambda store: store.rollouts(name, limit=10))
        if stage not in every and not rows:
            raise UsageError(f"There is no stage {name}", hint="")
        rollout, limits = (
            await self.history.read(lambda store: _newest(store, name, rows[0].release)) if rows else (None, None)
        )
        samples, now, far = await self.feed.recent(name), self.clock.now(), self.feed.elsewhere
        return {
            "headline": name,
            "stage": stage,
            "far": far.newest(name, lambda: far.home(name).releases(LISTED)) if stage.home is Home.AWS else (),
            "hour": views.hour_plots(samples, now),
            "rows": rows,
            "costs": await self._costs(rows),
            "rollout": rollout,
            "limits": limits,
            "plot": views.error_plot(rollout, limits.error_rate_percent if limits else None) if rollout else None,
            "latency": views.latency_plot(rollout, rows[0].release, samples, now, limits.p99_ms if limits else None)
            if rollout
            else None,
            "others": [one for one in every if one.live and one.stage != name and _service(one) == _service(stage)],
            "function_rows": [(stage, one) for one in stage.functions],
        }

    async def releases(self, request: Request) -> dict[str, Any]:
        query = request.query_params
        asked: dict[str, Any] = {name: _number(query, name) for name in ("release", "before")}
        stage, outcome = query.get("stage") or None, query.get("outcome") or None
        rows = await self.history.read(lambda store: store.rollouts(stage, outcome=outcome, limit=ROWS + 1, **asked))
        costs = await self._costs(rows[:ROWS])
        older = _older(query, rows[ROWS - 1].rollout) if len(rows) > ROWS else None
        return {"headline": "Releases", "rows": rows[:ROWS], "costs": costs, "older": older}

    async def functions(self, request: Request) -> dict[str, Any]:
        status, asked = await self.feed.read(), request.query_params.get("stage") or None
        stages = (*status.stages, *status.previews) if status else ()
        found = [(stage, one) for stage in stages if asked in (None, stage.stage) for one in stage.functions]
        page = _number(request.query_params, "page") or 0
        older = _older(request.query_params, page + 1, "page") if len(found) > (page + 1) * ROWS else None
        shown = found[page * ROWS : (page + 1) * ROWS]
        return {"headline": "Functions", "rows": shown, "older": older}

    async def runs(self, request: Request) -> dict[str, Any]:
        query = request.query_params
        stage, state = query.get("stage") or None, query.get("state") or None
        rows = await self._runs(stage, state=state, before=_number(query, "before"), limit=ROWS + 1)
        older = _older(query, rows[ROWS - 1].run) if len(rows) > ROWS else None
        shown = {"rows": rows[:ROWS], "older": older, "states": list(RunState)}
        return {"headline": "Pipeline", **shown}

    async def run(self, request: Request) -> dict[str, Any]:
        number = request.path_params["run"]
        run = await self.history.read(lambda store: _run(store, number))
        folder = self.folders.data / "pipeline" / "runs" / str(number)
        log, asked = await asyncio.to_thread(_end_of, folder / "log"), folder / "question.json"
        question = json.loads(asked.read_text()) if asked.exists() else {}
        return {"headline": f"Run {run.run} of {run.where}", "run": run, "log": log, "asked": question}

    async def events(self, request: Request) -> dict[str, Any]:
        query = request.query_params
        stage, before = query.get("stage") or None, _number(query, "before")
        rows = await self.history.read(lambda store: store.events(before=before, limit=ROWS + 1, stage=stage))
        older = _older(query, rows[1].event) if len(rows) > ROWS else None
        return {"headline": "Events", "rows": rows[-ROWS:][::-1], "older": older}

    async def access(self, request: Request) -> dict[str, Any]:
        query, status = request.query_params, await self.feed.read()
        stages = [one.stage for one in status.stages] if status else []
        stage = query.get("stage") or next(iter(stages), "")
        lines: list[AccessLine] = []
        if stage in stages:  # the name becomes a path
            lines = await asyncio.to_thread(newest, self.folders.logs / stage / ACCESS_LOG, ACCESS_READ)
        release, code, text = _number(query, "release"), query.get("status") or "", query.get("path") or ""
        rows = [
            line
            for line in reversed(lines)
            if str(line.status).startswith(code) and release in (None, line.release) and text in line.path
        ]
        looked = {"stage": stage, "found": len(rows), "looked": len(lines)}
        return {"headline": "Access log", **looked, "rows": rows[:ACCESS_SHOWN]}

    async def _costs(self, rows: Sequence[RolloutRow]) -> Mapping[int, Any]:
        """The receipts of these rollouts."""
        return await self.history.read(lambda store: {row.rollout: store.receipt(row.rollout) for row in rows})

    async def _runs(self, stage: str | None = None, **asked: Any) -> list[RunDocument]:
        def found(store: Store) -> list[RunDocument]:
            records = RunRecords(store)
            return [RunDocument.of(records, row) for row in records.runs(stage, **asked)]

        return await self.history.read(found)


def _service(stage: StageStatus) -> str:
    """The stage's service, on an engine that several services share."""
    return service_of(stage.stage)


def _newest(store: Store, stage: str, release: int) -> tuple[RolloutDocument | None, AlarmSettings | None]:
    """The release's newest rollout, and the limits of its alarms if the release is kept."""
    row, rollouts = store.release(stage, release), releases.release(store, stage, release).rollouts
    return next(iter(rollouts), None), ReleaseDocument.from_json(row.document).settings.alarms if row else None


def _run(store: Store, number: int) -> RunDocument:
    records = RunRecords(store)
    if (row := records.run(number)) is None:
        raise UsageError(f"There is no run {number}", hint="")
    return RunDocument.of(records, row, full=True)


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 16 else None


def _older(query: Mapping[str, str], value: int, name: str = "before") -> str:
    """The query of the next page."""
    return "?" + urlencode({**{key: text for key, text in query.items() if text}, name: value})


def _end_of(log: Path) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        return file.read().decode(errors="replace")
