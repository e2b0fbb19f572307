"""The libraries that a handler may import besides its artifact and the standard library: those of Lambda's Python
runtime.

They are found by name in hitless's own environment; handlers can import nothing else from it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from hitless.worker import compiled
from hitless.worker.environment import HIDDEN, INHERITED

RUNTIME_LIBRARIES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")


def runtime_libraries() -> dict[str, str]:
    """Top-level name → the folder that it is imported from, for the installed ones."""
    return {name: folder for name in RUNTIME_LIBRARIES if (folder := _folder(name))}


def own_paths() -> list[str]:
    """The entries of `sys.path` that a worker process needs itself: hitless, httptools, setproctitle."""
    return list(dict.fromkeys(folder for name in HIDDEN if (folder := _folder(name))))


def inherited_environment() -> dict[str, str]:
    """The variables of the daemon's environment that a worker process starts with."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def isolated_command(python: str, module: str, argument: str) -> list[str]:
    """The command that calls `hitless.worker.<module>.main(argument, own paths)` with nothing else to import."""
    boot = "import sys, json; paths = json.loads(sys.argv[2]); sys.path += paths; "
    boot += "from hitless.worker.compiled import use; use(sys.argv[3]); "
    boot += f"from hitless.worker.{module} import main; main(sys.argv[1], paths)"
    options = ["-I", "-S", "-X", "utf8"]
    return [python, *options, "-c", boot, argument, json.dumps(own_paths()), compiled.find(os.environ)]


def modules_in_use(environ: Mapping[str, str]) -> str:
    """Whether new workers run compiled, and why not. Uncompiled ones give the same responses, but take longer."""
    folder = compiled.find(environ)
    return f"run compiled, from {folder}" if folder else f"run uncompiled: {compiled.why_not(environ)}"


def base_python() -> str:
    """The interpreter that this virtual environment was made from, without the environment's packages."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _folder(name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return str(origin.parent.parent if origin.name.startswith("__init__.") else origin.parent)
