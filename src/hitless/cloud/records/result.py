"""How a release on AWS ended, in the shape of the command line's contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from hitless.clock import Clock, timestamp
from hitless.release.result import Outcome


class Steps:
    """The steps of a release, each said when it begins. A step that only repeats the last one is left out."""

    def __init__(self, clock: Clock, say: Any) -> None:
        self._clock, self._say = clock, say
        self._began = clock.monotonic()
        self.steps: list[dict[str, Any]] = []

    def add(self, state: str, weight_percent: float, note: str = "") -> None:
        """Record that the release is now there."""
        if self.steps and (self.steps[-1]["state"], self.steps[-1]["weight_percent"]) == (state, weight_percent):
            return
        self.steps.append({"at": timestamp(self._clock.now()), "state": state, "weight_percent": weight_percent})
        self._say(f"{state} at {weight_percent} %{': ' + note if note else ''}")

    def weights(self) -> list[tuple[datetime, float]]:
        """When the candidate's share became what, as it was seen; the last step is the end, and no weight."""
        found: list[tuple[datetime, float]] = []
        for step in self.steps:
            if step["state"] != "ended" and (not found or found[-1][1] != step["weight_percent"]):
                found.append((datetime.fromisoformat(step["at"]), step["weight_percent"]))
        return found

    @property
    def duration_s(self) -> float:
        return round(self._clock.monotonic() - self._began, 3)


@dataclass(frozen=True, slots=True)
class Result:
    """A release's end. `candidate` and `live` count each side's requests: `requests`, `failed` (those that a client saw
    fail), `shielded`; None where nothing was counted.
    """

    stage: str
    release: int
    outcome: Outcome
    strategy: str
    reason: str | None = None
    duration_s: float = 0
    steps: tuple[Mapping[str, Any], ...] = ()
    candidate: Mapping[str, int] | None = None
    live: Mapping[str, int] | None = None
    url: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "outcome": str(self.outcome), "steps": [dict(step) for step in self.steps]}
