"""The status and the releases of a stage on AWS, read from its stack, its Lambda aliases and its bucket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from hitless.cloud.records.records import Record
from hitless.cloud.repair.facts import look
from hitless.cloud.repair.troubles import troubles
from hitless.cloud.stage.stage import Cloud, function_names, live_number
from hitless.cloud.transform.model import URL_OUTPUT
from hitless.documents import to_plain
from hitless.release.history import RolloutDocument
from hitless.release.result import Outcome
from hitless.release.status import CandidateStatus, FunctionStatus, LiveRelease, StageStatus
from hitless.service.model import Home, Service, StageSettings


def status(cloud: Cloud, *, service: str, stage: str) -> dict[str, Any]:
    """The document of `hitless aws status`: URL, live release, traffic per version, and problems."""
    stack, facts = cloud.stack.find(), look(cloud)
    observed, unfinished = facts.observed, facts.unfinished
    number = live_number(observed)
    names = function_names(cloud, observed, service=service, stage=stage)
    return {
        "stage": stage,
        "url": stack.outputs.get(URL_OUTPUT) if stack else None,
        "release": number,
        "versions": {names[observed.functions[ids]]: state.version for ids, state in observed.aliases.items()},
        "weights": {names[observed.functions[ids]]: state.weights_percent() for ids, state in observed.aliases.items()},
        "stack": {"name": cloud.stack.name, "status": stack.status if stack else None},
        "candidate": {"release": unfinished.release, "since": unfinished.created_at} if unfinished else None,
        "troubles": [one.to_json() for one in troubles(facts)],
    }


def releases(cloud: Cloud, limit: int | None = None) -> list[dict[str, Any]]:
    """All releases of the stage, or the newest, newest first; `live` marks the one that serves."""
    number = live_number(cloud.stack.observe())
    found = cloud.records.many(cloud.records.numbers()[:limit])
    return [{**to_plain(record), "live": record.release == number} for record in found]


def release(cloud: Cloud, number: int) -> dict[str, Any]:
    """One release in full, in the form that the engine uses: its record, and its rollouts with their receipts."""
    record = cloud.records.require(number)
    rollouts: Sequence[RolloutDocument] = cloud.rollouts.of(number)
    if not rollouts and record.outcome is not None:
        rollouts = [_without_receipt(record)]
    last = rollouts[0] if rollouts else None
    return {
        **to_plain(record),
        "live": number == live_number(cloud.stack.observe()),
        "verb": last.verb if last else None,
        "duration_s": last.duration_s if last else None,
        "cost": to_plain(last.receipt.cost) if last and last.receipt else None,
        "rollouts": to_plain(rollouts),
    }


def _without_receipt(record: Record) -> RolloutDocument:
    """The rollout of a release that has no receipt. Either an earlier version of hitless shipped it, or its deploy was
    cut off and the next command recorded how it ended.
    """
    return RolloutDocument(
        rollout=1,
        verb="deploy",
        strategy=record.strategy,
        outcome=record.outcome,
        reason=record.reason,
        previous_release=None,
        started_at=record.created_at,
        ended_at=record.ended_at,
        duration_s=None,
        steps=record.steps,
        was_live=record.outcome == Outcome.LIVE,
    )


def stage_status(cloud: Cloud, service: Service) -> StageStatus:
    """The stage in `hitless status`: URL, live release, candidate, and each function's version and traffic now."""
    seen = status(cloud, service=service.name, stage=service.stage)
    number, versions, weights = seen["release"], seen["versions"], seen["weights"]
    record = cloud.records.get(number) if number is not None else None
    live = LiveRelease(number, None, {}, None) if number is not None else None
    if record is not None:
        live = LiveRelease(record.release, record.commit, record.artifacts, record.ended_at or record.created_at)
    return replace(
        blank_status(service.settings),
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


def blank_status(settings: StageSettings) -> StageStatus:
    """The stage in `hitless status` before AWS was asked, or if it cannot be reached."""
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
