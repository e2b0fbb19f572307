"""A server that runs, how programs are started and ended, and how it is seen that a release has been taken."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from benchmarks.machine import BenchmarkError
from benchmarks.processes import command_of, descendants, parents

START_LIMIT_S = 30.0
RELEASE_LIMIT_S = 30.0
_LOOK_EVERY_S = 0.02


class NotTakenError(BenchmarkError):
    """A release was not taken in time: the reload hangs."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where it answers, the processes that all others of it descend from, and how it takes a release.

    `release` returns when the release before it answers no more. It raises NotTakenError where that never happens.
    """

    url: str
    roots: Callable[[], Sequence[int]]
    release: Callable[[], None]
    secure_url: str = ""
    """Where it answers by HTTPS, if it does."""


@contextmanager
def started(
    command: Sequence[str], *, folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The program runs; afterwards it has ended. Raises BenchmarkError where it is not installed."""
    process = start(command, folder=folder, environ=environ)
    try:
        yield process
    finally:
        end(process)


def start(command: Sequence[str], *, folder: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program that says nothing. Raises BenchmarkError where it is not installed."""
    silent = subprocess.DEVNULL
    try:
        return subprocess.Popen(command, cwd=folder, env=environ, stdin=silent, stdout=silent, stderr=silent)
    except FileNotFoundError as error:
        raise BenchmarkError(f"{command[0]} is missing; scripts/bench installs it") from error


def end(process: subprocess.Popen[bytes]) -> None:
    """By SIGTERM, or at last by SIGKILL, with all that descends from it."""
    family = list(descendants([process.pid], parents()))[1:]
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    left = parents()
    for pid in family:
        if left.get(pid) == 1:  # what it left behind now belongs to init
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def renewed_by_hup(process: subprocess.Popen[bytes], url: str, release: str) -> None:
    """Send SIGHUP and wait until every process that served before is gone and the new release answers.

    Raises NotTakenError where that takes longer than RELEASE_LIMIT_S.
    """
    before = set(descendants([process.pid], parents())) - {process.pid}
    process.send_signal(signal.SIGHUP)
    limit = time.monotonic() + RELEASE_LIMIT_S
    helpers = {pid for pid in before if b"resource_tracker" in command_of(pid)}
    while (before - helpers) & parents().keys() or answered_release(url) != release:
        if time.monotonic() > limit:
            raise NotTakenError(f"{process.args!r}: release {release} was not taken within {RELEASE_LIMIT_S:g} s")
        time.sleep(_LOOK_EVERY_S)


def answered_release(url: str) -> str | None:
    """The release that answers now, or None where nothing does."""
    host = url.removeprefix("http://").partition("/")[0]
    connection = HTTPConnection(host, timeout=5)
    try:
        connection.request("GET", "/hello")
        answer = connection.getresponse()
        answer.read()
    except (OSError, HTTPException):
        return None
    else:
        return answer.getheader("x-hitless-release")
    finally:
        connection.close()


def wait_for_answer(url: str, program: str) -> None:
    """Raises BenchmarkError where it does not answer in time."""
    limit = time.monotonic() + START_LIMIT_S
    while answered_release(url) is None:
        if time.monotonic() > limit:
            raise BenchmarkError(f"{program} does not answer within {START_LIMIT_S:g} s")
        time.sleep(_LOOK_EVERY_S)


def wait_for_release(url: str, release: str) -> None:
    """Until that release answers. Raises NotTakenError."""
    limit = time.monotonic() + RELEASE_LIMIT_S
    while answered_release(url) != release:
        if time.monotonic() > limit:
            raise NotTakenError(f"{url}: release {release} was not taken within {RELEASE_LIMIT_S:g} s")
        time.sleep(_LOOK_EVERY_S)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
