"""The model as JSON: what a release keeps of its configuration, exactly, for as long as it is kept.

The way back gives an equal object. A key that is missing takes the model's default, so that releases made by an older
version stay readable; keys are never given a new meaning. Environment values are in clear: the store is private.
"""

from __future__ import annotations

import json
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
    return _plain(asdict(function))


def function_from_json(document: dict[str, Any]) -> Function:
    """The inverse of `function_to_json`; TypeError on a key that no version has written."""
    values = dict(document)
    _replace(values, "environment", _pairs)
    _replace(values, "routes", _routes)
    _replace(values, "package_patterns", tuple)
    return Function(**values)


def stage_to_json(stage: StageSettings) -> dict[str, Any]:
    """JSON's own types only; the strategy by its name."""
    document = _plain({**asdict(stage), "strategy": str(stage.strategy)})
    return {**document, "alarms": asdict(stage.alarms)}  # an approval's question shows `also` as a tuple


def stage_from_json(document: dict[str, Any]) -> StageSettings:
    """The inverse of `stage_to_json`; TypeError on a key that no version has written, ValueError on a bad value."""
    values = dict(document)
    _replace(values, "home", Home)
    _replace(values, "strategy", parse)
    _replace(values, "approval", Approval)
    _replace(values, "nat", Nat)
    _replace(values, "access_log", AccessLog)
    _replace(values, "rehearsal", _rehearsal)
    _replace(values, "smoke", lambda requests: tuple(map(_smoke, requests)))
    _replace(values, "alarms", lambda alarms: AlarmSettings(**{**alarms, "also": tuple(alarms.get("also", ()))}))
    _replace(values, "hooks", lambda hooks: Hooks(**hooks))
    _replace(values, "sticky", lambda sticky: Sticky(StickyBy(sticky["by"]), sticky["name"]) if sticky else None)
    _replace(values, "idempotent", _routes)
    _replace(values, "notify", lambda rows: tuple(Notify(NotifyBy(one["by"]), one["target"]) for one in rows))
    return StageSettings(**values)


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Tuples become lists, words of an enumeration strings."""
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def _replace(values: dict[str, Any], key: str, convert: Any) -> None:
    if key in values:
        values[key] = convert(values[key])


def _smoke(document: dict[str, Any]) -> SmokeRequest:
    return SmokeRequest(**{**document, "headers": _pairs(document.get("headers", []))})


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
