"""A buildspec as one shell program, and the status file that the program writes.

By docs.aws.amazon.com/codebuild/latest/userguide/view-build-details-phases.html: all commands share one shell. The
first failing command ends its phase, but `finally` runs. A failed install or pre_build ends the build; after a failed
build phase post_build still runs. `on-failure: CONTINUE` continues.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from hitless.pipeline.buildspec.files import read_inside
from hitless.pipeline.buildspec.spec import Buildspec

MAX_STATUS_BYTES, MAX_EXPORTED_BYTES = 64 * 1024, 1024 * 1024

# fmt: off
_HEAD = (
    "export CODEBUILD_BUILD_SUCCEEDING=1",
    '__run() { [ $__status = 0 ] || return 0; printf \'[Container] %s\\n\' "$1"; eval "$1"; __status=$?; }',
    '__last() { printf \'[Container] %s\\n\' "$1"; eval "$1" || __status=$?; }',
    "__stopped=0",
)
# fmt: on


def program(spec: Buildspec, status: Path, exported: Path) -> str:
    """The program. `eval` keeps `cd`, variables and exports from one command to the next."""
    lines = list(_HEAD)
    for name, phase in spec.ordered:
        runs = "true" if name == "post_build" else "[ $CODEBUILD_BUILD_SUCCEEDING = 1 ]"
        lines += [
            f"if [ $__stopped = 0 ] && {runs}; then",
            f"  __status=0; echo begin {name} 0 >>{shlex.quote(str(status))}",
            *(f"  __run {shlex.quote(command)}" for command in phase.commands),
            *(f"  __last {shlex.quote(command)}" for command in phase.last),
            f"  echo end {name} $__status >>{shlex.quote(str(status))}",
        ]
        if not phase.continues_on_failure:
            stop = " __stopped=1;" if name in ("install", "pre_build") else ""
            lines.append(f"  if [ $__status != 0 ]; then export CODEBUILD_BUILD_SUCCEEDING=0;{stop} fi")
        lines.append("fi")
    into = shlex.quote(str(exported))
    lines += [f'printf "%s=%s\\0" {name} "${{{name}-}}" >>{into}' for name in spec.env.exported_variables]
    return "\n".join(lines)


def phases_of(spec: Buildspec, status: Path) -> dict[str, int]:
    """Exit status of each phase that began. One that did not end, because its shell exited or was killed, failed."""
    text = read_inside(status.parent, status, MAX_STATUS_BYTES).decode(errors="replace")
    lines = [line.split() for line in text.splitlines()]
    began = {line[1] for line in lines if len(line) == 3 and line[0] == "begin"}
    ended = {line[1]: int(line[2]) for line in lines if len(line) == 3 and line[0] == "end" and line[2].isdecimal()}
    return {name: ended.get(name, 1) for name, _ in spec.ordered if name in began}


def exported_of(exported: Path) -> dict[str, str]:
    """The values of the exported variables at the end of the program."""
    text = read_inside(exported.parent, exported, MAX_EXPORTED_BYTES).decode(errors="replace")
    entries = text.split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
