"""The model as JSON: what a release keeps of its configuration, exactly, for as long as it is kept.

The way back gives an equal object. A key that is missing takes the model's default, so that releases made by an older
version stay readable; keys are never given a new meaning. Environment values are in clear: the store is private.
"""

from __future__ import annotations

from typing import Any

from hitless.service.model import (
    AlarmSettings,
    Approval,
    Function,
    Home,
    Nat,
    Route,
    SmokeRequest,
    StageSettings,
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
        "routes": [{"method": route.method, "path": route.path} for route in function.routes],
        "package_patterns": list(function.package_patterns),
        "workers": function.workers,
        "description": function.description,
    }


def function_from_json(document: dict[str, Any]) -> Function:
    """The inverse of `function_to_json`; TypeError on a key that no version has written."""
    values = dict(document)
    _replace(values, "environment", _pairs)
    _replace(values, "routes", lambda routes: tuple(Route(**route) for route in routes))
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
        "rehearsal": stage.rehearsal,
        "shield": stage.shield,
        "nat": str(stage.nat),
        "domain": stage.domain,
        "smoke": [smoke_to_json(request) for request in stage.smoke],
        "alarms": {
            "error_rate_percent": stage.alarms.error_rate_percent,
            "minimum_requests": stage.alarms.minimum_requests,
        },
        "release_header": stage.release_header,
        "ready_timeout_s": stage.ready_timeout_s,
    }


def stage_from_json(document: dict[str, Any]) -> StageSettings:
    """The inverse of `stage_to_json`; TypeError on a key that no version has written, ValueError on a bad value."""
    values = dict(document)
    _replace(values, "home", Home)
    _replace(values, "strategy", parse)
    _replace(values, "approval", Approval)
    _replace(values, "nat", Nat)
    _replace(values, "smoke", lambda requests: tuple(smoke_from_json(request) for request in requests))
    _replace(values, "alarms", lambda alarms: AlarmSettings(**alarms))
    return StageSettings(**values)


def _replace(values: dict[str, Any], key: str, convert: Any) -> None:
    if key in values:
        values[key] = convert(values[key])


def _pairs(rows: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in rows)
