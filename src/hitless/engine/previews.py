"""Previews: stages that are made and removed with a branch, at one shared listener.

Releases, rollouts, receipts and recovery treat a preview as any other stage. In addition, its name is in a map under
its host, and it is removed as a whole: first its map entry, so that no new requests arrive, then its drained releases,
then its records. The removal is recorded before it begins, so the next daemon can finish it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Container
from dataclasses import replace
from datetime import timedelta

from hitless.clock import timestamp
from hitless.engine.engine import Engine
from hitless.errors import HitlessError
from hitless.gateway.gateway import Gateway
from hitless.gateway.state import SHARED, GatewayState
from hitless.release.document import ReleaseDocument
from hitless.release.result import Result
from hitless.release.who import Who
from hitless.rollout.rollout import Rollout
from hitless.service.model import AccessLog, Approval, Function, Home, Hooks, PreviewSettings
from hitless.service.strategy import AllAtOnce
from hitless.store.previews import PreviewRecords, PreviewRow

EXPIRY_CHECK_S = 10.0
BRANCH_VARIABLE = "HITLESS_PREVIEW"


class Previews:
    """All previews of one engine."""

    def __init__(
        self,
        engine: Engine,
        records: PreviewRecords,
        gateway: Gateway,
        settings: PreviewSettings,
        *,
        pools_kept: int,
    ) -> None:
        """`pools_kept`: pools of the gateway that are reserved for the other stages."""
        self.settings, self._records = settings, records
        self._engine, self._gateway, self._pools_kept = engine, gateway, pools_kept
        self._ending: dict[str, asyncio.Task[None]] = {}

    def refusal(self, branch: str, functions: int) -> str | None:
        """Why the branch cannot have a preview with this many functions; None if it can."""
        if not self._gateway.state.shared:
            return "the engine was started without a listener for previews: run `hitless down`, then `hitless up`"
        there = [row for row in self._records.all() if row.ending is None]
        if len(there) >= self.settings.most and all(row.branch != branch for row in there):
            first = min(there, key=lambda row: row.expires_at)
            return (
                f"{len(there)} previews are already running (max: {self.settings.most}); the next to expire is that of"
                f" {first.branch}, at {first.expires_at}: delete a branch to make room"
            )
        free, kept = self._room()
        if free - kept < functions:
            return (
                f"the gateway has {free} free pools, {kept} of them reserved for other stages, and the preview needs"
                f" {functions}: delete a branch to make room"
            )
        return None

    async def ship(self, branch: str, document: ReleaseDocument, *, who: Who) -> Rollout | Result:
        """Ship the document's code as the branch's preview, and make the preview if there is none. Returns the rollout.

        Raises ConflictError if the preview is being removed.
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
        """Remove the branch's preview in the background; False if there is none."""
        row = self._records.of_branch(branch)
        if row is None:
            return False
        if row.ending is None:
            self._records.mark_ending(row.stage, why)
            self._engine.say(f"removing the preview of {branch}: {why}", row.stage)
        self._begin_removal(row)
        return True

    def rows(self) -> tuple[PreviewRow, ...]:
        """All previews, oldest first, including those being removed."""
        return self._records.all()

    def url(self, branch: str) -> str | None:
        """The URL of the branch's preview; None if it has none."""
        row = self._records.of_branch(branch)
        return self.url_of(row) if row is not None and row.ending is None else None

    def url_of(self, row: PreviewRow) -> str:
        address = self._gateway.addresses.get(SHARED)
        return f"http://{row.host}:{address[1]}" if address else f"http://{row.host}"

    async def restore(self) -> None:
        """Give the gateway exactly the recorded previews, after a start and before recovery.

        If the engine has no listener for previews any more, all of them are removed.
        """
        rows = self._records.all()
        for row in rows:
            self._engine.add_stage(row.stage)
            if not self._gateway.state.shared and row.ending is None:
                self._records.mark_ending(row.stage, "the engine no longer has a listener for previews")
        rows = self._records.all()
        if self._gateway.state.shared:
            await self._engine.pools.change_gateway(lambda state: _with_only(state, rows))

    async def watch(self) -> None:
        """Remove expired previews, and retry removals that failed. Runs forever."""
        while True:
            now = timestamp(self._engine.clock.now())
            for row in self._records.all():
                if row.ending is not None:
                    self._begin_removal(row)
                elif row.expires_at <= now:
                    self.close(row.branch, f"no push for {self.settings.expires_h} h")
            await self._engine.clock.sleep(EXPIRY_CHECK_S)

    async def stop(self) -> None:
        """Abandon removals in progress; the next start continues them."""
        tasks = list(self._ending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self, branch: str) -> PreviewRow:
        taken = {row.host.removesuffix(f".{self.settings.domain}") for row in self._records.all()}
        taken |= {row.stage.removeprefix(PREFIX) for row in self._records.all()}
        label = preview_label(branch, taken)
        now = timestamp(self._engine.clock.now())
        host = f"{label}.{self.settings.domain}"
        row = PreviewRow(f"{PREFIX}{label}", branch, host, self.settings.from_stage, now, self._expiry())
        self._records.add(row)
        self._engine.add_stage(row.stage)
        try:
            await self._engine.pools.change_gateway(lambda state: state.with_new_stage(row.stage, row.host))
        except BaseException:
            self._records.forget(row.stage)
            self._engine.remove_stage(row.stage)
            raise
        self._engine.say(f"made a preview of {branch} at {row.host}", row.stage)
        return row

    def _begin_removal(self, row: PreviewRow) -> None:
        if row.stage not in self._ending:
            self._engine.turn_of(row.stage).close()
            task = self._ending[row.stage] = asyncio.create_task(self._remove(row))
            task.add_done_callback(lambda _: self._ending.pop(row.stage, None))

    async def _remove(self, row: PreviewRow) -> None:
        engine, stage = self._engine, row.stage
        try:
            await engine.withdraw(stage)
            await engine.parts.retention.remove_logs(stage)
            self._records.forget(stage)  # last, so that a daemon that dies before leaves a record
            engine.remove_stage(stage)
            await engine.parts.retention.prune()
        except HitlessError as error:  # gateway away or disk full: `watch` tries again
            engine.say(f"cannot remove the preview of {row.branch} yet: {error}", stage)
        else:
            engine.say(f"removed the preview of {row.branch}", stage)

    def _room(self) -> tuple[int, int]:
        """Free pools, and how many of them are reserved for the other stages."""
        own = {row.stage for row in self._records.all()}
        standing = self._engine.store.pools()
        taken = {pool.gateway_pool for pool in standing}
        free = [name for name in self._gateway.state.free_pools() if name not in taken]
        return len(free), max(0, self._pools_kept - sum(pool.stage not in own for pool in standing))

    def _expiry(self) -> str:
        return timestamp(self._engine.clock.now() + timedelta(hours=self.settings.expires_h))


def preview_document(document: ReleaseDocument, settings: PreviewSettings, branch: str) -> ReleaseDocument:
    """The release as a preview runs it: few workers, all at once, without notifications, and without hooks, because
    they may touch the stage's resources. `HITLESS_PREVIEW` has the branch. Pure.
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
            access_log=AccessLog.OFF,
            notify=(),
        ),
        memory_mb=None,
    )


def _preview_function(function: Function, settings: PreviewSettings, branch: str) -> Function:
    return replace(
        function,
        workers=settings.workers,
        max_workers=None,
        schedules=(),
        provisioned_concurrency=0,
        reserved_concurrency=None,
        environment=(*function.environment, (BRANCH_VARIABLE, branch)),
    )


def _with_only(state: GatewayState, rows: tuple[PreviewRow, ...]) -> GatewayState:
    """The state in which the stages with a host are exactly those of the rows; one being removed has no release."""
    staying = {(row.stage, row.host) for row in rows if row.ending is None}
    for stage in state.stages:
        if stage.host is not None and (stage.stage, stage.host) not in staying:
            state = state.without_stage(stage.stage)
    present = {stage.stage for stage in state.stages}
    for row in rows:
        if row.stage not in present:
            state = state.with_new_stage(row.stage, row.host)
    return state


LONGEST_LABEL = 63
_DIGITS = 6
PREFIX = "preview_"
"""Prefix of a preview's stage. No name in serverless.yml may have an underscore, so no other stage looks like one."""


def preview_label(branch: str, taken: Container[str]) -> str:
    """A DNS label for a branch: `feature/Login` → `feature-login` (lower case, ASCII letters and digits, single
    hyphens). Pure.

    If the label is taken, too long or empty, six digits of the branch's digest are added.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", branch.lower()).strip("-")
    if plain and len(plain) <= LONGEST_LABEL and plain not in taken:
        return plain
    digest = hashlib.sha256(branch.encode("utf-8", "surrogateescape")).hexdigest()
    cut = plain[: LONGEST_LABEL - _DIGITS - 1].rstrip("-") or "branch"
    label = f"{cut}-{digest[:_DIGITS]}"
    while label in taken:  # another branch has the same label and digits
        digest = hashlib.sha256(digest.encode()).hexdigest()
        label = f"{cut}-{digest[:_DIGITS]}"
    return label
