"""Finds the compiled modules of this package, and makes a worker process import them instead of their sources.

`scripts/compile_worker.py` compiles them by mypyc. A folder is named by a hash of all sources here, so a compiled
module is never used after its source has changed. Another Python version ignores the files, because their names end
with the version.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

import hitless.worker

MODULES: Final = (
    *("authorizer", "binary", "context", "cors", "event", "guard", "heads", "http_api"),
    *("invocation", "layout", "log", "mapping", "request", "response", "server", "trace"),
)
"""The modules that run for each request. A base class and its subclasses are compiled together."""
LIBRARY: Final = "hitless_worker__mypyc"
"""The shared library behind the compiled modules."""
SWITCH: Final = "HITLESS_COMPILED"
_SOURCES: Final = Path(__file__).parent


def folder_name(sources: Path = _SOURCES) -> str:
    """The name of the folder for these sources."""
    texts = b"".join(path.read_bytes() for path in sorted(sources.glob("*.py")))
    return f"worker-{hashlib.sha256(texts).hexdigest()[:16]}"


def find(environ: Mapping[str, str], sources: Path = _SOURCES) -> str:
    """The folder of the compiled modules for these sources and this Python; empty if it is missing or switched off."""
    if environ.get(SWITCH) == "0":
        return ""
    folder = sources.parent / "_compiled" / folder_name(sources)
    return str(folder) if (folder / f"{LIBRARY}{EXTENSION_SUFFIXES[0]}").exists() else ""


def why_not(environ: Mapping[str, str], sources: Path = _SOURCES) -> str:
    """Why `find` finds nothing."""
    if environ.get(SWITCH) == "0":
        return f"{SWITCH} is 0"
    parent = sources.parent / "_compiled"
    if not any(parent.glob(f"worker-*/{LIBRARY}.*")):
        return "they were not compiled; `scripts/setup` does it if it finds a C compiler and Python.h"
    if (parent / folder_name(sources)).exists():
        return "they were compiled for another Python version; run `scripts/setup`"
    return "the sources have changed since they were compiled; run `scripts/setup`"


def use(folder: str) -> None:
    """Import the compiled modules from this folder from now on. Nothing changes if the library cannot be loaded."""
    if not folder:
        return
    sys.path.insert(0, folder)
    try:
        importlib.import_module(LIBRARY)
        hitless.worker.__path__.insert(0, folder)
    except ImportError as error:
        print(f"the compiled worker cannot be loaded: {error}", file=sys.stderr)  # noqa: T201 - the root zygote's log
    finally:
        sys.path.remove(folder)
