"""A registered release of the engine, and how its pools of workers are set up."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hitless.gateway.state import release_key
from hitless.release.document import ReleaseDocument
from hitless.scaling.bounds import bounds_of
from hitless.service.model import Function, Route
from hitless.service.routes import compile_route, order_routes
from hitless.store.store import ReleaseRow
from hitless.worker.spec import PoolSpec, RouteSpec


@dataclass(frozen=True, slots=True)
class Release:
    """A registered release."""

    stage: str
    number: int
    document: ReleaseDocument

    @property
    def key(self) -> str:
        """The release's part of the gateway's route keys; unique over the stages."""
        return release_key(self.stage, self.number)

    @property
    def served(self) -> tuple[Function, ...]:
        """The functions that have routes, and so pools: the others (hooks) run only when they are asked."""
        return tuple(function for function in self.document.functions if function.routes)

    def function(self, name: str) -> Function:
        return next(function for function in self.document.functions if function.name == name)


def release_of(row: ReleaseRow) -> Release:
    """The release that a row of the state file describes."""
    return Release(row.stage, row.release, ReleaseDocument.from_json(row.document))


def pool_spec(release: Release, function: Function, *, key: str, task_root: str, log_dir: str) -> PoolSpec:
    """What the workers need to know to run one function of a release."""
    document = release.document
    return PoolSpec(
        key=key,
        service=document.service,
        stage=document.settings.name,
        release=release.number,
        function=function.name,
        handler=function.handler,
        task_root=task_root,
        environment={
            "HITLESS_STAGE": document.settings.name,
            **({"HITLESS_COMMIT": document.commit} if document.commit else {}),
            **dict(function.environment),
        },
        timeout_s=function.timeout_s,
        memory_mb=function.memory_mb,
        workers=bounds_of(function).most,
        region=document.region,
        routes=tuple(_route_spec(function, route) for route in order_routes(function.routes)),
        log_dir=log_dir,
        release_header=document.settings.release_header,
        commit=document.commit or "",
    )


def _route_spec(function: Function, route: Route) -> RouteSpec:
    spec = RouteSpec(route.method, route.path, compile_route(route.path))
    api = function.http_api
    return replace(spec, payload=api.payload, key=str(route)) if api is not None and route in api.routes else spec
