"""The model as JSON: what a release keeps of its configuration, exactly, for as long as it is kept.

The way back gives an equal object. A key that is missing takes the model's default, so that releases made by an older
version stay readable; keys are never given a new meaning. Environment values are in clear: the store is private.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hitless.service.model import (
    AccessLog,
    AlarmSettings,
    Approval,
    Function,
    Home,
    Hooks,
    Nat,
    Notify,
    NotifyBy,
    RehearsalSettings,
    Route,
    SmokeRequest,
    StageSettings,
    Sticky,
    StickyBy,
)
from hitless.service.strategy import parse


def function_to_json(function: Function) -> dict[str, Any]:
    """JSON's own types only."""
    return {
        "name": function.name,
        "handler": function.handler,
        "runtime": function.runtime,
        "architecture": function.architecture,
        "memory_mb": function.memory_mb,
        "timeout_s": function.timeout_s,
        "environment": [list(pair) for pair in function.environment],
        "routes": [asdict(route) for route in function.routes],
        "package_patterns": list(function.package_patterns),
        "workers": function.workers,
        "max_workers": function.max_workers,
        "target_percent": function.target_percent,
        "reserved_concurrency": function.reserved_concurrency,
        "provisioned_concurrency": function.provisioned_concurrency,
        "max_provisioned": function.max_provisioned,
        "provisioned_target_percent": function.provisioned_target_percent,
        "description": function.description,
    }


def function_from_json(document: dict[str, Any]) -> Function:
    """The inverse of `function_to_json`; TypeError on a key that no version has written."""
    values = dict(document)
    _replace(values, "environment", _pairs)
    _replace(values, "routes", _routes)
    _replace(values, "package_patterns", tuple)
    return Function(**values)


def smoke_to_json(request: SmokeRequest) -> dict[str, Any]:
    """JSON's own types only."""
    return {
        "method": request.method,
        "path": request.path,
        "headers": [list(pair) for pair in request.headers],
        "body": request.body,
        "status": request.status,
    }


def smoke_from_json(document: dict[str, Any]) -> SmokeRequest:
    """The inverse of `smoke_to_json`."""
    values = dict(document)
    _replace(values, "headers", _pairs)
    return SmokeRequest(**values)


def stage_to_json(stage: StageSettings) -> dict[str, Any]:
    """JSON's own types only; the strategy by its name."""
    return {
        "name": stage.name,
        "branch": stage.branch,
        "home": str(stage.home),
        "host": stage.host,
        "port": stage.port,
        "strategy": str(stage.strategy),
        "approval": str(stage.approval),
        "rehearsal": asdict(stage.rehearsal) if stage.rehearsal else None,
        "test": stage.test,
        "verify": stage.verify,
        "shield": stage.shield,
        "nat": str(stage.nat),
        "domain": stage.domain,
        "smoke": [smoke_to_json(request) for request in stage.smoke],
        "alarms": asdict(stage.alarms),
        "hooks": asdict(stage.hooks),
        "sticky": {"by": str(stage.sticky.by), "name": stage.sticky.name} if stage.sticky else None,
        "idempotent": [asdict(route) for route in stage.idempotent],
        "notify": [{"by": str(one.by), "target": one.target} for one in stage.notify],
        "access_log": str(stage.access_log),
        "access_log_query": stage.access_log_query,
        "release_header": stage.release_header,
        "ready_timeout_s": stage.ready_timeout_s,
        "required_checks": stage.required_checks,
    }


def stage_from_json(document: dict[str, Any]) -> StageSettings:
    """The inverse of `stage_to_json`; TypeError on a key that no version has written, ValueError on a bad value."""
    values = dict(document)
    _replace(values, "home", Home)
    _replace(values, "strategy", parse)
    _replace(values, "approval", Approval)
    _replace(values, "nat", Nat)
    _replace(values, "access_log", AccessLog)
    _replace(values, "rehearsal", _rehearsal)
    _replace(values, "smoke", lambda requests: tuple(smoke_from_json(request) for request in requests))
    _replace(values, "alarms", lambda alarms: AlarmSettings(**{**alarms, "also": tuple(alarms.get("also", ()))}))
    _replace(values, "hooks", lambda hooks: Hooks(**hooks))
    _replace(values, "sticky", lambda sticky: Sticky(StickyBy(sticky["by"]), sticky["name"]) if sticky else None)
    _replace(values, "idempotent", _routes)
    _replace(values, "notify", lambda rows: tuple(Notify(NotifyBy(one["by"]), one["target"]) for one in rows))
    return StageSettings(**values)


def _replace(values: dict[str, Any], key: str, convert: Any) -> None:
    if key in values:
        values[key] = convert(values[key])


def _rehearsal(document: dict[str, float] | bool | None) -> RehearsalSettings | None:
    """A boolean in documents of a time before a rehearsal could be set."""
    match document:
        case None | False:
            return None
        case True:
            return RehearsalSettings()
        case _:
            return RehearsalSettings(**document)


def _routes(routes: list[dict[str, str]]) -> tuple[Route, ...]:
    return tuple(Route(**route) for route in routes)


def _pairs(rows: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in rows)
