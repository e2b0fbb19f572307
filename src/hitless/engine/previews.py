"""Previews: stages that come and go with a branch, at one listener, while everything else serves on.

A preview is a stage in every way that its releases can tell: pools, rollouts, receipts, recovery. What is its own is
that its name stands in a map under a host, and that all of it goes: its entry first, so that nobody new comes, then its
releases, drained, then every trace of it. What must go is marked before anything is done, so that a daemon that dies in
the midst of it leaves the rest to the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import sqlite3
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from hitless.clock import timestamp
from hitless.engine.engine import Engine
from hitless.errors import HitlessError
from hitless.gateway.state import SHARED, GatewayState
from hitless.release.document import ReleaseDocument
from hitless.release.result import Result
from hitless.release.who import Who
from hitless.rollout.rollout import Rollout
from hitless.service.model import Approval, Function, Home, Hooks, PreviewSettings
from hitless.service.strategy import AllAtOnce
from hitless.store.previews import PreviewRecords, PreviewRow

LOOK_S = 10.0
BRANCH_VARIABLE = "HITLESS_PREVIEW"


class PreviewGateway(Protocol):
    """What previews need of the gateway besides what rollouts do with it."""

    @property
    def state(self) -> GatewayState: ...
    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]: ...


class Previews:
    """All previews of one engine."""

    def __init__(
        self,
        engine: Engine,
        records: PreviewRecords,
        gateway: PreviewGateway,
        settings: PreviewSettings,
        *,
        pools_kept: int,
    ) -> None:
        """`pools_kept`: so many of the gateway's pools are for the stages alone, whoever else wants one."""
        self.settings, self._records = settings, records
        self._engine, self._gateway, self._pools_kept = engine, gateway, pools_kept
        self._ending: dict[str, asyncio.Task[None]] = {}

    # -- verbs --------------------------------------------------------------------------------------------------------

    def refusal(self, branch: str, functions: int) -> str | None:
        """Why the branch gets no preview with so many functions; None where it may."""
        if not self._gateway.state.shared:
            return "the engine was started without a listener for previews: `hitless down`, then `hitless up`"
        there = [row for row in self._records.all() if row.ending is None]
        if len(there) >= self.settings.most and all(row.branch != branch for row in there):
            first = min(there, key=lambda row: row.expires_at)
            return (
                f"{len(there)} previews run already (max: {self.settings.most}); that of {first.branch} is the next to"
                f" go, at {first.expires_at}: delete a branch to make room"
            )
        free, kept = self._room()
        if free - kept < functions:
            return (
                f"the gateway has {free} free pools, of which {kept} are kept for the stages, and the preview needs"
                f" {functions}: delete a branch to make room"
            )
        return None

    async def ship(self, branch: str, document: ReleaseDocument, *, who: Who) -> Rollout | Result:
        """The document's code as the branch's preview, which is made where there is none; the rollout under way.

        Raises ConflictError where the preview is going.
        """
        row = self._records.of_branch(branch)
        if row is not None and row.ending is not None:
            self._begin_removal(row)
            await asyncio.wait([self._ending[row.stage]])
            row = self._records.of_branch(branch)
        if row is None:
            row = await self._begin(branch)
        self._records.renew(row.stage, from_stage=self.settings.from_stage, expires_at=self._expiry())
        return await self._engine.deploy(
            row.stage, preview_document(document, self.settings, branch), strategy=AllAtOnce(), force=False, who=who
        )

    def close(self, branch: str, why: str) -> bool:
        """The branch's preview goes, in the background; whether there was one."""
        row = self._records.of_branch(branch)
        if row is None:
            return False
        if row.ending is None:
            self._records.mark_ending(row.stage, why)
            self._engine.say(f"the preview of {branch} ends: {why}", row.stage)
        self._begin_removal(row)
        return True

    # -- what is known ------------------------------------------------------------------------------------------------

    def rows(self) -> tuple[PreviewRow, ...]:
        """Oldest first, those that are going included."""
        return self._records.all()

    def url(self, branch: str) -> str | None:
        """Where the branch's preview answers; None where it has none."""
        row = self._records.of_branch(branch)
        return self.url_of(row) if row is not None and row.ending is None else None

    def url_of(self, row: PreviewRow) -> str:
        """A URL for clients."""
        address = self._gateway.addresses.get(SHARED)
        return f"http://{row.host}:{address[1]}" if address else f"http://{row.host}"

    # -- its life -----------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """After a start, before recovery: the gateway has the stages of all previews that are recorded, and no other.

        Where there is no listener for them any more, all of them go.
        """
        rows = self._records.all()
        for row in rows:
            self._engine.add_stage(row.stage)
            if not self._gateway.state.shared and row.ending is None:
                self._records.mark_ending(row.stage, "the engine has no listener for previews any more")
        rows = self._records.all()
        if self._gateway.state.shared:
            await self._engine.pools.change_gateway(lambda state: _with_only(state, rows))

    async def watch(self) -> None:
        """For ever: previews that nobody pushed to go; what could not go yet is tried again."""
        while True:
            now = timestamp(self._engine.clock.now())
            for row in self._records.all():
                if row.ending is not None:
                    self._begin_removal(row)
                elif row.expires_at <= now:
                    self.close(row.branch, f"nobody pushed to it for {self.settings.expires_h} h")
            await self._engine.clock.sleep(LOOK_S)

    async def stop(self) -> None:
        """Leave what is going where it stands: the next start goes on with it."""
        tasks = list(self._ending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- its parts ----------------------------------------------------------------------------------------------------

    async def _begin(self, branch: str) -> PreviewRow:
        taken = {row.host.removesuffix(f".{self.settings.domain}") for row in self._records.all()}
        taken |= {row.stage.removeprefix(preview_stage("")) for row in self._records.all()}
        label = preview_label(branch, taken)
        now = timestamp(self._engine.clock.now())
        host = f"{label}.{self.settings.domain}"
        row = PreviewRow(preview_stage(label), branch, host, self.settings.from_stage, now, self._expiry())
        self._records.add(row)
        self._engine.add_stage(row.stage)
        try:
            await self._engine.pools.change_gateway(lambda state: state.with_new_stage(row.stage, row.host))
        except BaseException:
            self._records.forget(row.stage)
            self._engine.remove_stage(row.stage)
            raise
        self._engine.say(f"a preview of {branch} begins under {row.host}", row.stage)
        return row

    def _begin_removal(self, row: PreviewRow) -> None:
        if row.stage not in self._ending:
            self._engine.turn_of(row.stage).close()
            task = self._ending[row.stage] = asyncio.create_task(self._remove(row))
            task.add_done_callback(lambda _: self._ending.pop(row.stage, None))

    async def _remove(self, row: PreviewRow) -> None:
        engine, stage = self._engine, row.stage
        try:
            async with engine.turn_of(stage).lock:
                await engine.pools.change_gateway(_without_stage(stage))
                for number in sorted({pool.release for pool in engine.store.pools(stage)}):
                    await engine.pools.retire(engine.release(stage, number), drain=True)
                    await engine.pools.lingering.cut(engine.release(stage, number).key)
                await engine.parts.retention.remove_logs(stage)
            self._records.forget(stage)  # at last: whoever dies before it leaves a record of what is still to do
            engine.remove_stage(stage)
            await engine.parts.retention.prune()
        except (HitlessError, sqlite3.Error) as error:  # the gateway is away, the disk full: the next look tries again
            engine.say(f"the preview of {row.branch} could not go yet: {error}", stage)
        else:
            engine.say(f"the preview of {row.branch} is gone", stage)

    def _room(self) -> tuple[int, int]:
        """Free pools, and how many of them the stages may still come to need."""
        own = {row.stage for row in self._records.all()}
        standing = self._engine.store.pools()
        taken = {pool.gateway_pool for pool in standing}
        free = [name for name in self._gateway.state.free_pools() if name not in taken]
        return len(free), max(0, self._pools_kept - sum(pool.stage not in own for pool in standing))

    def _expiry(self) -> str:
        return timestamp(self._engine.clock.now() + timedelta(hours=self.settings.expires_h))


def preview_document(document: ReleaseDocument, settings: PreviewSettings, branch: str) -> ReleaseDocument:
    """The release as a preview runs it: few workers, all at once, nobody told, no hook that might touch what the stage
    uses. `HITLESS_PREVIEW` has the branch. Pure.
    """
    alarms = replace(document.settings.alarms, guard_s=0)
    return replace(
        document,
        functions=tuple(_preview_function(function, settings, branch) for function in document.functions),
        settings=replace(
            document.settings,
            home=Home.ENGINE,
            strategy=AllAtOnce(),
            approval=Approval.NONE,
            rehearsal=None,
            alarms=alarms,
            hooks=Hooks(),
            sticky=None,
            notify=(),
        ),
        memory_mb=None,
    )


def _preview_function(function: Function, settings: PreviewSettings, branch: str) -> Function:
    return replace(
        function,
        workers=settings.workers,
        max_workers=None,
        provisioned_concurrency=0,
        reserved_concurrency=None,
        environment=(*function.environment, (BRANCH_VARIABLE, branch)),
    )


def _with_only(state: GatewayState, rows: tuple[PreviewRow, ...]) -> GatewayState:
    """Stages with a host are those of the rows; one that goes has no release there any more."""
    staying = {(row.stage, row.host) for row in rows if row.ending is None}
    for stage in state.stages:
        if stage.host is not None and (stage.stage, stage.host) not in staying:
            state = state.without_stage(stage.stage)
    present = {stage.stage for stage in state.stages}
    for row in rows:
        if row.stage not in present:
            state = state.with_new_stage(row.stage, row.host)
    return state


def _without_stage(stage: str) -> Callable[[GatewayState], GatewayState]:
    def edit(state: GatewayState) -> GatewayState:
        with contextlib.suppress(KeyError):
            state = state.without_stage(stage)
        return state

    return edit


LONGEST_LABEL = 63
_DIGITS = 6
PREFIX = "preview_"
"""Of its stage. No name in serverless.yml holds an underscore: no stage of a service is ever mistaken for one."""


def preview_label(branch: str, taken: Container[str]) -> str:
    """`feature/Login` → `feature-login`: lower case, letters and digits of ASCII, single hyphens between.

    Where that is another branch's (`taken`), was cut to 63 characters or has nothing left of the name, six digits of
    the branch's own digest follow.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", branch.lower()).strip("-")
    if plain and len(plain) <= LONGEST_LABEL and plain not in taken:
        return plain
    digest = hashlib.sha256(branch.encode("utf-8", "surrogateescape")).hexdigest()
    cut = plain[: LONGEST_LABEL - _DIGITS - 1].rstrip("-") or "branch"
    label = f"{cut}-{digest[:_DIGITS]}"
    while label in taken:  # another branch with the same name and the same six digits, or one that is called so
        digest = hashlib.sha256(digest.encode()).hexdigest()
        label = f"{cut}-{digest[:_DIGITS]}"
    return label


def preview_stage(label: str) -> str:
    """The preview's stage."""
    return f"{PREFIX}{label}"
