"""A rehearsal's warden, the parent of its sandbox's daemon. Started by `hitless rehearse`: `FOLDER RUN -- COMMAND…`.

An engine's parts outlive its daemon, and a daemon outlives who started it; those of a sandbox must not. The warden's
standard input is a pipe that the rehearsal alone holds open. When it ends (the rehearsal has gone, however it went), or
when the daemon has ended, the warden kills whatever came of the daemon and removes both folders.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from hitless.artifact.trees import remove
from hitless.pipeline.buildspec.processes import become_subreaper, end_all, input_ended
from hitless.pipeline.rehearsal.leftovers import WARDEN_LOCK, hold

LOOK_S = 0.05
_MOST_DESCRIPTORS = 256


def main() -> None:
    """Run the command until it ends or standard input does; then leave nothing of it."""
    folders, command = sys.argv[1:3], sys.argv[4:]
    become_subreaper()
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False, start_new_session=True)
    os.closerange(3, _MOST_DESCRIPTORS)  # the daemon's ready pipe: it ends with the daemon, not with us
    with suppress(OSError):  # the rehearsal may have gone already, and its folder with it
        hold(Path(folders[0]) / WARDEN_LOCK)
    while not input_ended(LOOK_S):
        if daemon.pid in _reap():
            break
    end_all(daemon.pid, os.getpid())
    for folder in folders:
        with suppress(OSError):  # the rehearsal removes them at its end, too
            remove(Path(folder))


def _reap() -> set[int]:
    """Children that have ended, the daemon or orphans of it. Not reaped, they would look alive to the engine."""
    found = set()
    try:
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            found.add(pid)
    except ChildProcessError:
        pass
    return found


if __name__ == "__main__":
    main()
