"""Previews: stages that are made and removed with a branch, at one shared listener.

On an engine that several services share, that listener is the services' own, and a preview's host is a claim like a
stage's (`hitless.engine.sites`).

Releases, rollouts, receipts and recovery treat a preview as any other stage. In addition, its name is in a map under
its host, and it is removed as a whole: first its map entry, so that no new requests arrive, then its drained releases,
then its records. The removal is recorded before it begins, so the next daemon can finish it.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import re
from collections.abc import Callable, Container
from datetime import timedelta

from msgspec.structs import replace

from hitless.clock import timestamp
from hitless.engine.engine import Engine
from hitless.engine.folders import site_name
from hitless.engine.sites import Sites, url_of
from hitless.errors import ConflictError, HitlessError
from hitless.gateway.gateway import Gateway
from hitless.gateway.state import GatewayState, StageState
from hitless.release.document import ReleaseDocument
from hitless.release.result import Result
from hitless.release.who import Who
from hitless.rollout.rollout import Rollout
from hitless.service.model import AccessLog, Approval, Function, Home, Hooks, PreviewSettings, StageSettings
from hitless.service.strategy import AllAtOnce
from hitless.store.previews import PreviewRecords, PreviewRow

EXPIRY_CHECK_S = 10.0
BRANCH_VARIABLE = "HITLESS_PREVIEW"


class Previews:
    """All previews of one engine; `of` has those of one of its services."""

    def __init__(
        self,
        engine: Engine,
        gateway: Gateway,
        settings_of: Callable[[str], PreviewSettings | None],
        *,
        pools_kept: int = 0,
        sites: Sites | None = None,
    ) -> None:
        """`settings_of` takes a service, "" for the engine's only one; None if it has no previews. `pools_kept`: pools
        of the gateway that are reserved for the other stages. `sites`: on an engine that several services share.
        """
        self._engine, self._gateway, self._settings_of = engine, gateway, settings_of
        self._pools_kept, self._sites = pools_kept, sites
        self._service, self._records = "", PreviewRecords(engine.store)
        self._ending: dict[str, asyncio.Task[None]] = {}

    def of(self, service: str) -> Previews:
        """The previews of one service of the engine."""
        one = copy.copy(self)
        one._service, one._records = service, PreviewRecords(self._engine.store, service)
        return one

    @property
    def settings(self) -> PreviewSettings | None:
        """None if the service has no previews."""
        return self._settings_of(self._service)

    def refusal(self, branch: str, functions: int, base: StageSettings | None = None) -> str | None:
        """Why the branch cannot have a preview with this many functions; None if it can. `base`: of `from_stage`."""
        if not self._gateway.state.shared:
            return "the engine was started without a listener for previews: run `hitless down`, then `hitless up`"
        settings = self._in_force
        there = [row for row in self._records.all() if row.ending is None]
        if len(there) >= settings.most and all(row.branch != branch for row in there):
            first = min(there, key=lambda row: row.expires_at)
            return (
                f"{len(there)} previews are already running (max: {settings.most}); the next to expire is that of"
                f" {first.branch}, at {first.expires_at}: delete a branch to make room"
            )
        if why := self._domain_fault(_domain(settings, base)):
            return why
        free, kept = self._room()
        if free - kept < functions:
            return (
                f"the gateway has {free} free pools, {kept} of them reserved for other stages, and the preview needs"
                f" {functions}: delete a branch to make room"
            )
        return None

    def _domain_fault(self, domain: str) -> str | None:
        """Why no host below the domain is possible, on an engine that several services share."""
        if self._sites is None:
            return None
        if not domain:
            return f"{self._in_force.from_stage} has no domain, so previews need one: custom.hitless.previews.domain"
        if len(domain) > LONGEST_DOMAIN:
            return f"the domain {domain} has more than {LONGEST_DOMAIN} characters: set custom.hitless.previews.domain"
        if holder := self._sites.holder_of(domain, self._service):
            return f"the previews' domain {domain} belongs to {holder}: change custom.hitless.previews.domain"
        return None

    async def ship(
        self, branch: str, document: ReleaseDocument, *, who: Who, base: StageSettings | None = None
    ) -> Rollout | Result:
        """Ship the document's code as the branch's preview, and make the preview if there is none. Returns the rollout.

        `base`: the settings in force of `from_stage`, because the branch's own file does not choose the certificate.
        Raises ConflictError if the preview is being removed, and HitlessError if it is refused; a new one goes again.
        """
        settings = self._in_force
        row = self._records.of_branch(branch)
        if row is not None and row.ending is not None:
            self._begin_removal(row)
            await asyncio.wait([self._ending[row.stage]])
            row = self._records.of_branch(branch)
        is_new, row = row is None, row or await self._begin(branch, _domain(settings, base))
        self._records.renew(row.stage, from_stage=settings.from_stage, expires_at=self._expiry())
        made = preview_document(document, settings, branch)
        if self._sites is not None:
            tls = await self._sites.tls_of_preview(row.stage, row.host, base.tls if base else None)
            made = replace(made, settings=replace(made.settings, domain=row.host, base_path="", tls=tls))
        try:
            return await self._engine.deploy(row.stage, made, strategy=AllAtOnce(), force=False, who=who)
        except HitlessError as error:
            if is_new:
                self._close(row, f"its first release was refused: {error.message}")
            raise

    def close(self, branch: str, why: str) -> bool:
        """Remove the branch's preview in the background; False if there is none."""
        row = self._records.of_branch(branch)
        if row is not None:
            self._close(row, why)
        return row is not None

    def _close(self, row: PreviewRow, why: str) -> None:
        if row.ending is None:
            self._records.mark_ending(row.stage, why)
            self._engine.say(f"removing the preview of {row.branch}: {why}", row.stage)
        self._begin_removal(row)

    async def end_all(self, why: str) -> None:
        """Remove the previews of the service. `watch` tries again what cannot be removed yet."""
        rows = self._records.all()
        for row in rows:
            self._close(row, why)
        await asyncio.gather(*(self._ending[row.stage] for row in rows))

    def rows(self) -> tuple[PreviewRow, ...]:
        """All previews, oldest first, including those being removed."""
        return self._records.all()

    def url(self, branch: str) -> str | None:
        """The URL of the branch's preview; None if it has none."""
        row = self._records.of_branch(branch)
        return self.url_of(row) if row is not None and row.ending is None else None

    def without_certificate(self, branch: str) -> str | None:
        """Why the branch's preview has no certificate although its stage has one."""
        row = self._records.of_branch(branch)
        found = self._sites.bare.get(row.stage) if self._sites is not None and row is not None else None
        return found and "; ".join(found)

    def url_of(self, row: PreviewRow) -> str:
        hsts_s = self._engine.pools.gateway_stage(row.stage).hsts_s
        return url_of(self._gateway, StageState(row.stage, host=row.host, hsts_s=hsts_s))

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
            underscores = 1 if self._sites is None else 2
            await self._engine.pools.change_gateway(lambda state: _with_only(state, rows, underscores))

    async def watch(self) -> None:
        """Remove expired previews and those of services that have none any more; retry removals. Runs forever."""
        while True:
            now = timestamp(self._engine.clock.now())
            for row in self._records.all():
                if row.ending is not None:
                    self._begin_removal(row)
                elif (settings := self._settings_of(row.service)) is None:
                    self._close(row, "its service has no previews any more")
                elif row.expires_at <= now:
                    self._close(row, f"no push for {settings.expires_h} h")
            await self._engine.clock.sleep(EXPIRY_CHECK_S)

    async def stop(self) -> None:
        """Abandon removals in progress; the next start continues them."""
        tasks = list(self._ending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _in_force(self) -> PreviewSettings:
        if (settings := self.settings) is None:
            raise ConflictError("the service has no previews any more", hint="`hitless pipeline url` reads them")
        return settings

    async def _begin(self, branch: str, domain: str) -> PreviewRow:
        prefix = site_name(self._service, PREFIX) if self._service else PREFIX
        hosts = self._records.hosts() | {stage.host or "" for stage in self._gateway.state.stages}
        taken = {host.removesuffix(f".{domain}") for host in hosts}
        taken |= {row.stage.removeprefix(prefix) for row in self._records.all()}
        label = preview_label(branch, taken, min(LONGEST_LABEL, LONGEST_NAME - len(prefix)))
        now, host = timestamp(self._engine.clock.now()), f"{label}.{domain}"
        row = PreviewRow(f"{prefix}{label}", branch, host, self._in_force.from_stage, now, self._expiry())
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
            if self._sites is not None:
                await self._sites.forget_preview(stage, row.host)
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
        standing = self._engine.store.pools()
        taken = {pool.gateway_pool for pool in standing}
        free = [name for name in self._gateway.state.free_pools() if name not in taken]
        others = [(pool.stage, pool.function) for pool in standing if pool.stage in self._engine.stages]
        kept = self._pools_kept if self._sites is None else 3 * len(set(others))
        return len(free), max(0, kept - len(others))

    def _expiry(self) -> str:
        return timestamp(self._engine.clock.now() + timedelta(hours=self._in_force.expires_h))


def _domain(settings: PreviewSettings, base: StageSettings | None) -> str:
    return settings.domain or (f"preview.{base.domain}" if base and base.domain else "")


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


def _with_only(state: GatewayState, rows: tuple[PreviewRow, ...], underscores: int) -> GatewayState:
    """The state in which the previews are exactly those of the rows; one being removed has no release. The names of
    previews have that many underscores.
    """
    staying = {(row.stage, row.host) for row in rows if row.ending is None}
    for stage in state.stages:
        if stage.stage.count("_") == underscores and (stage.stage, stage.host) not in staying:
            state = state.without_stage(stage.stage)
    present = {name for stage in state.stages for name in (stage.stage, stage.host)}
    for row in rows:
        if not {row.stage, row.host} & present:  # a stage may have taken the host of one that is being removed
            state = state.with_new_stage(row.stage, row.host)
    return state


LONGEST_LABEL, LONGEST_DOMAIN, LONGEST_NAME = 63, 180, 128
"""Characters of a label of DNS, of a domain that leaves room for one, and of a stage's name at the gateway."""
_DIGITS = 6
PREFIX = "preview_"
"""Prefix of a preview's stage, after its service if several services share the engine: `users_preview_fix`. No name in
serverless.yml may have an underscore, so no other stage looks like one.
"""


def preview_label(branch: str, taken: Container[str], longest: int = LONGEST_LABEL) -> str:
    """A DNS label for a branch: `feature/Login` → `feature-login` (lower case, ASCII letters and digits, single
    hyphens). Pure.

    If the label is taken, too long or empty, six digits of the branch's digest are added.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", branch.lower()).strip("-")
    if plain and len(plain) <= longest and plain not in taken:
        return plain
    digest = hashlib.sha256(branch.encode("utf-8", "surrogateescape")).hexdigest()
    cut = plain[: longest - _DIGITS - 1].rstrip("-") or "branch"
    label = f"{cut}-{digest[:_DIGITS]}"
    while label in taken:  # another branch has the same label and digits
        digest = hashlib.sha256(digest.encode()).hexdigest()
        label = f"{cut}-{digest[:_DIGITS]}"
    return label
