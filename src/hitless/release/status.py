"""The document of `hitless status`, as the command line's contract shows it. A stage on AWS has the same form.

Keys that only one home knows are left out by the other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from hitless.release.result import LastReading, SideCounts
from hitless.service.model import Home


class EngineStatus(msgspec.Struct, frozen=True):
    """The processes of an engine, by pid. `isolation_missing`: measures that do not isolate its handlers.
    `compiled`: its workers run compiled modules.
    """

    pid: int
    version: str
    started_at: str
    gateway_pid: int | None
    guardian_pid: int | None
    root_zygote_pid: int | None
    spooler_pid: int | None = None
    isolation_missing: Sequence[str] = ()
    compiled: bool | UnsetType = UNSET


class LiveRelease(msgspec.Struct, frozen=True):
    """The release that serves a stage. `artifacts`: function → digest."""

    release: int
    commit: str | None
    artifacts: Mapping[str, str]
    since: str | None


class LatencyStatus(msgspec.Struct, frozen=True):
    """Percentiles in ms."""

    p50: float
    p99: float


class CandidateStatus(msgspec.Struct, frozen=True):
    """The release that a rollout ships now, beside the live one.

    `left_s`: until its last bake ends. `live` counts the live release during the rollout; a `latency_ms` is that since
    the release's workers started. `alarms` is the last reading.
    """

    release: int
    state: str
    weight_percent: int | float
    since: str | UnsetType = UNSET
    requests: int | UnsetType = UNSET
    failed: int | UnsetType = UNSET
    shielded: int | UnsetType = UNSET
    left_s: float | UnsetType = UNSET
    latency_ms: LatencyStatus | UnsetType = UNSET
    live: SideCounts | UnsetType = UNSET
    live_latency_ms: LatencyStatus | UnsetType = UNSET
    alarms: LastReading | UnsetType = UNSET


class GuardStatus(msgspec.Struct, frozen=True):
    """The release that is kept ready while alarms guard the live one."""

    previous: int
    left_s: float


class WorkerStatus(msgspec.Struct, frozen=True):
    pid: int
    busy: bool


class GatewayFigures(msgspec.Struct, frozen=True):
    """A pool at the gateway: requests that failed for clients, requests at a worker, requests waiting for one, and
    responses that clients are still reading.
    """

    failed: int
    in_hand: int
    queued: int
    reading: int


class ScalingStatus(msgspec.Struct, frozen=True):
    """The limits and the present number of a function's workers. `reason` is None for a fixed number."""

    min: int
    max: int
    now: int
    target_percent: int
    reason: str | None


class FunctionStatus(msgspec.Struct, frozen=True):
    """One function of the live release. `weights`: version → its share in per cent."""

    name: str
    release: int | None
    version: str | UnsetType = UNSET
    weights: Mapping[str, int | float] | UnsetType = UNSET
    zygote_pid: int | None = None
    workers: tuple[WorkerStatus, ...] = ()
    restarts: int | None = None
    requests: int | None = None
    failed: int | None = None
    gateway: GatewayFigures | None = None
    latency_ms: LatencyStatus | None = None
    scaling: ScalingStatus | None = None


class PreviewStatus(msgspec.Struct, frozen=True):
    """What makes a stage a preview. `ending` is the reason why it is being removed."""

    branch: str
    from_stage: str
    created_at: str
    expires_at: str
    ending: str | None


class StageStatus(msgspec.Struct, frozen=True):
    """One stage. `troubles`: what `hitless aws repair` would fix; `error` is why nothing is known about the stage."""

    stage: str
    home: Home | UnsetType = UNSET
    url: str | None = None
    strategy: str | None = None
    live: LiveRelease | None = None
    candidate: CandidateStatus | None = None
    guard: GuardStatus | None = None
    requests_per_s: float | UnsetType = UNSET
    functions: tuple[FunctionStatus, ...] = ()
    versions: Mapping[str, str] | UnsetType = UNSET
    weights: Mapping[str, Mapping[str, int | float]] | UnsetType = UNSET
    troubles: Sequence[Mapping[str, str | None]] | UnsetType = UNSET
    preview: PreviewStatus | UnsetType = UNSET
    error: str | UnsetType = UNSET


class Status(msgspec.Struct, frozen=True):
    """All stages of a service, with the engine that serves them."""

    service: str
    engine: EngineStatus | None
    stages: tuple[StageStatus, ...]
    previews: tuple[StageStatus, ...] = ()
