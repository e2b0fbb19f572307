"""Builds the report of a rollout (its receipt): requests and failures as counted by the gateway, and alarm readings.

The rollout reports each weight, alarm reading, hook and count (`add_weight`, `add_reading`, `add_hook`, `add_counts`).
The document's size is limited, however long the rollout lasts. If the daemon dies, the next one continues the receipt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec

from hitless.release.receipt import (
    READINGS_KEPT,
    AlarmHistory,
    AlarmReading,
    HookEnd,
    Interval,
    ReceiptDocument,
    ReceiptFacts,
    ReceiptPoint,
    Resume,
    Side,
    Sums,
    Weight,
)
from hitless.release.result import whole
from hitless.rollout.alarms import Reading, Verdict
from hitless.rollout.counted import Counted

_NONE = Counted.of({})
POINTS_KEPT = 240
HOOKS_KEPT = 16
MISSING_KEPT = 8
WORST_BY = ("error_rate_percent", "p99_ms")
"""The figures for which the reading with the highest value is kept."""


@dataclass(slots=True)
class Receipt:
    facts: ReceiptFacts = field(default_factory=ReceiptFacts)
    _base: dict[Side, Counted] = field(default_factory=dict)
    _now: dict[Side, Counted] = field(default_factory=dict)
    _weights: list[Weight] = field(default_factory=list)
    _points: list[ReceiptPoint] = field(default_factory=list)
    _read_at: str = ""
    _skip: int = 0
    _every: int = 1
    _verdicts: dict[str, int] = field(default_factory=dict)
    _readings: list[AlarmReading] = field(default_factory=list)
    _worst: dict[str, AlarmReading] = field(default_factory=dict)
    _hooks: list[HookEnd] = field(default_factory=list)
    _missing: list[str] = field(default_factory=list)

    def begin(self, live: Counted | None, candidate: Counted = _NONE) -> None:
        """Set the counts of both releases before the first step. `live` is None for a stage's first release.

        The candidate has counts if it was live a moment ago. Does nothing if the receipt already has counts.
        """
        if self._base:
            return
        if live is not None:
            self._base[Side.LIVE] = self._now[Side.LIVE] = live
        if candidate.pools:
            self._base[Side.CANDIDATE] = self._now[Side.CANDIDATE] = candidate

    def begin_after(self, other: Receipt) -> None:
        """Begin with the last counts of the rollout that this one rolls back. Its candidate is live now."""
        self.begin(other._now.get(Side.CANDIDATE), other._now.get(Side.LIVE, _NONE))

    def add_weight(self, percent: float, at: str) -> None:
        """Record the share that is requested from now on. Call `add_counts` immediately before."""
        if not self._weights or self._weights[-1].asked_percent != whole(percent):
            self._weights.append(Weight(at, whole(percent), **self._sums()))

    def add_counts(self, candidate: Counted, live: Counted | None, at: str) -> None:
        """Add the counts of both releases' current pools. `live` is None for a stage's first release."""
        for side, counted in ((Side.CANDIDATE, candidate), (Side.LIVE, live)):
            if counted is not None:
                # the newest counts of each pool; the last counts of a pool that is gone
                self._now[side] = Counted.of({**self._now.get(side, _NONE).pools, **counted.pools})
        self._read_at = at
        self._skip = (self._skip + 1) % self._every
        if self._skip == 0:  # keeps every n-th point; n doubles each time the list is full
            self._points.append(ReceiptPoint(at, **self._sums()))
        if len(self._points) > POINTS_KEPT:
            del self._points[1::2]
            self._every *= 2

    def add_reading(self, reading: Reading, at: str) -> None:
        """Add an alarm reading. Keeps the first, the last, each change of verdict, and the worst."""
        verdict = str(reading.verdict)
        self._verdicts[verdict] = self._verdicts.get(verdict, 0) + 1
        entry = AlarmReading(at, verdict, reading.sentence, dict(reading.figures))
        for name in WORST_BY:
            value = reading.figures.get(name)
            if value is not None and reading.verdict is not Verdict.NOT_ENOUGH_DATA:
                known = self._worst.get(name)
                if known is None or value > (known.figures[name] or 0):
                    self._worst[name] = entry
        kept = self._readings
        if len(kept) > 1 and kept[-1].verdict == kept[-2].verdict == verdict:
            kept[-1] = entry  # of readings with the same verdict in a row, the first and the latest are kept
        else:
            kept.append(entry)
        if len(kept) > READINGS_KEPT:
            del kept[READINGS_KEPT // 2]

    def add_hook(self, name: str, status: str, at: str) -> None:
        if len(self._hooks) < HOOKS_KEPT:
            self._hooks.append(HookEnd(at, name, status))

    def add_missing(self, sentence: str) -> None:
        """Add a note that says what may be missing from the sums."""
        if sentence not in self._missing and len(self._missing) < MISSING_KEPT:
            self._missing.append(sentence)

    def counts_of(self, side: Side) -> Counted:
        """Requests since the start. A shielded one (the live release responded instead) counts for the candidate."""
        since = self._now.get(side, _NONE).minus(self._base.get(side, _NONE))
        return since if side is Side.CANDIDATE else since.without(self.counts_of(Side.CANDIDATE))

    def document(self) -> ReceiptDocument:
        candidate, live = self.counts_of(Side.CANDIDATE), self.counts_of(Side.LIVE)
        missing = list(self._missing)
        if candidate.total.restarts + live.total.restarts:
            missing.append("HAProxy was restarted: its counts since its last reading are not in these sums")
        return ReceiptDocument(
            **msgspec.structs.asdict(self.facts),
            complete=not missing,
            missing=tuple(missing),
            candidate=candidate.by_function(),
            live=live.by_function() if Side.LIVE in self._now else None,
            weights=self._intervals(),
            points=tuple(self._points),
            alarms=AlarmHistory(dict(self._verdicts), tuple(self._readings), dict(self._worst)),
            hooks=tuple(self._hooks),
            resume=Resume(
                base={side: counted.saved() for side, counted in self._base.items()},
                now={side: counted.saved() for side, counted in self._now.items()},
                weights=tuple(self._weights),
                read_at=self._read_at,
                every=self._every,
                missing=tuple(self._missing),
            ),
        )

    @classmethod
    def resumed(cls, document: ReceiptDocument) -> Self:
        """Restore a receipt that an earlier daemon saved, so that it can be continued."""
        resume, alarms = document.resume, document.alarms
        assert isinstance(resume, Resume)
        return cls(
            facts=ReceiptFacts(**{name: getattr(document, name) for name in ReceiptFacts.__struct_fields__}),
            _base={side: Counted.restored(saved) for side, saved in resume.base.items()},
            _now={side: Counted.restored(saved) for side, saved in resume.now.items()},
            _weights=list(resume.weights),
            _points=list(document.points),
            _read_at=resume.read_at,
            _every=resume.every,
            _verdicts=dict(alarms.verdicts),
            _readings=list(alarms.readings),
            _worst=dict(alarms.worst),
            _hooks=list(document.hooks),
            _missing=list(resume.missing),
        )

    def _sums(self) -> dict[str, Sums]:
        return {str(side): self.counts_of(side).sums() for side in self._now}

    def _intervals(self) -> tuple[Interval, ...]:
        """Between two weights: the requested share, and the share that the candidate really received."""
        ends: Sequence[Weight | ReceiptPoint] = [*self._weights[1:], ReceiptPoint(self._read_at, **self._sums())]
        return tuple(_interval(start, end) for start, end in zip(self._weights, ends, strict=False))


def _interval(start: Weight, end: Weight | ReceiptPoint) -> Interval:
    candidate, live = _between(start.candidate, end.candidate), _between(start.live, end.live)
    candidate_requests = candidate.get("requests", 0)
    requests = candidate_requests + live.get("requests", 0)
    got_percent = round(100 * candidate_requests / requests, 2) if requests else None
    return Interval(start.at, end.at, start.asked_percent, got_percent, candidate, live)


def _between(start: Sums | msgspec.UnsetType, end: Sums | msgspec.UnsetType) -> Mapping[str, int]:
    """The counts between two sums; empty if that release was never counted."""
    if isinstance(end, msgspec.UnsetType):
        return {}
    since = msgspec.structs.asdict(start) if isinstance(start, Sums) else {}
    return {name: value - since.get(name, 0) for name, value in msgspec.structs.asdict(end).items()}
