"""A stage on AWS as an entry of `hitless status`. What nobody counts there is null."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from hitless.cloud.stage.settling import Cloud
from hitless.cloud.status import status
from hitless.release.status import CandidateStatus, FunctionStatus, LiveRelease, StageStatus
from hitless.service.model import Home, Service, StageSettings


def standing(cloud: Cloud, service: Service) -> StageStatus:
    """The entry: URL, live release, candidate, each function's version and the share of each version now."""
    seen = status(cloud, service=service.name, stage=service.stage)
    number, versions, weights = seen["release"], seen["versions"], seen["weights"]
    record = cloud.records.get(number) if number is not None else None
    live = LiveRelease(number, None, {}, None) if number is not None else None
    if record is not None:
        live = LiveRelease(record.release, record.commit, record.artifacts, record.ended_at or record.created_at)
    return replace(
        blank(service.settings),
        url=seen["url"],
        strategy=record.strategy if record else None,
        live=live,
        candidate=_candidate(seen),
        functions=tuple(
            FunctionStatus(name, number, version=versions[name], weights=weights[name]) for name in sorted(versions)
        ),
        versions=versions,
        weights=weights,
        troubles=seen["troubles"],
    )


def blank(settings: StageSettings) -> StageStatus:
    """The entry of a stage on AWS of which nothing is known."""
    return StageStatus(settings.name, Home.AWS, versions={}, weights={}, troubles=())


def _candidate(seen: dict[str, Any]) -> CandidateStatus | None:
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
    state = "baking" if weight else "preparing"
    return CandidateStatus(candidate["release"], state, weight, since=candidate["since"])
