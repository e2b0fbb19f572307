"""Buildspec 0.2, in as much as hitless' projects use it, run by a shell on this machine.

By docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html and view-build-details-phases.html: all commands
share one shell; the first failing command ends its phase, `finally` runs anyway; after a failed install or pre_build
the build ends, after a failed build post_build still runs; `on-failure: CONTINUE` goes on. What a key would need that
is not here (secrets, parameter store, caches, proxies) is refused, never ignored.
"""

from __future__ import annotations

import glob
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

PHASES: Final = ("install", "pre_build", "build", "post_build")
_KEYS: Final = frozenset({"version", "env", "phases", "artifacts", "reports"})
_PHASE_KEYS: Final = frozenset({"commands", "finally", "on-failure", "runtime-versions"})


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    commands: tuple[str, ...]
    last: tuple[str, ...]
    goes_on: bool
    runtimes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Buildspec:
    """A buildspec as read. `artifacts` are file patterns below `base`."""

    shell: str
    variables: Mapping[str, str]
    exported: tuple[str, ...]
    phases: tuple[Phase, ...]
    artifacts: tuple[str, ...]
    base: str

    @classmethod
    def read(cls, text: str) -> Buildspec:
        """Raises ValueError for what CodeBuild refuses and for what is not run here."""
        document = yaml.safe_load(text)
        if float(document.get("version", 0)) != 0.2:
            raise ValueError(f"buildspec version {document.get('version')}")
        _only(document, _KEYS, "the buildspec")
        env = document.get("env") or {}
        _only(env, {"shell", "variables", "exported-variables"}, "env")
        phases = document.get("phases") or {}
        _only(phases, set(PHASES), "phases")
        artifacts = document.get("artifacts") or {}
        _only(artifacts, {"files", "base-directory", "name"}, "artifacts")
        return cls(
            shell=env.get("shell", "sh"),
            variables={key: str(value) for key, value in (env.get("variables") or {}).items()},
            exported=tuple(env.get("exported-variables") or ()),
            phases=tuple(_phase(name, phases[name]) for name in PHASES if name in phases),
            artifacts=tuple(artifacts.get("files") or ()),
            base=artifacts.get("base-directory", "."),
        )


def _only(document: Mapping[str, Any], keys: set[str] | frozenset[str], where: str) -> None:
    unknown = set(document) - keys
    if unknown:
        raise ValueError(f"{where}: {', '.join(sorted(unknown))} is not run here")


def _phase(name: str, document: Mapping[str, Any]) -> Phase:
    _only(document, _PHASE_KEYS, name)
    commands = tuple(document.get("commands") or ())
    if any(not isinstance(command, str) for command in commands):
        raise ValueError(f"{name}: a command is no text; a colon in it needs quotes")
    failure = document.get("on-failure", "ABORT")
    if failure not in ("ABORT", "CONTINUE"):
        raise ValueError(f"{name}: on-failure {failure}")
    runtimes = {key: str(value) for key, value in (document.get("runtime-versions") or {}).items()}
    return Phase(name, commands, tuple(document.get("finally") or ()), failure == "CONTINUE", runtimes)


@dataclass(frozen=True, slots=True)
class Build:
    """How a build ended. `phases` are those that ran, with their exit status."""

    succeeded: bool
    phases: Mapping[str, int]
    exported: Mapping[str, str]
    artifacts: tuple[Path, ...]
    log: str


def run(spec: Buildspec, source: Path, scratch: Path, environ: Mapping[str, str], *, limit_s: float) -> Build:
    """Run a buildspec in `source`; `scratch` is a folder for its log and status, outside the sources.

    The environment's own variables win over those of the buildspec, as a project's do on CodeBuild.
    """
    status, exported, log = scratch / "status", scratch / "exported", scratch / "log"
    script = _script(spec, status, exported)
    with log.open("wb") as output:
        try:
            subprocess.run(
                [spec.shell, "-c", script],
                cwd=source,
                env={**spec.variables, **environ, "CODEBUILD_SRC_DIR": str(source)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            output.write(b"\nthe build reached its time limit\n")
    phases = _phases(spec, status)
    succeeded = all(phases.get(phase.name) == 0 or phase.goes_on for phase in spec.phases)
    return Build(
        succeeded=succeeded,
        phases=phases,
        exported=dict(line.split("=", 1) for line in exported.read_text().splitlines()) if exported.exists() else {},
        artifacts=_artifacts(spec, source) if succeeded else (),
        log=log.read_text(errors="replace"),
    )


def _phases(spec: Buildspec, status: Path) -> dict[str, int]:
    """A phase that began and never ended (its shell exited) failed."""
    lines = [line.split() for line in status.read_text().splitlines()] if status.exists() else []
    began = {name for kind, name, _ in lines if kind == "begin"}
    ended = {name: int(code) for kind, name, code in lines if kind == "end"}
    return {phase.name: ended.get(phase.name, 1) for phase in spec.phases if phase.name in began}


def _artifacts(spec: Buildspec, source: Path) -> tuple[Path, ...]:
    base = source / spec.base
    found = {
        Path(name)
        for pattern in spec.artifacts
        for name in glob.glob(str(base / pattern), recursive=True, include_hidden=True)
    }
    return tuple(sorted(path for path in found if path.is_file()))


def _script(spec: Buildspec, status: Path, exported: Path) -> str:
    """One shell program. `eval` keeps `cd`, variables and exports from one command to the next."""
    lines = [
        "export CODEBUILD_BUILD_SUCCEEDING=1",
        '__run() { [ $__status = 0 ] || return 0; printf \'[Container] %s\\n\' "$1"; eval "$1"; __status=$?; }',
        '__last() { printf \'[Container] %s\\n\' "$1"; eval "$1" || __status=$?; }',
        "__stopped=0",
    ]
    for phase in spec.phases:
        runs = "true" if phase.name == "post_build" else "[ $CODEBUILD_BUILD_SUCCEEDING = 1 ]"
        lines += [
            f"if [ $__stopped = 0 ] && {runs}; then",
            f"  __status=0; echo begin {phase.name} 0 >>{shlex.quote(str(status))}",
            *(f"  __run {shlex.quote(command)}" for command in phase.commands),
            *(f"  __last {shlex.quote(command)}" for command in phase.last),
            f"  echo end {phase.name} $__status >>{shlex.quote(str(status))}",
        ]
        if not phase.goes_on:
            stop = " __stopped=1;" if phase.name in ("install", "pre_build") else ""
            lines.append(f"  if [ $__status != 0 ]; then export CODEBUILD_BUILD_SUCCEEDING=0;{stop} fi")
        lines.append("fi")
    lines += [f'printf "%s=%s\\n" {name} "${name}" >>{shlex.quote(str(exported))}' for name in spec.exported]
    return "\n".join(lines)
