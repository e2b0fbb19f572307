"""The release under way ends: its shifts are stopped, and traffic is where it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hitless.aws.states import resting
from hitless.clock import timestamp
from hitless.cloud.stage.settling import Cloud, live_number, take_shield_down
from hitless.errors import ConflictError
from hitless.release.result import Outcome


def abort(cloud: Cloud, *, stage: str) -> dict[str, Any]:
    """Stop the release that is under way. ConflictError where none is.

    A deploy that is in an update of the stack sees that it was aborted before it goes on: an update itself is not cut.
    """
    observed, record, stack = cloud.stack.observe(), cloud.records.unfinished(), cloud.stack.find()
    if record is not None:
        reason = "it was aborted by `hitless aws abort`"
        cloud.records.save(
            replace(record, outcome=str(Outcome.ABORTED), reason=reason, ended_at=timestamp(cloud.clock.now()))
        )
    stopped = cloud.shift.stop_groups(ids.base for ids in observed.functions)
    cloud.shift.settle(observed.functions.values())
    take_shield_down(cloud, observed)
    if record is None and not stopped:
        raise ConflictError(f"no release is under way in {stage}", hint="`hitless aws status` shows what runs")
    number = live_number(observed)
    live = cloud.records.get(number) if number is not None else None
    if live is not None and (stack is None or resting(stack.status)):  # else the update moves them itself
        at = set(observed.functions.values())
        cloud.shift.point({live.functions[n]: v for n, v in live.versions.items() if live.functions[n] in at})
    return {
        "stage": stage,
        "release": record.release if record else None,
        "outcome": str(Outcome.ABORTED),
        "live": number,
        "stopped": stopped,
    }
