"""Finds a HAProxy on this machine that is new enough, and checks configurations with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hitless.errors import EngineError, MachineError

OLDEST = (2, 6)
"""Adding checked servers at run time, and rules in named `defaults`, need 2.6."""

INSTALL_HINT = (
    "install it: `apt install haproxy` (Debian, Ubuntu), `dnf install haproxy` (Fedora), `brew install haproxy` (macOS)"
)

_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/homebrew/sbin")


def find_haproxy(environ: Mapping[str, str]) -> str:
    """The path of a usable HAProxy: `$HITLESS_HAPROXY`, else on PATH or in the usual folders. Raises MachineError."""
    chosen = environ.get("HITLESS_HAPROXY")
    if chosen:
        path = shutil.which(chosen)
        if path is None:
            raise MachineError(
                f"HITLESS_HAPROXY is {chosen}, which is not a program", hint=f"correct it, or {INSTALL_HINT}"
            )
    else:
        path = shutil.which("haproxy", path=os.pathsep.join((environ.get("PATH", ""), *_PLACES)))
        if path is None:
            raise MachineError("HAProxy is not installed", hint=INSTALL_HINT)
    require_version(version_text(path), path)
    return path


def version_text(path: str) -> str:
    """The output of `haproxy -v`. Raises MachineError if it fails."""
    try:
        return subprocess.run([path, "-v"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise MachineError(f"cannot run {path}: {error}", hint=INSTALL_HINT) from error


def require_version(text: str, path: str) -> None:
    """The output of `haproxy -v` starts `HAProxy version 2.6.12-1+deb12u4 …`, or `HA-Proxy version 1.8.8 …`."""
    found = re.search(r"^HA-?Proxy version ((\d+)\.(\d+)[.\d]*)", text, re.MULTILINE)
    if found is None:
        raise MachineError(f"{path} does not look like HAProxy", hint=INSTALL_HINT)
    if (int(found[2]), int(found[3])) < OLDEST:
        raise MachineError(
            f"{path} is HAProxy {found[1]}; hitless needs {'.'.join(map(str, OLDEST))} or newer", hint=INSTALL_HINT
        )


def check_configuration(haproxy: str, configuration: Path, descriptors: Sequence[int]) -> None:
    """Have HAProxy check the configuration of listeners on these descriptors. EngineError with its message."""
    names = {f"HITLESS_FD_{index}": str(descriptor) for index, descriptor in enumerate(descriptors)}
    names |= {f"HITLESS_ACCESS_{index}": "1" for index in range(len(descriptors))}
    command = [haproxy, "-c", "-f", str(configuration)]
    try:
        result = subprocess.run(
            command, env={**os.environ, **names}, pass_fds=descriptors, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"cannot run {haproxy}: {error}", hint="run `hitless doctor`") from error
    if result.returncode:
        raise EngineError(f"HAProxy rejects its configuration: {alerts_in(result.stderr)}", hint="run `hitless doctor`")


def alerts_in(text: str) -> str:
    """The last alerts in HAProxy's output as one line; its last lines if there are none."""
    lines = [line for line in text.splitlines() if "[ALERT]" in line] or text.splitlines()
    return "; ".join(" ".join(line.split()) for line in lines[-3:])
