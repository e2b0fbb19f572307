"""The guard on compiled worker modules: those of other sources or another Python are never imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from hitless.worker import compiled, server

pytestmark = pytest.mark.component


def sources(root: Path, *, suffix: str = EXTENSION_SUFFIXES[0]) -> Path:
    """A folder with one source, and the library that was compiled from it."""
    folder = root / "worker"
    folder.mkdir()
    (folder / "server.py").write_text("A = 1\n")
    built = root / "_compiled" / compiled.folder_name(folder)
    built.mkdir(parents=True)
    (built / f"{compiled.LIBRARY}{suffix}").touch()
    return folder


def test_modules_compiled_from_these_sources_are_found(tmp_path: Path) -> None:
    folder = sources(tmp_path)
    assert compiled.find({}, folder) == str(tmp_path / "_compiled" / compiled.folder_name(folder))


def test_modules_are_not_used_after_any_source_has_changed(tmp_path: Path) -> None:
    folder = sources(tmp_path)
    (folder / "server.py").write_text("A = 2\n")
    assert compiled.find({}, folder) == ""
    assert "sources have changed" in compiled.why_not({}, folder)


def test_modules_for_another_python_are_not_used(tmp_path: Path) -> None:
    folder = sources(tmp_path, suffix=".cpython-39-x86_64-linux-gnu.so")
    assert compiled.find({}, folder) == ""
    assert "another Python" in compiled.why_not({}, folder)


def test_compiled_modules_can_be_switched_off(tmp_path: Path) -> None:
    assert compiled.find({"HITLESS_COMPILED": "0"}, sources(tmp_path)) == ""
    assert compiled.why_not({"HITLESS_COMPILED": "0"}) == "HITLESS_COMPILED is 0"


def test_a_library_that_cannot_be_loaded_leaves_the_sources_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "_compiled" / compiled.folder_name(sources(tmp_path))
    program = (
        f"from hitless.worker.compiled import use; use({str(folder)!r}); import hitless.worker.server as s; "
        "print(s.__file__)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("server.py\n")
    assert "the compiled worker cannot be loaded" in ran.stderr


def test_tests_of_single_modules_run_their_sources() -> None:
    assert str(server.__file__).endswith("server.py")
