"""Handles webhooks: fetches the branch, pushes it to the engine, delivers its runs' commit statuses and reports.

The next start of the receiver delivers the statuses that could not be delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hitless.api.client import EngineClient
from hitless.api.comments import comment_of, subject_of
from hitless.api.requests import ClosePreviewRequest, ForkRequest, PushRequest
from hitless.errors import HitlessError, UsageError
from hitless.forge.forge import BranchUpdate, Forge, StatusRefused
from hitless.forge.statuses import CommitStatus, PostedComments, UndeliveredStatuses
from hitless.pipeline.orders import NOTHING, RefUpdate
from hitless.pipeline.repository import Repository

LOOKS_BETWEEN_TRIES = 12
"""Before a status that the forge did not take is sent again."""
UNENDED = ("queued", "running", "waiting_for_approval")

EngineRequest = PushRequest | ForkRequest
EngineCall = tuple[str, EngineRequest]
"""A path of the engine's API and the body for it."""


@dataclass(slots=True)
class Deliveries:
    """The webhooks of one receiver; `remote` is the git URL to fetch from."""

    client: EngineClient
    repository: Repository
    forge: Forge
    remote: str
    undelivered: UndeliveredStatuses
    comments: PostedComments
    say: Callable[[str], None]
    service: str = ""
    """The service, on an engine that several services share."""
    look_s: float = 5.0
    """Time between looks at a run that waits for a person."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    watchers: set[asyncio.Task[None]] = field(default_factory=set)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    may_comment: bool = True
    """False after the forge refused a comment: the token has no right to write any."""

    def begin(self, update: BranchUpdate) -> None:
        """Follow a webhook to the end of its run, in the background."""
        _begin(self._follow(update), self.tasks)

    def resume(self) -> None:
        """Deliver the statuses that an earlier receiver could not deliver."""
        for run, repository in self.undelivered.all().items():
            _begin(self._watch(repository, run), self.watchers)

    async def _follow(self, update: BranchUpdate) -> None:
        call: EngineCall | None = None
        try:
            async with self.turn:  # a branch is fetched, judged and moved without another in between
                call = await (self._take_fork(update) if update.fork else self._take(update))
            if call is not None:
                await self._run(update, *call)
        except HitlessError as error:
            self.say(f"{update.branch}: {error.message}")
            if call is not None and update.fork:  # a repeated webhook asks again
                with suppress(HitlessError):
                    await self.repository.keep_fork(update.fork.number, None)

    async def _take(self, update: BranchUpdate) -> EngineCall | None:
        """Move the branch here to the remote's commit, unless the engine refuses it; the push to start, if any."""
        old = await self.repository.head_of(update.branch)
        ref = f"refs/heads/{update.branch}"
        new = None if update.closed else await self.repository.fetch(self.remote, update.ref)
        if update.closed and update.head:
            why = f"pull request {update.branch.removeprefix('pull/')} was closed"
            await self._ask("/pipeline/previews/close", ClosePreviewRequest(update.head, why))
        if new == old:
            return None
        # If the pull request's own branch is here, its preview shows the code already.
        shown = update.head is not None and await self.repository.head_of(update.head) is not None
        options = ["no-preview"] if shown else []
        body = PushRequest([RefUpdate(old or NOTHING, new or NOTHING, ref)], options, self._actor)
        refusals = (await self._ask("/pipeline/check", body))["refusals"]
        for sentence in refusals:
            self.say(f"refused: {sentence}")
        if refusals:
            return None
        await self.repository.move(update.branch, new, old)
        return "/pipeline/push", body

    async def _take_fork(self, update: BranchUpdate) -> EngineCall | None:
        """Keep the fork's commit beside the branches, and have a maintainer asked about it."""
        fork = update.fork
        assert fork is not None
        old = await self.repository.fork_head(fork.number)
        if update.closed:
            await self._ask(f"/pipeline/forks/{fork.number}/close", {})
            if old is not None:
                await self.repository.keep_fork(fork.number, None)
            return None
        new = await self.repository.fetch(self.remote, update.ref)
        if new == old:
            return None
        await self.repository.keep_fork(fork.number, new)
        return "/pipeline/forks", ForkRequest(fork, new, self._actor)

    @property
    def _actor(self) -> str:
        return f"{self.forge.name} webhook"

    async def _ask(self, path: str, body: object) -> dict[str, Any]:
        answer: dict[str, Any] = await asyncio.to_thread(self.client.call, "POST", path, body, service=self.service)
        return answer

    async def _run(self, update: BranchUpdate, path: str, body: EngineRequest) -> None:
        """Start the runs, follow them, and set their commits' statuses."""
        loop, left = asyncio.get_running_loop(), set[int]()

        def owe(run: int) -> None:
            """Record the run at its start, so that the commit gets a status even if receiver or engine dies."""
            left.add(run)
            self.undelivered.add(run, update.repository)

        def follow() -> list[dict[str, Any]]:
            """Each run as it ended, or as it waits."""
            runs = []
            for line in self.client.stream("POST", path, body, service=self.service):
                if "started" in line:
                    loop.call_soon_threadsafe(owe, int(line["started"]))
                if "run" in line:
                    runs.append(line["run"])
            return runs

        thread = ThreadPoolExecutor(1)  # for the run's whole duration: asyncio's few threads are for requests
        following = loop.run_in_executor(thread, follow)
        thread.shutdown(wait=False)
        try:
            for run in await following:
                self.say(f"run {run['run']} of {run['branch']}: {run['state']}")
                told = await asyncio.to_thread(self._report, update.repository, run)
                if told and run["state"] not in UNENDED:
                    left.discard(run["run"])
                    self.undelivered.done(run["run"])
        except HitlessError as error:
            if not left:
                raise
            self.say(f"{update.branch}: {error.message}")  # the engine reports their ends when it runs again
        for number in left:
            _begin(self._watch(update.repository, number), self.watchers)

    async def _watch(self, repository: str, number: int) -> None:
        """Set the commit's status once the run has ended, whenever a person answers or the engine is back."""
        while True:
            await asyncio.sleep(self.look_s)
            try:
                run = await asyncio.to_thread(self.client.call, "GET", f"/pipeline/runs/{number}")
            except HitlessError as error:
                if error.code == UsageError.code:
                    break  # it is so old that the engine has forgotten it
                continue  # the engine is away for a while
            if run["state"] not in UNENDED:
                self.say(f"run {number} of {run['branch']}: {run['state']}")
                if await asyncio.to_thread(self._report, repository, run):
                    break
                await asyncio.sleep(self.look_s * LOOKS_BETWEEN_TRIES)
        self.undelivered.done(number)

    def _report(self, repository: str, run: dict[str, Any]) -> bool:
        """Set the commit's status and, when the run has ended, write its report. False if another try is worthwhile."""
        what = "the commit status could not be set"
        try:
            self.forge.set_status(repository, run["commit"], CommitStatus.of(run))
            what = "the report could not be written as a comment"
            if self.may_comment and (subject := subject_of(run)):
                self._comment(repository, subject, run["run"])
        except StatusRefused as error:
            self.say(f"run {run['run']}: {what}: {error}")
            if error.final and what.startswith("the report"):
                self.may_comment = False
                self.say("no more comments until the receiver starts again: docs/pipeline.md names the token's rights")
            return error.final
        except HitlessError as error:
            self.say(f"run {run['run']}: {what}: {error.message}")
        return True

    def _comment(self, repository: str, subject: str, number: int) -> None:
        """A later run of the same stage updates the comment of the pull request or the commit."""
        run, release = self.client.call("GET", f"/pipeline/runs/{number}"), None
        if run["stage"] and run["release"]:
            with suppress(HitlessError):  # the release is on AWS
                release = self.client.call("GET", f"/stages/{run['stage']}/releases/{run['release']}")
        key = f"{repository} {subject} {run['stage'] or 'tests'}"
        posted = self.forge.set_comment(repository, subject, comment_of(run, release), self.comments.id_of(key))
        if posted is not None:
            self.comments.add(key, posted)


def _begin(work: Coroutine[Any, Any, None], running: set[asyncio.Task[None]]) -> None:
    """Do it in the background; `running` keeps the task until it ends."""
    task = asyncio.create_task(work)
    running.add(task)
    task.add_done_callback(running.discard)
