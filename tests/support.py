"""What several tests share: waiting for an event by a deadline, free ports, processes that always end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, deadline_s: float = 10.0, every_s: float = 0.02, what: str = "") -> T:
    """Call `probe` until it returns something true and return that; fails with the last value (or error) at the
    deadline.
    """
    end = time.monotonic() + deadline_s
    last: object = None
    while time.monotonic() < end:
        try:
            value = probe()
            if value:
                return value
            last = value
        except (OSError, AssertionError, LookupError) as error:
            last = error
        time.sleep(every_s)
    raise AssertionError(f"{what or probe} did not come true within {deadline_s} s; last: {last!r}")


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
