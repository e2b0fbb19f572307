"""The daemon's memory: its threads share one arena of malloc."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.component

PROGRAM = """
import ctypes, threading
from hitless.processes.engine import keep_one_arena
keep_one_arena()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
threads = [threading.Thread(target=libc.malloc, args=(1000,)) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc_info")
def test_all_threads_of_the_daemon_share_one_arena() -> None:
    shown = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert shown.count("<heap nr=") == 1
