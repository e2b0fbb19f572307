"""Compiles the modules that run for each request into `src/hitless/_compiled/`, by mypyc; also hatchling's build hook.

A wheel gets them if a C compiler and Python's headers are at hand, and is a pure one if not. An editable install gets
them by `scripts/setup`, which runs this file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "src"
sys.path.insert(0, str(SOURCE))
from hitless.worker import compiled  # noqa: E402 - a wheel's build has no installed hitless

# Runs in a copy of the sources, because mypyc and setuptools write beside them.
BUILD = """
import sys
from mypyc.build import mypycify
from setuptools import setup
files = [f"hitless/worker/{name}.py" for name in sys.argv[1:]]
options = ["--python-version", "3.11", "--follow-imports", "silent", "--ignore-missing-imports", "--no-incremental"]
extensions = mypycify([*options, *files], opt_level="2", debug_level="0", group_name="hitless_worker")
setup(name="worker", ext_modules=extensions, script_args=["-q", "build_ext", "--build-lib", "out"])
"""


def why_not() -> str:
    """Why nothing can be compiled here; empty if it can."""
    if os.environ.get("HITLESS_COMPILED") == "0":
        return "HITLESS_COMPILED is 0"
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"the C compiler {compiler} is missing"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python.h is missing (Debian: apt install python3-dev)"
    return ""


def compile_worker() -> Path:
    """Compile unless it was done. Returns the folder; removes those of other sources. Raises CalledProcessError."""
    parent = SOURCE / "hitless" / "_compiled"
    folder = parent / compiled.folder_name()
    if compiled.find({}):
        return folder
    with tempfile.TemporaryDirectory() as place:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCE / "hitless" / "worker", Path(place, "hitless", "worker"), ignore=ignored)
        Path(place, "hitless", "__init__.py").touch()
        command = [sys.executable, "-c", BUILD, *compiled.MODULES]
        subprocess.run(command, cwd=place, check=True, capture_output=True, text=True)
        parent.mkdir(exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=parent, prefix="."))
        for file in Path(place, "out").rglob("*.so"):
            shutil.copy(file, making)
    making.chmod(0o755)
    for old in parent.glob("worker-*"):
        shutil.rmtree(old, ignore_errors=True)
    with suppress(OSError):  # another process was faster
        making.rename(folder)
    return folder


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:
    pass
else:

    class WorkerHook(BuildHookInterface[Any]):
        """Adds the compiled modules to a wheel."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile for a wheel; leave it pure if that fails."""
            if version == "editable":
                return
            try:
                reason = why_not()
                folder = None if reason else compile_worker()
            except subprocess.CalledProcessError as error:
                folder, reason = None, error.stderr[-2000:]
            if folder is None:
                self.app.display_warning(f"the workers stay uncompiled: {reason}")
                return
            build_data["force_include"][str(folder)] = f"hitless/_compiled/{folder.name}"
            build_data["pure_python"], build_data["infer_tag"] = False, True


if __name__ == "__main__":
    if problem := why_not():
        sys.exit(f"setup: the workers run uncompiled: {problem}")
    try:
        compile_worker()
    except subprocess.CalledProcessError as failure:
        sys.exit(f"setup: the workers run uncompiled: mypyc failed: {failure.stderr[-2000:]}{failure.stdout[-2000:]}")
