"""Notifications of runs, which never delay them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.documents import to_text
from hitless.pipeline.notify import Notice, Notifier, post, sentence
from hitless.pipeline.runs import RunDocument, RunState
from hitless.service.model import Notify, NotifyBy
from tests.fakes import FakeClock

pytestmark = pytest.mark.component

AT = "2026-11-24T06:00:00.000Z"
RUN = RunDocument(
    run=7, stage="prod", branch="prod", commit="1a2b3c4d5e6f", state=RunState.SUCCEEDED, release=4, started_at=AT,
    ended_at=AT, reason=None, verb="push", message="Count zones", actor="ada", overridden=None, preview=None, fork=None,
    steps=(),
)  # fmt: skip


class Receiver(HTTPServer):
    """Keeps what was posted; responds with the statuses given, then always with the last one."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.bodies: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/secret-path"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        status = self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0]
        self.send_response(status)
        self.send_header("content-length", "0")
        if status == 302:
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with Receiver(*getattr(request, "param", (200,))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def told(*who: Notify, run: RunDocument = RUN, warning: str = "") -> list[str]:
    """Send the notification, wait until it is delivered, and return the events."""
    said: list[str] = []

    async def story() -> None:
        notifier = Notifier(FakeClock(), lambda text, stage: said.append(text), None)
        if warning:
            notifier.send(who, Notice("warning", f"prod: {warning}", "prod"))
        else:
            notifier.notify(who, run)
        while notifier._tasks:
            await asyncio.wait(notifier._tasks)

    asyncio.run(story())
    return said


def test_slack_gets_a_sentence_and_a_webhook_gets_the_run_as_json(receiver: Receiver) -> None:
    assert told(Notify(NotifyBy.SLACK, receiver.url), Notify(NotifyBy.WEBHOOK, receiver.url)) == []
    slack, webhook = sorted(receiver.bodies, key=len)
    text = "run 7 of prod succeeded: release 4 is live (Count zones, 1a2b3c4d)"
    assert slack == {"text": text}
    assert (webhook["event"], webhook["text"], webhook["run"]) == ("run.succeeded", text, json.loads(to_text(RUN)))


def test_a_warning_about_a_stage_reaches_every_receiver(receiver: Receiver, tmp_path: Path) -> None:
    command = f"sh -c 'cat > {tmp_path}/out; echo \"$HITLESS_STATE $HITLESS_TEXT\" >> {tmp_path}/out'"
    who = (
        Notify(NotifyBy.SLACK, receiver.url),
        Notify(NotifyBy.WEBHOOK, receiver.url),
        Notify(NotifyBy.COMMAND, command),
    )
    assert told(*who, warning="it ends soon") == []
    body = {"event": "warning", "text": "prod: it ends soon", "stage": "prod"}
    assert sorted(receiver.bodies, key=len) == [{"text": "prod: it ends soon"}, body]
    document, _, rest = (tmp_path / "out").read_text().partition("}")
    assert (json.loads(document + "}"), rest) == (body, "warning prod: it ends soon\n")
    (said,) = told(Notify(NotifyBy.COMMAND, "false"), warning="it ends soon")
    assert said == "a warning: a command could not be notified (OSError: exit code 1)"


@pytest.mark.parametrize("receiver", [(500, 200)], indirect=True)
def test_a_failed_notification_is_retried(receiver: Receiver) -> None:
    assert told(Notify(NotifyBy.SLACK, receiver.url)) == []
    assert len(receiver.bodies) == 2


@pytest.mark.parametrize("receiver", [(500,), (302,)], indirect=True)
def test_a_failed_notification_is_reported_without_its_address(receiver: Receiver) -> None:
    (said,) = told(Notify(NotifyBy.WEBHOOK, receiver.url))
    assert said.startswith("run 7: 127.0.0.1 could not be notified")
    assert "secret-path" not in said
    assert len(receiver.bodies) == 3


def test_a_notification_command_gets_the_run_on_its_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = f"sh -c 'cat > {out}; echo \"$HITLESS_STATE $HITLESS_STAGE\" >> {out}'"
    assert told(Notify(NotifyBy.COMMAND, command)) == []
    document, _, rest = out.read_text().partition("}")
    assert json.loads(document + "}") == json.loads(to_text(RUN))
    assert rest == "succeeded prod\n"


def test_a_failed_notification_command_is_reported(tmp_path: Path) -> None:
    (said,) = told(Notify(NotifyBy.COMMAND, "false"))
    assert said == "run 7: a command could not be notified (OSError: exit code 1)"
    assert "FileNotFoundError" in told(Notify(NotifyBy.COMMAND, "/no/such/command"))[0]


def test_a_superseded_run_sends_no_notification(receiver: Receiver) -> None:
    told(Notify(NotifyBy.SLACK, receiver.url), run=replace(RUN, state=RunState.SUPERSEDED))
    assert receiver.bodies == []


def test_a_notifications_sentence_says_what_to_do() -> None:
    waiting = replace(RUN, state=RunState.WAITING)
    assert sentence(waiting) == "run 7 of prod waits for approval: hitless approve 7 (Count zones, 1a2b3c4d)"
    failed = replace(RUN, stage=None, branch="feature", state=RunState.FAILED, reason="test: no", message=None)
    assert sentence(failed) == "run 7 of feature failed: test: no (1a2b3c4d)"


def test_a_notification_address_that_accepts_no_connection_is_an_error() -> None:
    with pytest.raises(OSError, match="refused"):
        post("http://127.0.0.1:1/", b"{}")
