"""The endpoints of an engine's pipelines. A push, a promotion, an approval, a retry stream the run's log until it ends
or waits. The query's `service` chooses the pipeline, unless a run or a stage does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hitless.api.requests import ClosePreviewRequest, ForkRequest, PushRequest, RunRequest
from hitless.api.server import json_lines, one_line, read_body
from hitless.documents import to_plain
from hitless.errors import UsageError
from hitless.pipeline.orders import Promotion, RefUpdate, read_options
from hitless.pipeline.pipeline import Pipeline
from hitless.pipeline.pipelines import Pipelines
from hitless.pipeline.runs import RunDocument
from hitless.release.document import ReleaseDocument
from hitless.store.runs import RunRow

MOST_RUNS = 500
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class PipelineApi:
    """The endpoints over the pipelines of one engine."""

    pipelines: Pipelines

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
            Route("/pipeline", self.remove, methods=["DELETE"]),
            Route("/stages/{stage}/promote", self.promote, methods=["POST"]),
        ]

    async def _named(self, request: Request) -> Pipeline:
        return await self.pipelines.of(request.query_params.get("service", ""))

    async def _of_run(self, request: Request) -> tuple[Pipeline, int]:
        run = int(request.path_params["run"])
        return await self.pipelines.of_run(run), run

    async def check(self, request: Request) -> Response:
        body = await read_body(request, PushRequest)
        updates, options, actor = _push_of(body)
        pipeline = await self._named(request)
        return JSONResponse({"refusals": await pipeline.check(updates, options, actor, body.lineage)})

    async def push(self, request: Request) -> Response:
        updates, options, actor = _push_of(await read_body(request, PushRequest))
        pipeline = await self._named(request)
        return json_lines(_follow_all(pipeline, await pipeline.push(updates, options, actor)))

    async def fork(self, request: Request) -> Response:
        body, pipeline = await read_body(request, ForkRequest), await self._named(request)
        row = await pipeline.fork(body.fork, body.commit, _name(body.actor))
        return json_lines(_follow_all(pipeline, [row.run]))

    async def close_fork(self, request: Request) -> Response:
        (await self._named(request)).close_fork(request.path_params["number"])
        return JSONResponse({})

    async def close_preview(self, request: Request) -> Response:
        body, pipeline = await read_body(request, ClosePreviewRequest), await self._named(request)
        previews = pipeline.parts.previews
        return JSONResponse({"goes": previews is not None and previews.close(_name(body.branch), _name(body.why))})

    async def runs(self, request: Request) -> Response:
        stage = request.query_params.get("stage")
        limit = min(int(request.query_params.get("limit", 20)), MOST_RUNS)
        service = request.query_params.get("service")
        records = (await self.pipelines.of(service)).parts.records if service else self.pipelines.records
        return JSONResponse([to_plain(RunDocument.of(records, row)) for row in records.runs(stage, limit=limit)])

    async def run(self, request: Request) -> Response:
        pipeline, run = await self._of_run(request)
        return JSONResponse(to_plain(pipeline.document(run, full=True)))

    async def log(self, request: Request) -> Response:
        pipeline, run = await self._of_run(request)
        if request.query_params.get("follow"):
            return json_lines(pipeline.follow(run))
        file = pipeline.parts.workshop.log(run)
        data = file.read_bytes() if file.exists() else b""
        return JSONResponse({"run": run, "log": data.decode(errors="replace")})

    async def retry(self, request: Request) -> Response:
        return await self._resumed(request, lambda pipeline, run: pipeline.retry(run))

    async def stop(self, request: Request) -> Response:
        (by, why), (pipeline, run) = await _person(request), await self._of_run(request)
        await pipeline.stop_run(run, by=by, why=why)
        return JSONResponse(to_plain(pipeline.document(run)))

    async def approve(self, request: Request) -> Response:
        by, why = await _person(request)
        return await self._resumed(request, lambda pipeline, run: pipeline.approve(run, by=by, why=why))

    async def reject(self, request: Request) -> Response:
        (by, why), (pipeline, run) = await _person(request), await self._of_run(request)
        pipeline.reject(run, by=by, why=why)
        return json_lines(one_line({"run": to_plain(pipeline.document(run))}))

    async def remove(self, request: Request) -> Response:
        await self.pipelines.remove(request.query_params.get("service", ""))
        return JSONResponse({})

    async def promote(self, request: Request) -> Response:
        order = await read_body(request, Promotion)
        document = ReleaseDocument.from_json(order.document).to_json() if order.document else None
        order = replace(order, target=request.path_params["stage"], document=document)
        pipeline = await self.pipelines.of_stage(order.target)
        row = await pipeline.promote(order, actor=_name(order.actor))
        return json_lines(pipeline.follow(row.run))

    async def _resumed(self, request: Request, verb: Callable[[Pipeline, int], RunRow]) -> Response:
        """What the run's log gets from now on."""
        pipeline, run = await self._of_run(request)
        log = pipeline.parts.workshop.log(run)
        offset = log.stat().st_size if log.exists() else 0
        return json_lines(pipeline.follow(verb(pipeline, run).run, offset=offset))


async def _follow_all(pipeline: Pipeline, started: list[int | str]) -> AsyncIterator[dict[str, Any]]:
    for one in started:
        if isinstance(one, str):
            yield {"text": f"{one}\n"}
            continue
        yield {"started": one}
        async for line in pipeline.follow(one):
            yield line


def _push_of(body: PushRequest) -> tuple[list[RefUpdate], dict[str, str], str]:
    return body.updates, read_options(body.options), _name(body.actor)


async def _person(request: Request) -> tuple[str, str | None]:
    """The person who approves, rejects or stops a run, and the reason."""
    body = await read_body(request, RunRequest)
    return _name(body.by), body.why or None


def _name(text: str) -> str:
    text = text.strip()
    if not text or len(text) > MAX_NAME or not text.isprintable():
        raise UsageError(f"a name of 1 to {MAX_NAME} printable characters is missing", hint="pass your name with --by")
    return text
