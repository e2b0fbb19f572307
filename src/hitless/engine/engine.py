"""The engine's verbs: deploy, rollback, abort, status, stop. Each stage runs one rollout at a time, and the newest
wins.

The daemon may die at any instant without affecting requests. It recovers its state from the state file and from the
running processes (`hitless.engine.recovery`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from hitless.clock import Clock, timestamp
from hitless.documents import to_plain
from hitless.engine.releases import missing, previous_live, releases
from hitless.engine.retention import Retention
from hitless.engine.turn import EngineParts, Turn
from hitless.errors import ConflictError, UsageError
from hitless.release.document import ReleaseDocument
from hitless.release.history import ReleaseSummary
from hitless.release.result import Outcome, Result
from hitless.release.who import NOBODY, Who
from hitless.rollout.hooks import LifecycleHooks
from hitless.rollout.pools import ReleasePools
from hitless.rollout.release import Release, release_of
from hitless.rollout.rollout import Rollout
from hitless.service.strategy import AllAtOnce, Strategy
from hitless.service.value import did_you_mean
from hitless.store.secrets import SecretKey, SecretStore, outdated, with_current
from hitless.store.store import Store, StoreError

log = logging.getLogger(__name__)


class Engine:
    """The verbs on the store, the pools and the gateway. Built by `hitless.cli.wire`."""

    def __init__(
        self,
        *,
        service: str,
        stages: tuple[str, ...],
        store: Store,
        pools: ReleasePools,
        retention: Retention,
        hooks: LifecycleHooks,
        clock: Clock,
        secrets: SecretStore,
    ) -> None:
        self.service, self.stages = service, stages
        self.store, self.pools, self.clock, self.secrets = store, pools, clock, secrets
        self.parts = EngineParts(store, pools, retention, hooks, clock, self.say, lambda *it: self.warn(*it))
        self.turns = {stage: Turn(stage, self.parts) for stage in stages}
        """One for each of `stages` and for each preview."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self.warn: Callable[[str, str | None], None] = self.say
        """Records an event of a stage, and notifies those in its `notify`."""
        self.admit: Callable[[str, ReleaseDocument], Awaitable[None]] | None = None
        """Adds the stage of a deploy to an engine of several services."""
        self.event_happened = asyncio.Condition()

    async def deploy(
        self,
        stage: str,
        document: ReleaseDocument,
        *,
        strategy: Strategy | None,
        force: bool,
        verb: str = "deploy",
        who: Who = NOBODY,
    ) -> Rollout | Result:
        """Register a release, with the present values of the stage's secrets, and start its rollout; an `unchanged`
        result if it equals the live release.
        """
        if self.admit is not None:
            await self.admit(stage, document)
        turn = self._open_turn(stage)
        if self.admit is None and document.service != self.service:
            raise ConflictError(
                f"this engine runs the service {self.service}, not {document.service}",
                hint="choose another data folder with --data-dir; `hitless up --shared HOST:PORT` starts an engine for"
                " several services",
            )
        document = with_current(document, self.secrets.sealed(stage))
        _check_decrypts(document)
        live = self.store.live(stage)
        if not force and turn.current is None and live:
            row = self.store.release(stage, live[0])
            if row and row.fingerprint == document.fingerprint() and self.pools.runs(Release(stage, live[0], document)):
                return _unchanged(stage, live[0], strategy or document.settings.strategy)
        number = self.store.add_release(stage, document, timestamp(self.clock.now()))
        release = Release(stage, number, document)
        return self._start_rollout(release, verb, strategy or document.settings.strategy, who=who, why=document.message)

    async def rollback(
        self, stage: str, number: int | None, *, who: Who = NOBODY, why: str | None = None
    ) -> Rollout | Result:
        """Ship an earlier release all at once: the given one, or else the previously live one."""
        turn = self._open_turn(stage)
        live = self.store.live(stage)
        target = number if number is not None else self._previous_live(stage)
        if live and live[0] == target and turn.current is None:
            return _unchanged(stage, target, AllAtOnce())
        release = self.release(stage, target)
        _check_decrypts(release.document)
        if older := sorted(outdated(release.document, self.secrets.sealed(stage))):
            self.say(
                f"release {target} has earlier values of {', '.join(older)}; a deploy ships the present ones", stage
            )
        return self._start_rollout(release, "rollback", AllAtOnce(), who=who, why=why)

    def abort(self, stage: str) -> Rollout:
        """Stop the stage's rollout at once, at weight 0. If only a guard is left, end it and keep the release."""
        turn = self.turn_of(stage)
        if turn.current is not None:
            turn.current.stop(Outcome.ABORTED, "aborted by hand")
            return turn.current
        if turn.guard is not None:
            turn.guard.end()
            self.say(f"the guard of release {turn.guard.rollout.candidate.number} was ended by hand", stage)
            return turn.guard.rollout
        raise ConflictError(f"{stage} has no rollout in progress", hint="`hitless status` shows what runs")

    def resume_guard(self, rollout: Rollout, left_s: float) -> None:
        """Continue a guard that the last daemon's death cut off."""
        turn = self.turn_of(rollout.candidate.stage)
        self._run_in_background(turn.resume_guard(rollout, left_s, lambda: self._stopping))

    def add_stage(self, stage: str, *, listed: bool = False) -> None:
        """Add a stage unless it exists; a `listed` one to `stages`. The caller adds it at the gateway."""
        self.turns.setdefault(stage, Turn(stage, self.parts))
        self.stages = tuple(dict.fromkeys((*self.stages, stage))) if listed else self.stages

    async def withdraw(self, stage: str) -> None:
        """Remove a stage with a host from the gateway, then drain and stop its releases. No rollout starts any more."""
        turn = self.turn_of(stage)
        turn.close()
        async with turn.lock:
            if self.pools.gateway_stage(stage).host is not None:
                await self.pools.change_gateway(lambda state: state.without_stage(stage))
            for number in sorted({pool.release for pool in self.store.pools(stage)}):
                await self.pools.retire(self.release(stage, number), drain=True)
                await self.pools.lingering.remove_now(self.release(stage, number).key)

    def remove_stage(self, stage: str) -> None:
        """Remove a stage with a host, after all its releases are gone."""
        del self.turns[stage]
        self.stages = tuple(one for one in self.stages if one != stage)

    async def follow(
        self, rollout: Rollout | Result, *, glance: Callable[[Rollout], object] | None = None, every_s: float = 1.0
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield each step of the rollout as it is taken, then `{"result": …}`. With `glance`, yield also
        `{"progress": …}`, its value for the rollout, after each `every_s` without a step.
        """
        if isinstance(rollout, Result):
            yield {"result": to_plain(rollout)}
            return
        seen = 0
        while True:
            async with rollout.progress:
                with suppress(TimeoutError):
                    async with asyncio.timeout(every_s if glance else None):
                        while len(rollout.steps) == seen and rollout.result is None:
                            await rollout.progress.wait()
                steps, result = rollout.steps[seen:], rollout.result
                seen += len(steps)
            for step in steps:
                yield {"step": to_plain(step), "release": rollout.candidate.number}
            if result is not None:
                yield {"result": to_plain(result)}
                return
            if glance is not None and not steps:
                yield {"progress": to_plain(glance(rollout)), "release": rollout.candidate.number}

    async def end_rollouts(self, *, force: bool = False) -> None:
        """Stop the rollouts that can still be stopped and wait for all to end; no rollout starts after this.

        With `force`, rollouts are abandoned without waiting for requests: the next start of the engine ends them.
        """
        self._stopping = True
        if force:
            for task in self._tasks:
                task.cancel()
        for stage, turn in self.turns.items():
            if turn.guard is not None:
                turn.guard.end()
            if turn.current is not None:
                try:
                    self.abort(stage)
                except ConflictError:
                    continue
        await self.wait_until_idle()
        await self.pools.lingering.remove_now()

    async def wait_until_idle(self) -> None:
        """Wait until every rollout has ended, including its cleanup."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def releases(self, stage: str) -> list[ReleaseSummary]:
        """The stage's kept releases, newest first. Raises UsageError if there is no such stage."""
        listed = releases(self.store, stage)
        if not listed:
            self.turn_of(stage)
        return listed

    def release(self, stage: str, number: int) -> Release:
        """A kept release. Raises UsageError if there is none with that number."""
        row = self.store.release(stage, number)
        if row is None:
            raise missing(self.store, stage, number)
        return release_of(row)

    def live_release(self, stage: str) -> Release | None:
        return self.parts.live_release(stage)

    def say(self, sentence: str, stage: str | None = None) -> None:
        """Record an event: one sentence that says what the engine did and why. Followers of the events get it at once.

        It is also a line of the daemon's log, and only there if the state file cannot be written (a full disk).
        """
        log.info("engine event", {"sentence": sentence, "stage": stage})
        try:
            self.store.add_event(sentence, stage, timestamp(self.clock.now()))
        except StoreError as error:
            log.error("cannot record an event", {"sentence": sentence, "stage": stage, "error": str(error)})
            return
        self._run_in_background(self._notify_followers())

    async def _notify_followers(self) -> None:
        async with self.event_happened:
            self.event_happened.notify_all()

    def turn_of(self, stage: str) -> Turn:
        """The stage's turn. UsageError if the engine has no such stage."""
        if stage in self.turns:
            return self.turns[stage]
        raise UsageError(
            f"this engine has no stage {stage} (it has {', '.join(self.stages)})",
            hint=did_you_mean(stage, self.stages)
            or "add it to serverless.yml, then run `hitless down` and `hitless up`: listeners are bound at start",
        )

    def _open_turn(self, stage: str) -> Turn:
        if self._stopping:
            raise ConflictError("the engine is stopping", hint="run `hitless up` when it has stopped")
        turn = self.turn_of(stage)
        if turn.closed:
            raise ConflictError(f"stage {stage} is being removed", hint="push to its branch again when it is gone")
        self.store.check()
        return turn

    def _previous_live(self, stage: str) -> int:
        if (number := previous_live(self.store, stage)) is not None:
            return number
        raise ConflictError(
            f"{stage} has no release that was live before this one", hint="`hitless releases` lists all releases"
        )

    def _start_rollout(self, release: Release, verb: str, strategy: Strategy, *, who: Who, why: str | None) -> Rollout:
        """Register the rollout and run it when the stage's current one has ended or was stopped."""
        turn = self.turn_of(release.stage)
        rollout = self.parts.begin(release, verb, strategy, who=who, why=why)
        ticket = turn.request(release)
        self._run_in_background(turn.run_turn(ticket, rollout, lambda: self._stopping))
        return rollout

    def _run_in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check_decrypts(document: ReleaseDocument) -> None:
    """Raise MachineError, before anything changes, if this machine cannot decrypt the release's secrets."""
    for function in document.functions:
        SecretKey.of(os.environ).environment(function.environment)


def _unchanged(stage: str, release: int, strategy: Strategy) -> Result:
    return Result(stage, release, Outcome.UNCHANGED, str(strategy), duration_s=0.0)
