"""The boot folder: the files that HAProxy reads at its start. It is always complete.

Each change writes a new generation `boot.N` with all its files and then moves the link `boot` by one rename, so no file
is half written and no generation mixes two changes. (A HAProxy that starts while the link moves may read both; the
gateway checks each new HAProxy and corrects it.) The previous generation is kept, because a change that HAProxy rejects
is undone. No fsync: after a power cut nothing is left that these files could describe.
"""

from __future__ import annotations

import os
import shutil

from hitless.documents import decode, to_text
from hitless.errors import EngineError, MachineError
from hitless.gateway.render import CONFIGURATION, POOL, Layout, Tuning, render, template
from hitless.gateway.state import LONGEST_SOCKET_BYTES, GatewayState
from hitless.worker.paths import HOP

STATE = "state.json"


class BootFolder:
    """The generations of one layout. Blocking; a generation of 64 pools takes a few milliseconds."""

    def __init__(self, layout: Layout, tuning: Tuning) -> None:
        self._layout = layout
        self._tuning = tuning
        for name in (CONFIGURATION, POOL):
            template(name)
        self._names: frozenset[str] = frozenset()  # of the current generation's files

    def prepare(self) -> None:
        """Create the folder, mode 0700. MachineError if it belongs to another user or has too long a path."""
        folder = self._layout.folder
        longest = max(self._layout.sockets, key=lambda path: len(os.fsencode(path)))
        if len(os.fsencode(longest)) > LONGEST_SOCKET_BYTES:
            raise MachineError(
                f"the runtime folder's path is too long for sockets: {longest}",
                hint="set XDG_RUNTIME_DIR to a shorter path",
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise MachineError(f"{folder} belongs to another user")
        folder.chmod(0o700)
        (folder / HOP).parent.mkdir(exist_ok=True)
        (folder / HOP).parent.chmod(0o711)  # isolated workers, which have another user, see it

    def write(self, state: GatewayState) -> None:
        """Make HAProxy start with that state from now on. Raises MachineError if the files cannot be written."""
        current = self._current()
        number = current + 1
        target = self._layout.folder / f"boot.{number}"
        try:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(mode=0o700)
            files = {**render(state, self._layout, self._tuning), STATE: to_text(state)}
            for name, text in files.items():
                (target / name).write_text(text, encoding="utf-8")
            link = self._layout.folder / "boot.new"
            link.unlink(missing_ok=True)
            link.symlink_to(target.name)
            link.rename(self._layout.boot)
        except OSError as error:
            shutil.rmtree(target, ignore_errors=True)
            raise MachineError(
                f"cannot write the gateway's boot files in {self._layout.folder}: {error.strerror}"
            ) from error
        self._names = frozenset(files)
        self._prune(keep={number, current})

    def load(self) -> GatewayState | None:
        """The state of the current generation; None if there is no readable one."""
        try:
            self._names = frozenset(os.listdir(self._layout.boot))
            return decode((self._layout.boot / STATE).read_bytes(), GatewayState, str(self._layout.boot / STATE))
        except (OSError, EngineError):
            return None

    def is_complete(self) -> bool:
        """Whether all files of the current generation exist: a cleaner of temporary files may have removed some."""
        return all((self._layout.boot / name).exists() for name in self._names)

    def _current(self) -> int:
        try:
            return int(os.readlink(self._layout.boot).rpartition(".")[2])
        except (OSError, ValueError):
            return 0

    def _prune(self, keep: set[int]) -> None:
        for folder in self._layout.folder.glob("boot.*"):
            number = folder.name.partition(".")[2]
            if number.isdigit() and int(number) not in keep:
                shutil.rmtree(folder, ignore_errors=True)
