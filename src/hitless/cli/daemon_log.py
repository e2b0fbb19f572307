"""Writes the daemon's engine.log as lines of JSON, and renews it before it grows too large: `up` does at a start, the
daemon while it runs.

A child process that inherited a descriptor of the old file continues to write there, in engine.log.1.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

LARGEST_BYTES = 4 << 20
LOOK_S = 5.0
STANDARD = (1, 2)


class JsonLines(logging.Formatter):
    """One JSON object a record: the fields of its only argument, the event and its instant."""

    def format(self, record: logging.LogRecord) -> str:
        fields = record.args if isinstance(record.args, Mapping) else {}
        at = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        return json.dumps({**fields, "event": record.msg, "timestamp": at}, default=repr)


def log_to(stream: TextIO) -> None:
    """Write the log of hitless's own modules there.

    A line that cannot be written (a full disk) is lost, and its cause goes on: logging's handlers raise nothing. An
    error here once left a rollout without an end.
    """
    handler, own = logging.StreamHandler(stream), logging.getLogger("hitless")
    handler.setFormatter(JsonLines())
    own.handlers, own.propagate = [handler], False
    own.setLevel(logging.INFO)


def put_aside_if_large(path: Path, *, largest_bytes: int = LARGEST_BYTES) -> bool:
    """Rename the file to PATH.1, which replaces an older one; whether it was too large."""
    with suppress(OSError):
        if path.stat().st_size > largest_bytes:
            path.replace(f"{path}.1")
            return True
    return False


def renew_if_large(path: Path, *, descriptors: Sequence[int] = STANDARD, largest_bytes: int = LARGEST_BYTES) -> bool:
    """If the file is too large, rename it and point the descriptors to a new one. A full disk changes nothing."""
    with suppress(OSError):
        if not os.path.samestat(os.fstat(descriptors[-1]), path.stat()):
            return False
        if put_aside_if_large(path, largest_bytes=largest_bytes):
            fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for descriptor in descriptors:
                os.dup2(fresh, descriptor)
            os.close(fresh)
            return True
    return False


async def keep_small(path: Path) -> None:
    """Renew the file whenever it is too large, until cancelled."""
    while True:
        renew_if_large(path)
        await asyncio.sleep(LOOK_S)
