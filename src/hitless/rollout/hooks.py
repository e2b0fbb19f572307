"""Hooks: functions of a service that a rollout asks before and after it moves traffic, by CodeDeploy's protocol.

Only the words that the rollout speaks with whoever runs them (`hitless.rollout.lifecycle`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hitless.rollout.release import Release


class Hook(StrEnum):
    """Which of a stage's hooks."""

    PRE_TRAFFIC = "pre_traffic"
    POST_TRAFFIC = "post_traffic"


@dataclass(frozen=True, slots=True)
class HookResult:
    """What a hook said of the candidate, and the sentence that tells it."""

    hook: Hook
    succeeded: bool
    sentence: str


class RolloutHooks(Protocol):
    """Who runs them."""

    def clear(self) -> None:
        """Forget what hooks left that were cut off with an engine before this one."""
        ...

    async def run(self, hook: Hook, function: str, release: Release) -> HookResult:
        """Ask that function of the candidate; never raises for what the function does."""
        ...
