"""Sends an event to the account's default EventBridge bus when a release has ended, so that rules can react to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from hitless.documents import to_text

SOURCE, DETAIL_TYPE = "hitless", "Release Ended"
"""The deploy role may send no other events."""


class ReleaseEnded(msgspec.Struct, frozen=True):
    """The event's detail: the receipt's short form. `failures` are failed requests, None if nothing was counted."""

    service: str
    stage: str
    release: int
    result: str
    verb: str
    commit: str | None
    failures: int | None
    reason: str | None


def send_event(client: Any, say: Callable[[str], None], ended: ReleaseEnded) -> None:
    """Send it by botocore's client of `events`. A failure is only reported, because the release has ended already."""
    entry = {"Source": SOURCE, "DetailType": DETAIL_TYPE, "Detail": to_text(ended)}
    try:
        (one,) = client.put_events(Entries=[entry])["Entries"]  # status 200 for a refused event, too
        why = f"{one['ErrorCode']}: {one.get('ErrorMessage')}" if "ErrorCode" in one else ""
    except (BotoCoreError, ClientError) as error:
        why = str(error)
    if why:
        say(f"note: the event of this release's end was not sent: {why}")
