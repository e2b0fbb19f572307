"""The pipeline's endpoints. A push, a promotion, an approval, a retry stream the run's log until it ends or waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hitless.api.wire import json_body, json_lines, one_line
from hitless.documents import to_plain
from hitless.errors import UsageError
from hitless.forge.forge import Fork
from hitless.pipeline.forks import commit_of
from hitless.pipeline.pipeline import Pipeline
from hitless.pipeline.promotion import Promotion
from hitless.pipeline.pushes import Lineage, RefUpdate, StartedRun, read_options
from hitless.pipeline.runs import RunDocument
from hitless.release.document import ReleaseDocument
from hitless.service.model import Home

MOST_RUNS = 500
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class PipelineApi:
    """The endpoints over one pipeline."""

    pipeline: Pipeline

    def routes(self) -> list[Route]:
        return [
            Route("/pipeline/check", self.check, methods=["POST"]),
            Route("/pipeline/push", self.push, methods=["POST"]),
            Route("/pipeline/forks", self.fork, methods=["POST"]),
            Route("/pipeline/forks/{number:int}/close", self.close_fork, methods=["POST"]),
            Route("/pipeline/previews/close", self.close_preview, methods=["POST"]),
            Route("/pipeline/runs", self.runs, methods=["GET"]),
            Route("/pipeline/runs/{run:int}", self.run, methods=["GET"]),
            Route("/pipeline/runs/{run:int}/log", self.log, methods=["GET"]),
            Route("/pipeline/runs/{run:int}/retry", self.retry, methods=["POST"]),
            Route("/pipeline/runs/{run:int}/stop", self.stop, methods=["POST"]),
            Route("/pipeline/runs/{run:int}/approve", self.approve, methods=["POST"]),
            Route("/pipeline/runs/{run:int}/reject", self.reject, methods=["POST"]),
            Route("/stages/{stage}/promote", self.promote, methods=["POST"]),
        ]

    async def check(self, request: Request) -> Response:
        body = await json_body(request)
        updates, options, actor = _push_of(body)
        return JSONResponse({"refusals": await self.pipeline.check(updates, options, actor, _lineage_of(body))})

    async def push(self, request: Request) -> Response:
        updates, options, actor = _push_of(await json_body(request))
        return json_lines(self._follow_all(await self.pipeline.push(updates, options, actor)))

    async def fork(self, request: Request) -> Response:
        body = await json_body(request)
        row = await self.pipeline.fork(
            Fork.from_json(body.get("fork")), commit_of(body.get("commit")), _name(body.get("actor"))
        )
        return json_lines(self._follow_all([StartedRun(row.run)]))

    async def close_fork(self, request: Request) -> Response:
        self.pipeline.close_fork(request.path_params["number"])
        return JSONResponse({})

    async def close_preview(self, request: Request) -> Response:
        body, previews = await json_body(request), self.pipeline.parts.previews
        return JSONResponse(
            {"goes": previews is not None and previews.close(_name(body.get("branch")), _name(body.get("why")))}
        )

    async def runs(self, request: Request) -> Response:
        stage = request.query_params.get("stage")
        limit = min(int(request.query_params.get("limit", 20)), MOST_RUNS)
        records = self.pipeline.parts.records
        return JSONResponse([to_plain(RunDocument.of(records, row)) for row in records.runs(stage, limit=limit)])

    async def run(self, request: Request) -> Response:
        return JSONResponse(to_plain(self.pipeline.document(request.path_params["run"], full=True)))

    async def log(self, request: Request) -> Response:
        run = request.path_params["run"]
        self.pipeline.row(run)
        if request.query_params.get("follow"):
            return json_lines(self.pipeline.follow(run))
        file = self.pipeline.parts.workshop.log(run)
        data = file.read_bytes() if file.exists() else b""
        return JSONResponse({"run": run, "log": data.decode(errors="replace")})

    async def retry(self, request: Request) -> Response:
        return self._resumed(request, lambda run: self.pipeline.retry(run).run)

    async def stop(self, request: Request) -> Response:
        by, why = _signature(await json_body(request))
        run = (await self.pipeline.stop_run(request.path_params["run"], by=by, why=why)).run
        return JSONResponse(to_plain(self.pipeline.document(run)))

    async def approve(self, request: Request) -> Response:
        by, why = _signature(await json_body(request))
        return self._resumed(request, lambda run: self.pipeline.approve(run, by=by, why=why).run)

    async def reject(self, request: Request) -> Response:
        by, why = _signature(await json_body(request))
        run = self.pipeline.reject(request.path_params["run"], by=by, why=why).run
        return json_lines(one_line({"run": to_plain(self.pipeline.document(run))}))

    async def promote(self, request: Request) -> Response:
        body = await json_body(request)
        order = _promotion_of(body, request.path_params["stage"])
        row = await self.pipeline.promote(order, actor=_name(body.get("actor")))
        return json_lines(self.pipeline.follow(row.run))

    def _resumed(self, request: Request, verb: Callable[[int], int]) -> Response:
        """What the run's log gets from now on."""
        run = request.path_params["run"]
        self.pipeline.row(run)
        log = self.pipeline.parts.workshop.log(run)
        offset = log.stat().st_size if log.exists() else 0
        return json_lines(self.pipeline.follow(verb(run), offset=offset))

    async def _follow_all(self, started: list[StartedRun | str]) -> AsyncIterator[dict[str, Any]]:
        for one in started:
            if isinstance(one, str):
                yield {"text": f"{one}\n"}
                continue
            yield {"started": one.run}
            async for line in self.pipeline.follow(one.run):
                yield line


def _push_of(body: dict[str, Any]) -> tuple[list[RefUpdate], dict[str, str], str]:
    updates, options = body.get("updates"), body.get("options", [])
    if not isinstance(updates, list) or not isinstance(options, list):
        raise UsageError("not what git's hook sends", hint="push with git")
    return (
        [RefUpdate.from_json(one) for one in updates],
        read_options([str(o) for o in options]),
        _name(body.get("actor")),
    )


def _promotion_of(body: dict[str, Any], target: str) -> Promotion:
    document, folder = body.get("document"), body.get("folder")
    try:
        return Promotion(
            source=str(body.get("from")),
            target=target,
            source_home=Home(body.get("from_home") or Home.ENGINE),
            document=ReleaseDocument.from_json(document).to_json() if document else None,
            folder=Path(str(folder)) if folder else None,
            skip_rehearsal=bool(body.get("skip_rehearsal")),
        )
    except ValueError as error:
        raise UsageError(f"not a promotion: {error}", hint="`hitless promote dev staging`") from error


def _lineage_of(body: dict[str, Any]) -> Lineage | None:
    """What git's hook alone can see of a push that is not taken yet; None where nobody said."""
    found = body.get("lineage")
    if found is None:
        return None
    if not isinstance(found, dict) or not all(isinstance(one, list) for one in found.values()):
        raise UsageError("not what git's hook sends", hint="push with git")
    return {str(commit): [str(one) for one in parents] for commit, parents in found.items()}


def _signature(body: dict[str, Any]) -> tuple[str, str | None]:
    why = body.get("why")
    return _name(body.get("by")), str(why) if why else None


def _name(value: object) -> str:
    text = str(value or "").strip()
    if not text or len(text) > MAX_NAME or not text.isprintable():
        raise UsageError(f"a name of 1 to {MAX_NAME} printable characters is missing", hint="say who with --by")
    return text
