"""A registered release of the engine, and the specifications for its workers."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import joserfc
from msgspec import structs

from hitless.artifact.node import find_node
from hitless.gateway.state import release_key
from hitless.release.document import ReleaseDocument
from hitless.scaling.bounds import bounds_of
from hitless.service.event_sources import Cors, Route
from hitless.service.model import CHECKS, DEFAULT_READY_TIMEOUT_S, DEFAULT_STORAGE_MB, Function, with_pools
from hitless.service.routes import compile_route, order_routes
from hitless.store.secrets import SecretKey
from hitless.store.store import ReleaseRow
from hitless.worker.spec import AuthorizerSpec, CorsSpec, PoolSpec, RouteSpec


@dataclass(frozen=True, slots=True)
class Release:
    stage: str
    number: int
    document: ReleaseDocument

    @property
    def key(self) -> str:
        """The release's prefix in the gateway's route keys; unique over all stages."""
        return release_key(self.stage, self.number)

    @property
    def served(self) -> tuple[Function, ...]:
        """The functions that have pools; the others (hooks) run when invoked."""
        return with_pools(self.document.functions)

    def function(self, name: str) -> Function:
        return next(function for function in (*self.document.functions, CHECKS) if function.name == name)


def release_of(row: ReleaseRow) -> Release:
    return Release(row.stage, row.release, ReleaseDocument.from_json(row.document))


def pool_spec(release: Release, function: Function, *, key: str, task_root: str, log_dir: str) -> PoolSpec:
    """The specification with the values of the function's secrets. MachineError if they cannot be decrypted."""
    document = release.document
    waits_s = (release.function(one.function).timeout_s for _, one in function.guarded)
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
            **SecretKey.of(os.environ).environment(function.environment),
            **({"PYTHONPATH": str(Path(joserfc.__file__).parents[1])} if function is CHECKS else {}),
        },
        timeout_s=function.timeout_s,
        memory_mb=function.memory_mb,
        storage_mb=function.storage_mb or DEFAULT_STORAGE_MB,
        workers=bounds_of(function).most,
        region=document.region,
        routes=(
            *(_route_spec(function, route) for route in order_routes(function.routes)),
            *(
                RouteSpec(route.method, route.path, compile_route(route.path), payload, cors=cors_spec(cors))
                for route, payload, cors in preflights_of(function)
            ),
        ),
        log_dir=log_dir,
        release_header=document.settings.release_header,
        commit=document.commit or "",
        binary_media_types=function.binary_media_types,
        release_key=release.key,
        response_s=function.timeout_s
        + max(waits_s, default=0)
        + (0 if function.is_python else DEFAULT_READY_TIMEOUT_S),
        runtime=function.runtime,
        fresh=function.import_per_worker or not function.is_python,
        node=node.path if (node := find_node(function.runtime)) else "",
        cpu_weight=(document.cpu_weight or 0) / max(1, len(release.served)),
    )


def _route_spec(function: Function, route: Route) -> RouteSpec:
    headers = next((one.headers for one in function.mapped if one.route == route), None)
    mapped = None if headers is None else "".join(f"{name}: {value}\r\n" for name, value in headers)
    asked = next((AuthorizerSpec(**structs.asdict(one)) for guarded, one in function.guarded if guarded == route), None)
    spec = RouteSpec(route.method, route.path, compile_route(route.path), mapped=mapped, authorizer=asked)
    api = function.http_api
    return replace(spec, payload=api.payload, key=str(route)) if api is not None and route in api.routes else spec


def preflights_of(function: Function) -> list[tuple[Route, str, Cors]]:
    """Routes of preflight requests, with the payload format version if they are an HTTP API's, most specific first."""
    found = {Route("OPTIONS", one.path): ("", one.cors) for one in function.preflights}
    api = function.http_api
    if api is not None and api.cors is not None:
        found |= {Route("OPTIONS", route.path): (api.payload, api.cors) for route in api.routes}
    return [(route, *found[route]) for route in order_routes(found)]


def cors_spec(cors: Cors) -> CorsSpec:
    """The header lines that a worker sends, as API Gateway writes them."""
    credentials = "access-control-allow-credentials: true\r\n" if cors.credentials else ""
    exposed = f"access-control-expose-headers: {','.join(cors.exposed)}\r\n" if cors.exposed else ""
    preflight = (
        f"access-control-allow-headers: {','.join(cors.headers)}\r\n"
        f"access-control-allow-methods: {','.join(cors.methods)}\r\n"
        + (f"access-control-max-age: {cors.max_age_s}\r\n" if cors.max_age_s else "")
        + (f"cache-control: {cors.cache_control}\r\n" if cors.cache_control else "")
    )
    return CorsSpec(cors.origins, preflight + credentials, credentials + exposed)
