"""The steps of a release on AWS."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hitless.clock import Clock, timestamp
from hitless.release.result import Step


class Steps:
    """The steps of a release, each said when it begins. A step that only repeats the last one is left out."""

    def __init__(self, clock: Clock, say: Any) -> None:
        self._clock, self._say = clock, say
        self._began = clock.monotonic()
        self.steps: list[Step] = []

    def add(self, state: str, weight_percent: float, note: str = "") -> None:
        """Record that the release is now there."""
        if self.steps and (self.steps[-1].state, self.steps[-1].weight_percent) == (state, weight_percent):
            return
        self.steps.append(Step(timestamp(self._clock.now()), state, weight_percent))
        self._say(f"{state} at {weight_percent} %{': ' + note if note else ''}")

    def weights(self) -> list[tuple[datetime, float]]:
        """When the candidate's share became what, as it was seen; the last step is the end, and no weight."""
        found: list[tuple[datetime, float]] = []
        for step in self.steps:
            if step.state != "ended" and (not found or found[-1][1] != step.weight_percent):
                found.append((datetime.fromisoformat(step.at), step.weight_percent))
        return found

    @property
    def duration_s(self) -> float:
        return round(self._clock.monotonic() - self._began, 3)
