"""The receipt of a rollout: what it cost, as the gateway counted it, and what was decided on which figures.

A rollout tells its receipt what it does while it does it (`weight`, `alarm`, `hook`, `counted`); nothing here asks or
waits. The document is bounded whatever the rollout's length, and holds all that is needed to go on after the daemon's
death: `Receipt.from_json` continues where `to_json` stopped. Where requests may be missing from the sums it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hitless.release.result import whole
from hitless.rollout.alarms import Reading, Verdict
from hitless.rollout.counted import NOTHING, Counted, PoolId

VERSION = 1
POINTS_KEPT = 240
READINGS_KEPT = 24
HOOKS_KEPT = 16
LACKS_KEPT = 8
WORST_BY = ("error_rate_percent", "p99_ms")
"""Figures of a reading whose highest value is kept."""


_RECORDED = frozenset(
    ("version", "complete", "missing", "candidate", "live", "weights", "points", "alarms", "hooks", "resume")
)


class Side(StrEnum):
    """Whose requests."""

    CANDIDATE = "candidate"
    LIVE = "live"


@dataclass(slots=True)
class Receipt:
    """Of one rollout. `facts` are what is known before the first step (release, commit, who, why …).

    Instants are the timestamps of `hitless.clock.timestamp`.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    _base: dict[Side, Counted] = field(default_factory=dict)
    _now: dict[Side, Counted] = field(default_factory=dict)
    _weights: list[dict[str, Any]] = field(default_factory=list)
    _points: list[dict[str, Any]] = field(default_factory=list)
    _read_at: str = ""
    _skip: int = 0
    _every: int = 1
    _verdicts: dict[str, int] = field(default_factory=dict)
    _readings: list[dict[str, Any]] = field(default_factory=list)
    _worst: dict[str, dict[str, Any]] = field(default_factory=dict)
    _hooks: list[dict[str, Any]] = field(default_factory=list)
    _lacks: list[str] = field(default_factory=list)

    # -- what the rollout tells ----------------------------------------------------------------------------------------

    def begin(self, live: Counted | None, candidate: Counted = NOTHING) -> None:
        """What either release's pools had counted before this rollout (a candidate's, where it was live a moment ago);
        once, before the first step. `live` is None for a stage's first release.
        """
        if live is not None:
            self._base[Side.LIVE] = self._now[Side.LIVE] = live
        if candidate.pools:
            self._base[Side.CANDIDATE] = self._now[Side.CANDIDATE] = candidate

    def begin_where_ended(self, other: Receipt) -> None:
        """Begin with the last reading of the rollout that this one takes back: no request falls between the two."""
        self.begin(other._now.get(Side.CANDIDATE), other._now.get(Side.LIVE, NOTHING))

    @property
    def has_begun(self) -> bool:
        """Whether it knows what was counted before."""
        return bool(self._base)

    def weight(self, percent: float, at: str) -> None:
        """The share of requests that is asked for from now on. Tell the counts just before."""
        if not self._weights or self._weights[-1]["asked_percent"] != whole(percent):
            self._weights.append({"at": at, "asked_percent": whole(percent), **self._sums()})

    def counted(self, candidate: Counted, live: Counted | None, at: str) -> None:
        """One reading of the gateway: all that the present pools of either release have had. `live` is None for a
        stage's first release.
        """
        for side, counted in ((Side.CANDIDATE, candidate), (Side.LIVE, live)):
            if counted is not None:
                self._now[side] = _latest(self._now.get(side, NOTHING), counted)
        self._read_at = at
        self._skip = (self._skip + 1) % self._every
        if self._skip == 0:
            self._points.append({"at": at, **self._sums()})
        if len(self._points) > POINTS_KEPT:
            del self._points[1::2]
            self._every *= 2

    def alarm(self, reading: Reading, at: str) -> None:
        """One look at the alarms. Kept are the first, the last, each change of the verdict and the worst."""
        verdict = str(reading.verdict)
        self._verdicts[verdict] = self._verdicts.get(verdict, 0) + 1
        entry = {"at": at, "verdict": verdict, "sentence": reading.sentence, "figures": dict(reading.figures)}
        for name in WORST_BY:
            value = reading.figures.get(name)
            if value is not None and reading.verdict is not Verdict.NOT_ENOUGH_DATA:
                known = self._worst.get(name)
                if known is None or value > known["figures"][name]:
                    self._worst[name] = entry
        kept = self._readings
        if len(kept) > 1 and kept[-1]["verdict"] == kept[-2]["verdict"] == verdict:
            kept[-1] = entry  # the last of its kind so far; the first of it stays
        else:
            kept.append(entry)
        if len(kept) > READINGS_KEPT:
            del kept[READINGS_KEPT // 2]

    def hook(self, name: str, status: str, at: str) -> None:
        """How a hook ended: its own status, or what was made of its silence."""
        if len(self._hooks) < HOOKS_KEPT:
            self._hooks.append({"at": at, "hook": name, "status": status})

    def lacks(self, sentence: str) -> None:
        """Say what may be missing from the sums."""
        if sentence not in self._lacks and len(self._lacks) < LACKS_KEPT:
            self._lacks.append(sentence)

    # -- what it says --------------------------------------------------------------------------------------------------

    def of(self, side: Side) -> Counted:
        """Requests of one side since the rollout's beginning; a shielded one is the candidate's alone."""
        since = self._now.get(side, NOTHING).minus(self._base.get(side, NOTHING))
        return since if side is Side.CANDIDATE else since.without(self.of(Side.CANDIDATE))

    def to_json(self) -> dict[str, Any]:
        """The whole document; keys are told in docs/receipts.md."""
        candidate, live = self.of(Side.CANDIDATE), self.of(Side.LIVE)
        restarts = candidate.restarts + live.restarts
        lacks = list(self._lacks)
        if restarts:
            lacks.append("HAProxy was started again: what it had counted after it was last asked is not in these sums")
        return {
            "version": VERSION,
            **self.facts,
            "complete": not lacks,
            "missing": lacks,
            "candidate": candidate.to_json(),
            "live": live.to_json() if Side.LIVE in self._now else None,
            "weights": self._intervals(),
            "points": list(self._points),
            "alarms": {"verdicts": dict(self._verdicts), "readings": list(self._readings), "worst": dict(self._worst)},
            "hooks": list(self._hooks),
            "resume": {
                "base": {str(side): counted.to_json(pools=True) for side, counted in self._base.items()},
                "now": {str(side): counted.to_json(pools=True) for side, counted in self._now.items()},
                "weights": list(self._weights),
                "read_at": self._read_at,
                "every": self._every,
                "lacks": list(self._lacks),
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Receipt:
        """Go on with what an earlier daemon recorded."""
        resume, alarms = document["resume"], document["alarms"]
        return cls(
            facts={key: value for key, value in document.items() if key not in _RECORDED},
            _base={Side(side): Counted.from_json(counted) for side, counted in resume["base"].items()},
            _now={Side(side): Counted.from_json(counted) for side, counted in resume["now"].items()},
            _weights=list(resume["weights"]),
            _points=list(document["points"]),
            _read_at=resume["read_at"],
            _every=int(resume["every"]),
            _verdicts=dict(alarms["verdicts"]),
            _readings=list(alarms["readings"]),
            _worst=dict(alarms["worst"]),
            _hooks=list(document["hooks"]),
            _lacks=list(resume["lacks"]),
        )

    def _sums(self) -> dict[str, dict[str, int]]:
        return {str(side): self.of(side).sums() for side in self._now}

    def _intervals(self) -> list[dict[str, Any]]:
        """Between two weights: what was asked, and what the candidate really got."""
        ends = [*self._weights[1:], {"at": self._read_at, **self._sums()}]
        return [_interval(start, end) for start, end in zip(self._weights, ends, strict=False)]


def _interval(start: Mapping[str, Any], end: Mapping[str, Any]) -> dict[str, Any]:
    sides = {
        str(side): {name: value - start.get(side, {}).get(name, 0) for name, value in end.get(side, {}).items()}
        for side in Side
    }
    mine = sides[Side.CANDIDATE].get("requests", 0)
    requests = mine + sides[Side.LIVE].get("requests", 0)
    return {
        "from": start["at"],
        "to": end["at"],
        "asked_percent": start["asked_percent"],
        "got_percent": round(100 * mine / requests, 2) if requests else None,
        **sides,
    }


def _latest(before: Counted, now: Counted) -> Counted:
    """The newest reading of each pool; of one that is gone, its last."""
    pools: dict[PoolId, Counted] = {**before.pools, **now.pools}
    return Counted.of(pools)
