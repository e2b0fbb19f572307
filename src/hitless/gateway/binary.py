"""Finding HAProxy on this machine, new enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from hitless.errors import MachineError

OLDEST = (2, 6)
"""Servers added at run time with checks, and rules in named `defaults`, need 2.6."""

INSTALL_HINT = (
    "install it: `apt install haproxy` (Debian, Ubuntu), `dnf install haproxy` (Fedora), `brew install haproxy` (macOS)"
)

_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/homebrew/sbin")


def find_haproxy(environ: Mapping[str, str]) -> str:
    """The path of a HAProxy that will do: `$HITLESS_HAPROXY`, else on PATH, else where systems put it. MachineError."""
    chosen = environ.get("HITLESS_HAPROXY")
    if chosen:
        path = shutil.which(chosen)
        if path is None:
            raise MachineError(
                f"HITLESS_HAPROXY is {chosen}, which is no program", hint=f"correct it, or {INSTALL_HINT}"
            )
    else:
        path = shutil.which("haproxy", path=os.pathsep.join((environ.get("PATH", ""), *_PLACES)))
        if path is None:
            raise MachineError("HAProxy is not installed", hint=INSTALL_HINT)
    require_version(version_text(path), path)
    return path


def version_text(path: str) -> str:
    """What `haproxy -v` prints. MachineError where it does not run."""
    try:
        return subprocess.run([path, "-v"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise MachineError(f"{path} does not run: {error}", hint=INSTALL_HINT) from error


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Out of `haproxy -v`: `HAProxy version 2.6.12-1+deb12u4 2026/10/17`, `HA-Proxy version 1.8.8 …`, `… 3.4-dev1`."""
    found = re.search(r"^HA-?Proxy version (\d+)\.(\d+)(?:\.(\d+))?", text, re.MULTILINE)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def require_version(text: str, path: str) -> tuple[int, int, int]:
    """The version, where it is new enough; MachineError else."""
    version = parse_version(text)
    if version is None:
        raise MachineError(f"{path} does not look like HAProxy", hint=INSTALL_HINT)
    if version[:2] < OLDEST:
        raise MachineError(
            f"{path} is HAProxy {'.'.join(map(str, version))}; at least {'.'.join(map(str, OLDEST))} is needed",
            hint=INSTALL_HINT,
        )
    return version
