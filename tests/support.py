"""What several tests share: waiting for an event by a deadline, ports, what becomes of processes, races."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hitless.worker.process import start_time

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


@contextmanager
def deaf_port() -> Iterator[int]:
    """A TCP port on 127.0.0.1 that refuses connections and that nobody else can take meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has."""
    return start_time(pid) == 0


@contextmanager
def over_and_over(act: Callable[[], object]) -> Iterator[None]:
    """`act` again and again in a thread beside the block, whose end it sees; what it raises is raised there."""
    ended = threading.Event()
    raised: list[Exception] = []

    def run() -> None:
        try:
            while not ended.is_set():
                act()
        except Exception as error:  # noqa: BLE001 - told by the test's own thread
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if raised:
        raise raised[0]
