"""A stage on AWS as an entry of `hitless status`, in the form of an engine's. What nobody counts is null."""

from __future__ import annotations

from typing import Any

from hitless.cloud.stage.settling import Cloud
from hitless.cloud.status import status
from hitless.service.model import Home, Service, StageSettings


def standing(cloud: Cloud, service: Service) -> dict[str, Any]:
    """The entry: URL, live release, candidate, each function's version and the share of each version now."""
    seen = status(cloud, service=service.name, stage=service.stage)
    number = seen["release"]
    record = cloud.records.get(number) if number is not None else None
    live = None
    if number is not None:
        live = {
            "release": number,
            "commit": record.commit if record else None,
            "artifacts": dict(record.artifacts) if record else {},
            "since": (record.ended_at or record.created_at) if record else None,
        }
    return {
        **blank(service.settings),
        "url": seen["url"],
        "strategy": record.strategy if record else None,
        "live": live,
        "candidate": _candidate(seen),
        "functions": [_function(name, number, seen) for name in sorted(seen["versions"])],
        "versions": seen["versions"],
        "weights": seen["weights"],
        "troubles": seen["troubles"],
    }


def blank(settings: StageSettings) -> dict[str, Any]:
    """The entry of a stage on AWS of which nothing is known."""
    nothing: dict[str, Any] = dict.fromkeys(("url", "strategy", "live", "candidate", "guard"))
    empty: dict[str, Any] = {"functions": [], "versions": {}, "weights": {}, "troubles": []}
    return {"stage": settings.name, "home": str(Home.AWS), **nothing, **empty}


def _candidate(seen: dict[str, Any]) -> dict[str, Any] | None:
    candidate = seen["candidate"]
    if candidate is None:
        return None
    shifted = [
        percent
        for name, weights in seen["weights"].items()
        for version, percent in weights.items()
        if version != seen["versions"][name]
    ]
    weight = max(shifted, default=0)
    return {**candidate, "state": "baking" if weight else "preparing", "weight_percent": weight}


def _function(name: str, release: int | None, seen: dict[str, Any]) -> dict[str, Any]:
    unknown = dict.fromkeys(("zygote_pid", "restarts", "requests", "failed", "gateway", "latency_ms", "scaling"))
    return {
        "name": name,
        "release": release,
        "version": seen["versions"][name],
        "weights": seen["weights"][name],
        "workers": [],
        **unknown,
    }
