"""The document of a drill: what `hitless drill --json` prints and the report shows. A new column is one field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hitless.drill.timeline import WorkerSample
from hitless.drill.wire import FailureKind, FailureSample

Percentiles = Mapping[str, float | None]


class FailureRow(msgspec.Struct, frozen=True):
    """A kind of failure; every kind has a row. `excused`: lost on a gateway that the drill itself killed."""

    kind: FailureKind
    count: int
    excused: int
    first_at: str | None
    during: str | None


class MomentRow(msgspec.Struct, frozen=True):
    """Failures of a kind, by the rollout or fault during which the requests were sent."""

    during: str | None
    state: str | None
    kind: FailureKind
    count: int


class DrilledStep(msgspec.Struct, frozen=True):
    """A state of the rollout, from this second on."""

    at_s: float
    state: str
    weight_percent: float


class DrilledRelease(msgspec.Struct, frozen=True):
    """One release of the drill. `failed_meanwhile` also counts failures of the previous release."""

    release: int | None
    scenario: str
    expected: str
    outcome: str
    reason: str | None
    at_s: float
    duration_s: float
    requests: int
    failed: int
    failed_meanwhile: int
    shielded: int
    gateway: Mapping[str, Any] | None
    steps: Sequence[DrilledStep]


class FaultRow(msgspec.Struct, frozen=True):
    """A fault, and the failures of requests that were under way until the service had recovered.

    `restored`: all processes run again. `recovered_ms` is the time until then; None if the deadline came first.
    """

    fault: str
    at_s: float
    failed: int
    excused: int
    recovered_ms: float | None
    restored: bool


class LeftOut(msgspec.Struct, frozen=True):
    """A request that the probe left out, and why."""

    request: str
    reason: str


class RequestRow(msgspec.Struct, frozen=True):
    """The results of one kind of request; `statuses` are those of complete responses."""

    request: str
    failed: int
    statuses: Mapping[str, int]


class DrillDocument(msgspec.Struct, frozen=True):
    """The whole document. Rates are in requests per second."""

    target: str
    requests: int
    answered: int
    failed: int
    excused: int
    failures: Sequence[FailureRow]
    failures_by_moment: Sequence[MomentRow]
    rate_asked_per_s: int | float
    profile: str | None
    arrivals: str
    protocol: str
    rate_sent_per_s: float | None
    duration_s: float
    latency_ms: Percentiles
    latency_steady_ms: Percentiles
    latency_releasing_ms: Percentiles
    releases: Sequence[DrilledRelease]
    restored: DrilledRelease | None
    faults: Sequence[FaultRow]
    faults_left_out: Mapping[str, str]
    """Faults that no drill injects, and why; empty unless all were asked for."""
    shielded: int
    report: str
    started_at: str
    statuses: Mapping[str, int]
    unexpected_statuses: int
    by_request: Sequence[RequestRow]
    left_out: Sequence[LeftOut]
    connections: Mapping[str, int]
    sender_lag_ms: Percentiles
    samples: Sequence[FailureSample]
    workers: Sequence[WorkerSample]
    receipts: Sequence[Mapping[str, Any]]
    """The engine's receipts of this drill's rollouts: `{release, rollout}`, as `hitless releases N` has them."""
    notices: Sequence[str]
    surprises: Sequence[str]
    interrupted: bool
    command: str
