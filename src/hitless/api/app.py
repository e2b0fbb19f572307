"""The daemon's API for the command line, over a Unix socket that only the engine's owner can open.

Long work (a rollout) is streamed as one JSON document per line; if the client disconnects, the work continues. Errors
have one shape: `{"error": {code, message, hint, details, exit_code}}`. The size of request bodies is limited.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hitless.api.requests import DeployRequest, RollbackRequest, ShutdownRequest
from hitless.api.server import json_lines, one_line, read_body, user_of
from hitless.documents import to_plain
from hitless.engine import releases as views
from hitless.engine.engine import Engine
from hitless.engine.machine import Machine
from hitless.engine.metrics import CONTENT_TYPE
from hitless.engine.status import candidate_of
from hitless.errors import ConflictError, HitlessError
from hitless.release.document import ReleaseDocument
from hitless.release.result import Result
from hitless.release.who import NOBODY, Who
from hitless.rollout.rollout import Rollout
from hitless.service.strategy import parse_option

MAX_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class Api:
    """The endpoints over one engine."""

    engine: Engine
    machine: Machine
    before_stop: Callable[[], Awaitable[None]]
    """Stops the components that could otherwise start new rollouts during a shutdown."""

    async def status(self, request: Request) -> Response:
        return JSONResponse(to_plain(await self.machine.status()))

    async def metrics(self, request: Request) -> Response:
        return Response(await self.machine.metrics(), media_type=CONTENT_TYPE)

    async def releases(self, request: Request) -> Response:
        return JSONResponse(to_plain(self.engine.releases(request.path_params["stage"])))

    async def release(self, request: Request) -> Response:
        stage, number = request.path_params["stage"], request.path_params["release"]
        return JSONResponse(to_plain(views.release(self.engine.store, stage, number)))

    async def recent(self, request: Request) -> Response:
        return JSONResponse(to_plain(tuple(self.machine.recent.of(request.path_params["stage"]))))

    async def deploy(self, request: Request) -> Response:
        body = await read_body(request, DeployRequest)
        started = await self.engine.deploy(
            request.path_params["stage"],
            ReleaseDocument.from_json(body.release),
            strategy=parse_option(body.strategy) if body.strategy is not None else None,
            force=body.force,
            who=_who(request, body),
        )
        return self._answer(request, started, wait=body.wait)

    async def rollback(self, request: Request) -> Response:
        body = await read_body(request, RollbackRequest)
        started = await self.engine.rollback(
            request.path_params["stage"], body.release, who=_who(request, body), why=body.message or None
        )
        return self._answer(request, started, wait=body.wait)

    async def abort(self, request: Request) -> Response:
        return self._answer(request, self.engine.abort(request.path_params["stage"]), wait=True)

    async def remove(self, request: Request) -> Response:
        if self.machine.sites is None:
            raise ConflictError("the engine's stages are those of its serverless.yml", hint="`hitless down` stops it")
        await self.machine.sites.leave(request.path_params["stage"])
        return JSONResponse({"removed": request.path_params["stage"]})

    async def events(self, request: Request) -> Response:
        after = int(request.query_params.get("after", 0))
        limit = min(int(request.query_params.get("limit", 100)), MAX_EVENTS)
        stage = request.query_params.get("stage")
        if request.query_params.get("follow"):
            return json_lines(self._follow_events(after, limit, stage))
        return JSONResponse(
            [asdict(event) for event in self.engine.store.events(after=after, limit=limit, stage=stage)]
        )

    async def upgrade(self, request: Request) -> Response:
        return json_lines(self.machine.upgrade.run())

    async def shut_down(self, request: Request) -> Response:
        body = await read_body(request, ShutdownRequest)
        await self.before_stop()
        await self.machine.shut_down(force=body.force)
        return JSONResponse({"stopped": True})

    def _answer(self, request: Request, started: Rollout | Result, *, wait: bool) -> Response:
        if not wait and isinstance(started, Rollout):
            return json_lines(
                one_line({"started": {"stage": started.candidate.stage, "release": started.candidate.number}})
            )
        glance = candidate_of if request.query_params.get("progress") else None
        return json_lines(self.engine.follow(started, glance=glance))

    async def _follow_events(self, after: int, limit: int, stage: str | None) -> AsyncIterator[dict[str, Any]]:
        while True:
            async with self.engine.event_happened:
                while not (found := self.engine.store.events(after=after, limit=limit, stage=stage)):
                    await self.engine.event_happened.wait()
            for event in found:
                after = event.event
                yield asdict(event)
            limit = MAX_EVENTS  # the query's limit is for past events only


def application(api: Api, more: Sequence[Route] = ()) -> Starlette:
    """The ASGI application; `more` are routes from other modules."""
    return Starlette(
        routes=[
            Route("/status", api.status, methods=["GET"]),
            Route("/metrics", api.metrics, methods=["GET"]),
            Route("/events", api.events, methods=["GET"]),
            Route("/upgrade", api.upgrade, methods=["POST"]),
            Route("/shutdown", api.shut_down, methods=["POST"]),
            Route("/stages/{stage}/releases", api.releases, methods=["GET"]),
            Route("/stages/{stage}/releases/{release:int}", api.release, methods=["GET"]),
            Route("/stages/{stage}/recent", api.recent, methods=["GET"]),
            Route("/stages/{stage}/deploy", api.deploy, methods=["POST"]),
            Route("/stages/{stage}/rollback", api.rollback, methods=["POST"]),
            Route("/stages/{stage}/abort", api.abort, methods=["POST"]),
            Route("/stages/{stage}", api.remove, methods=["DELETE"]),
            *more,
        ],
        exception_handlers={HitlessError: _error_response},
    )


def figures(machine: Machine) -> Starlette:
    """The application for monitoring, which changes nothing and needs no rights: figures, liveness and readiness."""

    async def metrics(request: Request) -> Response:
        return Response(await machine.metrics(), media_type=CONTENT_TYPE)

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        stages = (await machine.status()).stages
        faults = [f"{one.stage}: {it.name}" for one in stages for it in one.functions if it.zygote_pid is None]
        return JSONResponse({"ready": not faults, "not_running": faults}, status_code=503 if faults else 200)

    endpoints = {"/metrics": metrics, "/-/live": live, "/-/ready": ready}
    return Starlette(routes=[Route(path, it, methods=["GET"]) for path, it in endpoints.items()])


async def _error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HitlessError)
    return JSONResponse({"error": {**error.to_json(), "exit_code": error.exit_code}}, status_code=409)


def _who(request: Request, body: DeployRequest | RollbackRequest) -> Who:
    return (body.who or NOBODY).called_by(user_of(request))
