"""A rollout that has ended, told for `hitless aws releases N`: who, what, why, and which versions count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hitless.cloud.records.receipt import Rollout
from hitless.cloud.records.records import Record
from hitless.cloud.records.result import Steps
from hitless.cloud.stage.settling import Cloud
from hitless.cloud.transform.desired import functions_of
from hitless.cloud.transform.functions import is_wrapped
from hitless.cloud.transform.model import API_ID, STAGE_ID, Template, of_type, references
from hitless.documents import convert, to_plain
from hitless.release.result import Outcome, SideCounts
from hitless.service.model import AlarmSettings


@dataclass(frozen=True, slots=True)
class Told:
    """`home`: Lambda's name → version that was live before. `hooks`: how each ended that CodeDeploy asked."""

    verb: str
    outcome: Outcome
    reason: str | None
    strategy: str
    previous: int | None
    began: datetime
    steps: Steps
    home: Mapping[str, str]
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    hooks: Sequence[Mapping[str, Any]] = ()
    why: str | None = None
    """Why it was asked for, where that is not the release's own message."""


def tell(
    cloud: Cloud, record: Record, wanted: Template, told: Told, *, keep: bool = True
) -> tuple[SideCounts, SideCounts | None]:
    """Keep it with its receipt, if it is this process's to keep; return what is counted of both sides by now.

    Counted as the candidate's are the versions that were new to the traffic; a function that did not change is served
    by the live release.
    """
    moved = {name: v for name, v in record.versions.items() if told.home.get(record.functions[name]) != v}
    rollout = Rollout(
        began=told.began,
        ended=cloud.clock.now(),
        names=record.functions,
        candidate=moved,
        live={name: told.home[theirs] for name, theirs in record.functions.items() if theirs in told.home},
        weights=told.steps.weights(),
        alarms=told.alarms,
        hooks=told.hooks,
        facts={
            "release": record.release,
            "stage": record.stage,
            "who": dict(cloud.who),
            "why": told.why or record.message,
            "commit": record.commit,
            "artifacts": dict(record.artifacts),
            "promoted_from": dict(record.promoted_from) if record.promoted_from else None,
        },
        unwrapped=_unwrapped(wanted, record),
    )
    document = {
        "verb": told.verb,
        "strategy": told.strategy,
        "outcome": str(told.outcome),
        "reason": told.reason,
        "previous_release": told.previous,
        "duration_s": told.steps.duration_s,
        "steps": to_plain(told.steps.steps),
    }
    entry = cloud.rollouts.add(record.release, document, rollout, _api(wanted), keep=keep)
    candidate, live = (entry[side] and convert(entry[side], SideCounts, side) for side in ("candidate", "live"))
    return candidate, live


def _unwrapped(wanted: Template, record: Record) -> list[str]:
    """Functions that answer requests and whose answers the wrapper does not see."""
    names = {theirs: ours for ours, theirs in record.functions.items()}
    resources = wanted["Resources"]
    called = {name for one in of_type(resources, "AWS::ApiGateway::Method").values() for name in references(one)}
    return sorted(
        names[theirs]
        for ids, theirs in functions_of(wanted).items()
        if ids.alias in called and theirs in names and not is_wrapped(resources[ids.function])
    )


def _api(wanted: Template) -> tuple[str, str] | None:
    """The name and the stage by which API Gateway counts."""
    api, stage = wanted["Resources"].get(API_ID), wanted["Resources"].get(STAGE_ID)
    if api is None or stage is None:
        return None
    return str(api["Properties"]["Name"]), str(stage["Properties"]["StageName"])
