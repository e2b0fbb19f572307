"""The engine under test, driven by the command line alone: one start a service, one `hitless invoke` an invocation."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.commands import run_hitless
from tests.conformance.client import Target
from tests.conformance.matching import Observed
from tests.conformance.table import HANDLERS, SERVICES

_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z\t")
_REQUEST = re.compile(r"^(START|REPORT) RequestId: (\S+)")


class CommandFailed(Exception):
    """`hitless` did not do what the run needs."""


def hitless(folder: Path, *words: str, ends: tuple[int, ...] = (0,)) -> tuple[Any, str]:
    """Run a verb with --json: its document and its standard error."""
    done = run_hitless(
        *(*words, "--json", "--service-dir", str(folder)),
        environ={**os.environ, "NO_COLOR": "1", "LANG": "C.UTF-8"},  # workers inherit LANG from the engine
        timeout_s=120,
    )
    if done.code not in ends:
        raise CommandFailed(f"hitless {' '.join(words)} ended with {done.code}:\n{done.out}\n{done.err}")
    return (json.loads(done.out) if done.out.strip() else None), done.err


def copy_of(service: str, into: Path, function: str | None = None) -> Path:
    """A copy of a service's folder; with `function` it has that function alone, so that no other one is in its way."""
    folder = into / service
    shutil.copytree(SERVICES / service, folder)
    shutil.copy(HANDLERS, folder)
    if function is not None:
        file = folder / "serverless.yml"
        document = yaml.safe_load(file.read_text("utf-8"))
        document["functions"] = {function: document["functions"][function]}
        document.pop("custom", None)
        file.write_text(yaml.safe_dump(document), "utf-8")
    return folder


class RunningEngine:
    """A service that is up."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self.target = Target.of(url)

    def logs(self) -> dict[str, tuple[str, ...]]:
        """Request id → the lines of that request's invocation, without their instants."""
        functions = yaml.safe_load((self._folder / "serverless.yml").read_text("utf-8"))["functions"]
        found: dict[str, tuple[str, ...]] = {}
        for function in functions:
            lines, _ = hitless(self._folder, "logs", function, "--limit", "100000", ends=(0, 2))
            found |= by_request(lines if isinstance(lines, list) else [])  # 2: it has written nothing
        return found


@contextlib.contextmanager
def running(service: str, into: Path) -> Iterator[RunningEngine]:
    """The service is up inside the block; afterwards nothing of it is left."""
    folder = copy_of(service, into)
    try:
        status, _ = hitless(folder, "up", "--detach", "--listen", "127.0.0.1:0")
        yield RunningEngine(folder, next(stage["url"] for stage in status["stages"]))
    finally:
        hitless(folder, "down", "--force", ends=(0, 1, 5))


def invoke(service: str, function: str, event: Any, into: Path) -> Observed:
    """One invocation outside HTTP, in a copy of its own."""
    into.mkdir(parents=True)
    folder = copy_of(service, into, function)
    words = ["invoke", function]
    if event is not msgspec.UNSET:
        (into / "event.json").write_text(json.dumps(event), "utf-8")
        words += ["--event", str(into / "event.json")]
    document, log = hitless(folder, *words, ends=(0, 1, 2))
    return Observed(result=document, log=tuple(_STAMP.sub("", line) for line in log.splitlines()))


def by_request(lines: list[str]) -> dict[str, tuple[str, ...]]:
    """The lines of one function between each START and the next, both included in the first.

    The functions whose log is looked at have one worker, so that invocations do not interleave in their files. Those of
    several functions would: records of the same millisecond have no order.
    """
    found: dict[str, list[str]] = defaultdict(list)
    current = ""
    for stamped in lines:
        line = _STAMP.sub("", stamped)
        match = _REQUEST.match(line)
        if match:
            current = match[2]
        if current:
            found[current].append(line)
    return {request: tuple(its) for request, its in found.items()}
