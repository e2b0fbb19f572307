"""Finds and removes sandboxes whose rehearsal and warden were both killed.

A sandbox's folder has a lock for the rehearsal and one for its warden; the kernel frees them with their processes. A
sandbox with neither lock held is left over. A folder that has just been made may have no lock yet.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hitless.artifact.trees import remove
from hitless.errors import HitlessError
from hitless.worker.process import is_locked

PREFIX = "hitless-sandbox-"
REHEARSAL_LOCK, WARDEN_LOCK = "rehearsal.lock", "warden.lock"
YOUNG_S = 30.0


def leftovers(temporary: Path) -> list[Path]:
    """This user's left-over sandboxes in the temporary folder."""
    found = []
    for folder in temporary.glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            known = (folder / REHEARSAL_LOCK).exists() or time.time() - status.st_mtime > YOUNG_S
            if ours and known and not any(is_locked(folder / name) for name in (REHEARSAL_LOCK, WARDEN_LOCK)):
                found.append(folder)
    return found


def sweep(temporary: Path, end: Callable[[Path], None]) -> int:
    """Remove left-over sandboxes after `end` has ended their processes. Returns how many. The next sweep retries."""
    gone = 0
    for folder in leftovers(temporary):
        with suppress(OSError, HitlessError):  # another sweep has it, or it cannot be ended now
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                end(folder)
                remove(folder)
                gone += 1
            finally:
                os.close(lock)
    return gone
