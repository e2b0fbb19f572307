"""Notifications on runs: a message to Slack, JSON to a webhook, or a command.

They never delay a run. Each is tried three times; a failure becomes an event without the address, which may be
a secret. A command comes from a pushed file, so it runs as the build's user if the engine is root.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from hitless.clock import Clock
from hitless.documents import to_text
from hitless.pipeline.buildspec.run import User
from hitless.pipeline.children import run_child
from hitless.pipeline.runs import RunDocument, RunState
from hitless.service.model import Notify, NotifyBy

TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0
PAUSES_S = (1.0, 5.0, None)
NOTIFIED = (RunState.SUCCEEDED, RunState.FAILED, RunState.REJECTED, RunState.INTERRUPTED, RunState.WAITING)
"""A superseded run is not among them, because the newer run is."""

Say = Callable[[str, str | None], None]


class Notice(NamedTuple):
    """A message about a run, or a warning about a stage."""

    event: str
    text: str
    stage: str | None
    run: RunDocument | None = None


class Notifier:
    """Sends notifications in the background; `close` gives up those not sent yet."""

    def __init__(self, clock: Clock, say: Say, user: User | None) -> None:
        self._clock, self._say, self._user = clock, say, user
        self._tasks: set[asyncio.Task[None]] = set()

    def notify(self, who: tuple[Notify, ...], run: RunDocument) -> None:
        """Start to notify all receivers; returns at once."""
        if run.state in NOTIFIED:
            self.send(who, Notice(f"run.{run.state}", sentence(run), run.stage, run))

    def send(self, who: tuple[Notify, ...], notice: Notice) -> None:
        """Start to send it to all receivers; returns at once."""
        for one in who:
            task = asyncio.create_task(self._deliver(one, notice))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up notifications in progress."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, who: Notify, notice: Notice) -> None:
        for pause_s in PAUSES_S:
            try:
                await self._try(who, notice)
                return
            except (OSError, ValueError, TimeoutError) as error:
                if pause_s is None:
                    where = "a command" if who.by is NotifyBy.COMMAND else urlsplit(who.target).hostname
                    why = f"{type(error).__name__}: {getattr(error, 'code', None) or getattr(error, 'reason', error)}"
                    about = f"run {notice.run.run}" if notice.run else "a warning"
                    self._say(f"{about}: {where} could not be notified ({why})", notice.stage)
                    return
            await self._clock.sleep(pause_s)

    async def _try(self, who: Notify, notice: Notice) -> None:
        body = {"event": notice.event, "text": notice.text}
        about = {"run": notice.run} if notice.run else {"stage": notice.stage}
        match who.by:
            case NotifyBy.SLACK:
                await asyncio.to_thread(post, who.target, to_text({"text": notice.text}).encode())
            case NotifyBy.WEBHOOK:
                await asyncio.to_thread(post, who.target, to_text(body | about).encode())
            case NotifyBy.COMMAND:
                await self._command(who.target, notice, to_text(notice.run or body | about).encode())

    async def _command(self, command: str, notice: Notice, line: bytes) -> None:
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HITLESS_RUN": str(notice.run.run) if notice.run else "",
            "HITLESS_STATE": notice.event.removeprefix("run."),
            "HITLESS_STAGE": notice.stage or "",
            "HITLESS_TEXT": notice.text,
        }
        code, _, _ = await run_child(
            shlex.split(command), line=line, environ=environ, user=self._user, timeout_s=COMMAND_TIMEOUT_S
        )
        if code:
            raise OSError(f"exit code {code}")


def sentence(run: RunDocument) -> str:
    """`run 7 of prod waits for approval: hitless approve 7 (Count zones, 1a2b3c4d)`."""
    match run.state:
        case RunState.SUCCEEDED:
            what = f"succeeded: release {run.release} is live" if run.release else "succeeded"
        case RunState.WAITING:
            by_link = f", or {run.link}" if run.link else ""
            weaker = f"; {run.protection}" if run.protection else ""
            what = f"waits for approval: hitless approve {run.run}{by_link}{weaker}"
        case state:
            what = f"{state}: {run.reason}" if run.reason else str(state)
    about = ", ".join(filter(None, (run.message, (run.commit or "")[:8])))
    return f"run {run.run} of {run.where} {what}" + (f" ({about})" if about else "")


def post(url: str, body: bytes) -> None:
    """One POST of JSON; redirects are not followed. Raises OSError."""
    request = urllib.request.Request(url, body, {"content-type": "application/json", "user-agent": "hitless"})
    opener = urllib.request.build_opener(_NoRedirect)
    with opener.open(request, timeout=TIMEOUT_S) as answer:
        answer.read(1024)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
