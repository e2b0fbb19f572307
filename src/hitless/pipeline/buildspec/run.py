"""Runs a buildspec in a folder: one shell; bounded time, memory and output; masked secrets; no process left behind.

It blocks, so the engine runs it in a process of its own (`hitless.processes.build`). The build's code can write to the
sources and to the status files, so only a limited amount of them is read. A build succeeds if it was not ended early
and no phase failed, apart from those that may fail (`on-failure: CONTINUE`).
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from hitless.pipeline.buildspec.files import find_files
from hitless.pipeline.buildspec.output import BuildOutput, Mask
from hitless.pipeline.buildspec.processes import die_with_parent, end_all, end_user, reap
from hitless.pipeline.buildspec.reports import ReportDocument, read_reports
from hitless.pipeline.buildspec.script import exported_of, phases_of, program
from hitless.pipeline.buildspec.spec import Buildspec
from hitless.worker.memory import family, held_mb

LOOK_S = 0.25
MAX_FILE_BYTES = 4 << 30
MAX_ARTIFACTS = 10_000
MAX_PIPED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a build may use. Output beyond its limit is dropped; a build that reaches another limit is ended."""

    time_s: float = 600.0
    memory_mb: int = 4096
    output_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class User:
    """The user that runs a build if the caller is root. Nothing else runs as this user, and it is in no other group."""

    uid: int
    gid: int


def credentials(user: User | None) -> dict[str, Any]:
    """Arguments with which `subprocess` runs a command as this user, or as the caller if it is None."""
    return {"user": user.uid, "group": user.gid, "extra_groups": []} if user else {}


def as_line(document: BuildPlan | BuildResult) -> bytes:
    """The document as a line of ASCII JSON. msgspec cannot write names that are not UTF-8, which files may have."""
    return json.dumps(msgspec.to_builtins(document)).encode() + b"\n"


class BuildPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A build: the text of a buildspec to run in the folder `source`.

    `scratch` is a folder beside it that the build's user can write to. `environ` wins over the buildspec's variables,
    as a project's variables do on CodeBuild. `secrets` are the values of its parameter-store and secrets-manager
    variables. The output shows neither these nor the `masked` texts.
    """

    buildspec: str
    source: str
    scratch: str
    log: str
    environ: Mapping[str, str]
    secrets: Mapping[str, str] = {}
    masked: tuple[str, ...] = ()
    limits: Limits = Limits()
    user: User | None = None


class BuildResult(msgspec.Struct, frozen=True):
    """How a build ended. `phases`: the exit status of each phase that ran. `reason`: why it failed."""

    succeeded: bool
    phases: Mapping[str, int]
    exported: Mapping[str, str] = {}
    artifacts: tuple[str, ...] = ()
    reports: tuple[ReportDocument, ...] = ()
    reason: str | None = None


def run(
    plan: BuildPlan,
    *,
    output: Callable[[bytes], object],
    stop: Callable[[], bool] = lambda: False,
    subreaper: bool = False,
) -> BuildResult:
    """Run the build. `stop` is called a few times a second; once it returns True, the build is ended.

    `subreaper`: this process is a subreaper without other children, so every process below it belongs to the build.
    """
    spec, source, scratch = Buildspec.read(plan.buildspec), Path(plan.source), Path(plan.scratch)
    status, exported = scratch / "status", scratch / "exported"
    environ = {**spec.variables, **plan.secrets, **plan.environ, "CODEBUILD_SRC_DIR": plan.source}
    shell = _start([spec.env.shell, "-c", program(spec, status, exported)], source, environ, plan.user)
    assert shell.stdout is not None
    root = os.getpid() if subreaper else shell.pid
    out = BuildOutput(Mask([*plan.secrets.values(), *plan.masked]), output, plan.limits.output_bytes)
    try:
        reason = _watch(shell, shell.stdout, out, root, plan.limits, stop)
    finally:
        end_all(shell.pid, root)
        shell.wait()
        if plan.user:
            end_user(plan.user.uid)
        if subreaper:
            reap()
    _drain(shell.stdout, out)
    out.end(reason)
    phases = phases_of(spec, status)
    failed = [name for name, phase in spec.ordered if phases.get(name) != 0 and not phase.continues_on_failure]
    if failed and reason is None:
        code = phases.get(failed[0])
        reason = f"phase {failed[0]} failed" + ("" if code is None else f" with status {code}")
    return BuildResult(
        succeeded=reason is None,
        phases=phases,
        exported={name: value for name, value in exported_of(exported).items() if name in spec.env.exported_variables},
        artifacts=artifacts_of(spec, source) if reason is None else (),
        reports=read_reports(spec, source),
        reason=reason,
    )


def artifacts_of(spec: Buildspec, source: Path) -> tuple[str, ...]:
    """The files that match the buildspec's artifact patterns, in order; at most MAX_ARTIFACTS."""
    wanted = spec.artifacts
    base = source / wanted.base
    excluded = set(find_files(base, wanted.excluded, source))
    found = [str(path) for path in find_files(base, wanted.files, source) if path not in excluded]
    return tuple(found[:MAX_ARTIFACTS])


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


def _confine() -> None:
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    most = MAX_FILE_BYTES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILE_BYTES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


def _watch(
    shell: subprocess.Popen[bytes],
    pipe: IO[bytes],
    out: BuildOutput,
    root: int,
    limits: Limits,
    stop: Callable[[], bool],
) -> str | None:
    """Read the output until the shell ends. Returns a reason if the build must be ended before."""
    started = looked = time.monotonic()
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
            if held_mb([*{shell.pid, *family(root)[1:]}], limits.memory_mb) > limits.memory_mb:
                return f"the build reached its memory limit of {limits.memory_mb} MiB"
    return None


def _drain(pipe: IO[bytes], out: BuildOutput) -> None:
    """Read what the ended processes left in the pipe, but no more than a pipe holds, in case one still writes."""
    left = MAX_PIPED_BYTES
    with pipe:
        while left > 0 and select.select([pipe], [], [], 0)[0] and (data := os.read(pipe.fileno(), 65536)):
            out.feed(data)
            left -= len(data)
