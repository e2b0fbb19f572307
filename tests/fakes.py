"""Fakes for the parts that a rollout drives. They keep a diary, so that tests can check the order of steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hitless.errors import CandidateFailedError, EngineError
from hitless.gateway.counts import Counts
from hitless.gateway.observe import BackendLoad
from hitless.gateway.state import GatewayState
from hitless.release.document import ArtifactRef, ReleaseDocument
from hitless.rollout.hooks import Hook, HookResult
from hitless.rollout.release import Release
from hitless.service.event_sources import Route
from hitless.service.model import AlarmSettings, Function, Hooks, SmokeRequest, StageSettings
from hitless.service.strategy import Strategy, parse
from hitless.worker.spec import PoolSpec
from hitless.workers.invoke import InvokeResult
from hitless.workers.stats import EMPTY, Histogram, Pulse, WorkerStats
from tests.support import release_keys

UNGUARDED = AlarmSettings(1, 20, guard_s=0)

STILL = Pulse(0, 0, 0, 0, 0)


class FakeClock:
    """Time that passes only when a task sleeps; while it stands still, sleepers wait."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.runs = asyncio.Event()
        self.runs.set()

    def monotonic(self) -> float:
        return self.elapsed_s

    def now(self) -> datetime:
        return datetime(2026, 11, 24, 6, 0, tzinfo=UTC) + timedelta(seconds=self.elapsed_s)

    async def sleep(self, seconds: float) -> None:
        await self.runs.wait()
        self.elapsed_s += seconds
        await asyncio.sleep(0)


@dataclass(frozen=True)
class FakeWorker:
    index: int
    name: str
    socket: Path


@dataclass(frozen=True)
class FakePool:
    """The part of a pool that ReleasePools reads."""

    key: str
    spec: PoolSpec
    generation: int
    workers: tuple[FakeWorker, ...]
    latency: list[Histogram] = field(default_factory=lambda: [EMPTY])
    pulses: dict[str, Pulse] = field(default_factory=dict)
    """What each pool's workers are at, by key."""
    woken_to: int | None = None
    """What its zygote made of it meanwhile."""
    zygote_pid: int | None = None

    large_responses: int = 1

    def at_rest(self, worker: FakeWorker) -> int | None:
        return 1

    def pulse(self) -> Pulse:
        return self.pulses.get(self.key, STILL)

    def stats(self) -> FakeStats:
        return FakeStats(self.latency[-1])

    @property
    def size(self) -> int:
        return len(self.workers) if self.woken_to is None else self.woken_to

    @property
    def door(self) -> FakeWorker:
        return FakeWorker(0, "z0", Path(f"/run/{self.key}/w0.sock"))

    @classmethod
    def of(cls, spec: PoolSpec, size: int, pulses: dict[str, Pulse]) -> FakePool:
        workers = (FakeWorker(index, f"w{index}", Path(f"/run/{spec.key}/w{index}.sock")) for index in range(size))
        return cls(spec.key, spec, 1, tuple(workers), pulses=pulses)


@dataclass(frozen=True)
class FakeStats:
    latency: Histogram
    workers: tuple[WorkerStats, ...] = ()
    restarts: int = 0
    requests: int = 0
    failed: int = 0


@dataclass
class FakeHooks:
    """Hooks that succeed, unless `fails` names one, or `hold` keeps it waiting."""

    diary: list[str]
    fails: set[str] = field(default_factory=set)
    hold: asyncio.Event | None = None

    def clear(self) -> None:
        self.diary.append("hooks are cleared")

    async def run(self, hook: Hook, function: str, release: Release) -> HookResult:
        self.diary.append(f"{hook} r{release.number}")
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.diary.append(f"{hook} r{release.number} is cut off")
            raise
        return HookResult(hook not in self.fails, f"{hook} hook {function} answered")

    async def invoke(self, release: Release, function: Function, event: Any) -> InvokeResult:
        self.diary.append(f"invoked {function.name} r{release.number} {event}")
        if function.name in self.fails:
            raise OSError("no process")
        return InvokeResult(None, False, "", 100.0)


@dataclass
class FakeWorkers:
    """Pools that are ready at once, unless `fails` names their function or `hold` keeps them waiting."""

    diary: list[str]
    fails: dict[str, str] = field(default_factory=dict)
    hold: asyncio.Event | None = None
    refuses_to_scale: bool = False
    pulses: dict[str, Pulse] = field(default_factory=dict)
    running: dict[str, FakePool] = field(default_factory=dict)

    async def start_pool(self, spec: PoolSpec, *, size: int, ready_timeout_s: float) -> FakePool:
        self.diary.append(f"start {spec.function} r{spec.release}")
        if self.hold is not None:
            await self.hold.wait()
        if reason := self.fails.get(spec.function):
            raise CandidateFailedError(reason)
        self.running[spec.key] = FakePool.of(spec, size, self.pulses)
        return self.running[spec.key]

    async def scale(self, key: str, size: int, *, ready_timeout_s: float) -> FakePool:
        self.diary.append(f"scale {key} to {size}")
        if self.refuses_to_scale:
            raise EngineError("no process to be had")
        self.running[key] = FakePool.of(self.running[key].spec, size, self.pulses)
        return self.running[key]

    def present(self, key: str) -> FakePool:
        return self.running[key]

    async def stop_pool(self, key: str, *, grace_s: float) -> None:
        self.diary.append(f"stop {key}")
        self.running.pop(key, None)


@dataclass
class FakeGateway:
    """Holds the applied state, and records each change in the diary."""

    diary: list[str]
    state: GatewayState
    requests: dict[str, Counts] = field(default_factory=dict)
    on_apply: Callable[[GatewayState], None] | None = None
    draining: asyncio.Event | None = None
    load: dict[str, BackendLoad] = field(default_factory=dict)
    reading: dict[str, int] = field(default_factory=dict)
    read: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once clients have read what a release that goes had sent them."""
    addresses: dict[str, tuple[str, int]] = field(default_factory=dict)
    certificates: dict[str, bool] = field(default_factory=dict)
    """Hosts with a certificate."""

    async def certify(self, name: str, pem: str | None) -> bool:
        self.certificates.pop(name, None)
        if pem is not None:
            self.certificates[name] = True
        return True

    async def apply(self, new: GatewayState, *, drain_s: float | None = None) -> None:
        before = {stage.stage: stage for stage in self.state.stages}
        for stage in new.stages:
            if stage != before.pop(stage.stage, None):
                self.diary.append(f"{stage.stage} → {stage.live}:{stage.candidate}:{stage.weight}")
        self.diary += [f"{name} is no stage any more" for name in before]
        for pool in new.pools:
            if pool.servers != self.state.pool(pool.name).servers:
                self.diary.append(f"{pool.name} has {len(pool.servers)} servers")
        if new.routes != self.state.routes:
            self.diary.append(f"routes of {', '.join(sorted(release_keys(new))) or 'nothing'}")
        self.state = new
        if self.on_apply:
            self.on_apply(new)

    async def drained(self, pool: str, *, deadline_s: float, readers: bool) -> bool:
        self.diary.append(f"{'wait for readers of' if readers else 'drain'} {pool}")
        if readers:
            await self.read.wait()
        return True

    async def servers_drained(self, pool: str, keys: Collection[str], *, deadline_s: float) -> bool:
        self.diary.append(f"drain {len(keys)} servers of {pool}")
        if self.draining is not None:
            await self.draining.wait()
        return True

    async def loads(self, pools: Collection[str]) -> Mapping[str, BackendLoad]:
        return {pool: self.load.get(pool, BackendLoad(0, 0)) for pool in pools}

    async def counts(self, pools: Collection[str] | None = None) -> Mapping[str, Counts]:
        await asyncio.sleep(0)  # as HAProxy's response, it lets other tasks run
        return self.requests


class FakeArtifacts:
    """Artifacts that always exist."""

    def __init__(self) -> None:
        self.pruned: list[set[str]] = []

    def unpack(self, digest: str) -> Path:
        return Path("/artifacts") / digest

    def prune(self, keep: set[str]) -> list[str]:
        self.pruned.append(keep)
        return []


def release_document(
    *functions: str,
    strategy: str = "AllAtOnce",
    digest: str = "sha256:1",
    smoke: tuple[SmokeRequest, ...] = (),
    service: str = "shop",
    alarms: AlarmSettings = UNGUARDED,
    hooks: Hooks = Hooks(),  # noqa: B008 - frozen
    message: str | None = None,
) -> ReleaseDocument:
    """A release of a service with one route a function, which takes no GET, so that a deploy sends no first request."""
    names = functions or ("api",)
    kind: Strategy = parse(strategy)
    return ReleaseDocument(
        service=service,
        region="eu-central-1",
        functions=tuple(Function(name, f"handlers.{name}", routes=(Route("POST", f"/{name}"),)) for name in names),
        artifacts={name: ArtifactRef(digest, False) for name in names},
        settings=StageSettings("dev", "dev", strategy=kind, smoke=smoke, alarms=alarms, hooks=hooks),
        message=message,
    )
