"""Which GitHub repository the service lies in, as git tells: what the pipeline listens to."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_GITHUB = re.compile(
    r"(?:https?://(?:[^@/]+@)?github\.com/|(?:ssh://)?git@github\.com[:/])(?P<name>[A-Za-z0-9-]+/[A-Za-z0-9._-]+?)(?:\.git)?/?"
)


@dataclass(frozen=True, slots=True)
class Repository:
    """`name` is owner/name, None where origin is not on GitHub. `folder` is the service's, `""` or `a/b/`."""

    name: str | None
    folder: str


def parse_remote(url: str) -> str | None:
    """owner/name of a remote on GitHub; None for any other. A token in the URL is dropped."""
    found = _GITHUB.fullmatch(url.strip())
    return found["name"] if found else None


def read_repository(folder: Path) -> Repository:
    """What git says of the service's folder; outside git neither name nor folder."""
    return Repository(
        name=parse_remote(_git(folder, "remote", "get-url", "origin")),
        folder=_git(folder, "rev-parse", "--show-prefix"),
    )


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
