"""Runs a buildspec in a folder: one shell, limits of time, memory and output, secrets masked, nothing left behind.

It blocks: the engine runs it in a process of its own (`hitless.processes.build`). What the build's code
can write to (sources, status files) is not trusted: its result is read with bounds, and only the exit of its shell and
its phases decide.
"""

from __future__ import annotations

import os
import resource
import select
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from hitless.pipeline.buildspec.files import find_files
from hitless.pipeline.buildspec.output import Mask, Output
from hitless.pipeline.buildspec.processes import descendants, die_with_parent, end_all, end_user, memory_bytes
from hitless.pipeline.buildspec.reports import Reported, read_reports
from hitless.pipeline.buildspec.script import exported_of, phases_of, program
from hitless.pipeline.buildspec.spec import Buildspec

LOOK_S = 0.25
MAX_FILE_BYTES = 4 << 30
MAX_ARTIFACTS = 10_000
MOST_PIPED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a build may take. Output beyond its limit is dropped, the others end the build."""

    time_s: float = 600.0
    memory_mb: int = 4096
    output_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class User:
    """Who runs a build when the caller is root: nobody else runs as it, and it is in no other group."""

    uid: int
    gid: int


def credentials(user: User | None) -> dict[str, Any]:
    """What makes `subprocess` run a command as the user; as the caller for None."""
    return {"user": user.uid, "group": user.gid, "extra_groups": []} if user else {}


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What the build process runs: the buildspec's text, in `source`, with `scratch` beside it."""

    buildspec: str
    source: Path
    scratch: Path
    log: Path
    environ: dict[str, str]
    secrets: dict[str, str]
    masked: list[str]
    limits: Limits
    user: User | None

    def to_line(self) -> bytes:
        return msgspec.json.encode(self, enc_hook=str) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> BuildPlan:
        return msgspec.json.decode(line, type=cls, dec_hook=lambda kind, value: kind(value))


@dataclass(frozen=True, slots=True)
class Build:
    """How a build ended. `phases` are those that ran, with their exit status; `reason` says why it did not succeed."""

    succeeded: bool
    phases: Mapping[str, int]
    exported: Mapping[str, str]
    artifacts: tuple[Path, ...]
    reports: tuple[Reported, ...]
    reason: str | None


def run(
    spec: Buildspec,
    source: Path,
    scratch: Path,
    environ: Mapping[str, str],
    *,
    limits: Limits,
    output: Callable[[bytes], object],
    secrets: Mapping[str, str] | None = None,
    masked: Iterable[str] = (),
    user: User | None = None,
    stop: Callable[[], bool] = lambda: False,
    subreaper: bool = False,
) -> Build:
    """Run a buildspec in `source`; `scratch` is a folder beside it that the build's user can write to.

    `environ` wins over the buildspec's variables, as a project's own do on CodeBuild. `secrets` are the values of its
    parameter-store and secrets-manager variables; they and what else is `masked` do not show in what `output` gets.
    `stop` is asked a few times a second.
    `subreaper`: this process is one and has no other children, so that whatever is left below it is the build's.
    """
    status, exported = scratch / "status", scratch / "exported"
    everything = {**spec.variables, **(secrets or {}), **environ, "CODEBUILD_SRC_DIR": str(source)}
    shell = _start([spec.shell, "-c", program(spec, status, exported)], source, everything, user)
    assert shell.stdout is not None
    root = os.getpid() if subreaper else shell.pid
    out = Output(Mask([*(secrets or {}).values(), *masked]), output, limits.output_bytes)
    try:
        reason = _watch(shell, shell.stdout, out, root, limits, stop)
    finally:
        end_all(shell.pid, root)
        shell.wait()
        if user:
            end_user(user.uid)
        if subreaper:
            _reap()
    _drain(shell.stdout, out)
    out.end(reason)
    phases = phases_of(spec, status)
    failed = [phase.name for phase in spec.phases if phases.get(phase.name) != 0 and not phase.goes_on]
    return Build(
        succeeded=not failed and reason is None,
        phases=phases,
        exported={name: value for name, value in exported_of(exported).items() if name in spec.exported},
        artifacts=artifacts_of(spec, source) if not failed and reason is None else (),
        reports=read_reports(spec, source),
        reason=reason or (f"phase {failed[0]} failed{_status(phases.get(failed[0]))}" if failed else None),
    )


def _start(words: list[str], folder: Path, environ: Mapping[str, str], user: User | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_confine,
        **credentials(user),
    )


def artifacts_of(spec: Buildspec, source: Path) -> tuple[Path, ...]:
    """The files that the artifacts' patterns find, sorted."""
    wanted = spec.artifacts
    base = source / wanted.base
    excluded = set(find_files(base, wanted.excluded, source))
    found = [path for path in find_files(base, wanted.files, source) if path not in excluded]
    return tuple(found[:MAX_ARTIFACTS])


def _status(code: int | None) -> str:
    return "" if code is None else f" with status {code}"


def _confine() -> None:
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    most = MAX_FILE_BYTES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILE_BYTES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


def _watch(
    shell: subprocess.Popen[bytes],
    pipe: IO[bytes],
    out: Output,
    root: int,
    limits: Limits,
    stop: Callable[[], bool],
) -> str | None:
    """Until the shell ends; the reason to end it before that."""
    started = time.monotonic()
    looked = started
    is_open = True
    while shell.poll() is None:
        if is_open and select.select([pipe], [], [], LOOK_S)[0]:
            data = os.read(pipe.fileno(), 65536)
            is_open = bool(data)
            out.feed(data)
        elif not is_open:
            with suppress(subprocess.TimeoutExpired):
                shell.wait(LOOK_S)
        now = time.monotonic()
        if now - started > limits.time_s:
            return f"the build reached its time limit of {limits.time_s:g} s"
        if stop():
            return "the build was stopped"
        if now - looked >= LOOK_S:
            looked = now
            if memory_bytes([shell.pid, *descendants(root)]) > limits.memory_mb << 20:
                return f"the build reached its memory limit of {limits.memory_mb} MiB"
    return None


def _drain(pipe: IO[bytes], out: Output) -> None:
    """What the ended processes had still written; no more than a pipe holds, should one of them write on."""
    left = MOST_PIPED_BYTES
    with pipe:
        while left > 0 and select.select([pipe], [], [], 0)[0] and (data := os.read(pipe.fileno(), 65536)):
            out.feed(data)
            left -= len(data)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
