"""The trace variable in a real environment: Python, C and child processes see it, and it does not leak."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hitless.worker.trace import LONGEST_TRACE_BYTES, TRACE_VARIABLE, TraceVariable

pytestmark = pytest.mark.component


@pytest.fixture
def variable() -> Iterator[TraceVariable]:
    """Removed afterwards, so that no buffer outlives its object in the environment."""
    yield TraceVariable()
    os.environ.pop(TRACE_VARIABLE, None)
    os.unsetenv(TRACE_VARIABLE)


def seen() -> tuple[str | None, str, str]:
    """The values that Python, a child process and C code see."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    child = subprocess.run(["printenv", TRACE_VARIABLE], capture_output=True, text=True, check=False).stdout
    return os.environ.get(TRACE_VARIABLE), child.rstrip("\n"), (getenv(TRACE_VARIABLE.encode()) or b"").decode()


def test_each_trace_id_is_visible_to_python_code_to_c_code_and_to_child_processes(variable: TraceVariable) -> None:
    for value in ("Root=1-a", "Root=1-longer-than-before", "", "Root=1-é"):
        variable.set(value)
        assert seen() == (value, value, value)


def test_a_handlers_change_of_the_trace_variable_does_not_affect_later_requests(
    variable: TraceVariable,
) -> None:
    variable.set("first")
    os.environ[TRACE_VARIABLE] = "the handler's own"
    variable.set("second")
    assert seen() == ("second",) * 3
    del os.environ[TRACE_VARIABLE]
    variable.set("third")
    assert seen() == ("third",) * 3
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(saved)
    variable.set("fourth")
    assert seen() == ("fourth",) * 3


def test_a_trace_id_too_long_for_the_buffer_works_and_so_does_the_next(variable: TraceVariable) -> None:
    variable.set("short")
    for value in ("x" * (LONGEST_TRACE_BYTES + 1), "y" * LONGEST_TRACE_BYTES, "short again"):
        variable.set(value)
        assert seen() == (value, value, value)


def test_setting_the_trace_id_for_many_requests_leaks_no_memory(variable: TraceVariable) -> None:
    def resident_kib() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    variable.set("warm")
    before = resident_kib()
    for number in range(300_000):
        variable.set(f"Root=1-{number:032x}")
    assert resident_kib() - before < 8192  # by os.environ it is 33,000
