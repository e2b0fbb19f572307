"""Runs one public service unmodified: a copy of its commit, `hitless up`, one request a route, `hitless down`.

The service's own code runs with the rights of the caller. Nothing of it is kept.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hitless.drill.requests import from_routes
from hitless.service.load import default_stage, load_service
from tests.public_services.table import Listed, Result

UP_TIMEOUT_S: Final = 300
REQUEST_TIMEOUT_S: Final = 20
MOST_REQUESTS: Final = 8
_GATEWAY_BODY: Final = re.compile(
    rb'\{"message": ?"(Missing Authentication Token|Not Found|Forbidden|Unauthorized|Service Unavailable)"\}'
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's result, the status of each request, and the first error of `hitless up`."""

    result: Result
    statuses: str = ""
    error: str = ""


def run(service: Listed, clones: Path, scratch: Path) -> Outcome:
    """Start `service` from its clone below `clones`, in a copy below `scratch`."""
    root = scratch / service.repository.replace("/", "+")
    try:
        _check_out(service, clones / service.repository, root)
    except (OSError, subprocess.CalledProcessError) as error:
        return Outcome(Result.NOT_RUN, error=f"no copy of {service.commit[:8]}: {error}")
    folder = root / service.path
    with _engine(folder) as (url, refusal):
        if url is None:
            return Outcome(Result.NOT_REACHED, error=refusal)
        seen = [_status(url, *request) for request in _requests(folder)]
    reached = [status for status in seen if status is not None]
    statuses = " ".join("-" if status is None else str(status) for status in seen)
    if not reached:
        return Outcome(Result.NOT_REACHED, statuses, "no request got to a handler")
    return Outcome(Result.BELOW_500 if min(reached) < 500 else Result.ONLY_5XX, statuses)


def _check_out(service: Listed, clone: Path, into: Path) -> None:
    into.mkdir(parents=True)
    git_dir = clone / ".git" if (clone / ".git").exists() else clone
    archive = into.with_suffix(".tar")
    subprocess.run(["git", f"--git-dir={git_dir}", "archive", f"--output={archive}", service.commit], check=True)
    subprocess.run(["tar", "-x", "-f", str(archive), "-C", str(into)], check=True)


@contextmanager
def _engine(folder: Path) -> Iterator[tuple[str | None, str]]:
    """The URL of the service's stage, or None and the error. The engine ends with the block."""
    try:
        up = _hitless(folder, "up", "--detach", "--listen", "127.0.0.1:0", "--yes", timeout_s=UP_TIMEOUT_S)
        if up.returncode:
            yield None, next((line for line in up.stderr.splitlines() if line.startswith("error:")), up.stderr[-200:])
        else:
            yield json.loads(_hitless(folder, "status").stdout)["stages"][0]["url"], ""
    except subprocess.TimeoutExpired as error:
        yield None, f"error: hitless {error.cmd[3]} took longer than {error.timeout} s"
    finally:
        _hitless(folder, "down", "--force")


def _hitless(folder: Path, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hitless", *words, "--json", "--service-dir", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)


def _requests(folder: Path) -> list[tuple[str, str, bytes, dict[str, str]]]:
    """One request a route, GET first."""
    service = load_service(folder, stage=default_stage(folder, os.environ), environ=os.environ)
    requests = from_routes(route for function in service.functions for route in function.routes)
    ordered = sorted(requests, key=lambda request: request.method != "GET")
    return [(one.method, one.path, one.body, dict(one.headers)) for one in ordered[:MOST_REQUESTS]]


def _status(url: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> int | None:
    """The handler's status, or None if the gateway responded by itself or not at all."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=REQUEST_TIMEOUT_S)
    try:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return None if response.status == 504 or _GATEWAY_BODY.fullmatch(content.strip()) else response.status
