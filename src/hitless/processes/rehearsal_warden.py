"""A rehearsal's warden, the parent of its sandbox's daemon. Started by `hitless rehearse`: `FOLDER RUN -- COMMAND…`.

The parts of an engine outlive its daemon, and the daemon outlives its starter; those of a sandbox must not. The
warden's standard input is a pipe that only the rehearsal holds open. When that ends, because the rehearsal has ended or
died, or when the daemon has ended, the warden kills all descendants of the daemon and removes both folders.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from hitless.artifact.trees import remove
from hitless.engine.folders import hold
from hitless.pipeline.buildspec.processes import end_all, input_ended, reap
from hitless.pipeline.rehearsal.leftovers import WARDEN_LOCK
from hitless.worker.process import adopt_orphans

LOOK_S = 0.05
_MOST_DESCRIPTORS = 256


def main() -> None:
    """Run the command until it or standard input ends, then remove everything that is left of it."""
    folders, command = sys.argv[1:3], sys.argv[4:]
    adopt_orphans()
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False, start_new_session=True)
    os.closerange(3, _MOST_DESCRIPTORS)  # the daemon's ready pipe, which must end with the daemon
    with suppress(OSError):  # the rehearsal may have gone already, and its folder with it
        hold(Path(folders[0]) / WARDEN_LOCK)
    while not input_ended(LOOK_S):
        if daemon.pid in reap():  # unreaped orphans would look alive to the engine
            break
    end_all(daemon.pid, os.getpid())
    for folder in folders:
        with suppress(OSError):  # the rehearsal also removes them
            remove(Path(folder))


if __name__ == "__main__":
    main()
