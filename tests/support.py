"""Helpers of several tests: waiting with a deadline, ports, processes, races."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from hitless.gateway.state import GatewayState, ServerMode
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
    raise AssertionError(f"{what or probe} did not become true within {deadline_s} s; last: {last!r}")


def free_port() -> int:
    """A TCP port on 127.0.0.1 that this process keeps. It refuses connections, and only a socket with SO_REUSEADDR can
    bind it, as servers do.
    """
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after bind, which refuses a port that is in use
    port = int(held.getsockname()[1])
    held.detach()
    return port


def release_keys(state: GatewayState) -> set[str]:
    """Releases that have routes."""
    return {route.release_key for route in state.routes}


def with_mode(state: GatewayState, pool: str, mode: ServerMode, name: str | None = None) -> GatewayState:
    """Set the mode of the pool's server of that name, or of all of them."""
    servers = state.pool(pool).servers
    return state.with_servers(pool, [replace(s, mode=mode) if name in (None, s.name) else s for s in servers])


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has."""
    return start_time(pid) == 0


def have_ended(pids: Iterable[int]) -> None:
    """Wait a short time for the process's end: after a kill, or after it freed its locks, it may still be visible."""
    left = list(pids)
    eventually(lambda: all(map(gone, left)), deadline_s=5.0, what=f"the end of {left}")


@contextmanager
def over_and_over(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` repeatedly in a thread beside the block; an exception is raised in the block."""
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
