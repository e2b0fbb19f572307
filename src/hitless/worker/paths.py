"""The paths of a pool's files. Zygotes and the daemon both take them from here.

RUN/w/root.sock, root.lock, root.log          the root zygote
RUN/w/<folder of the key>/spec.json, page     a pool
                         /g<N>/               one generation of it: a zygote and its workers
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LONGEST_FOLDER: Final = 28
HOP: Final = "hop/in.sock"
HANDED: Final = "handed/in.sock"
"""Sockets of the gateway's folder for workers. Each has a folder, which isolated workers see: a new process may bind it
again."""


def folder_name(key: str) -> str:
    """A pool's folder: its key, shortened if a Unix socket's path (97 bytes with HAProxy) would become too long."""
    plain = "".join(char if char.isalnum() or char in "-_." else "-" for char in key)
    if plain == key and len(key) <= _LONGEST_FOLDER and not key.startswith("."):
        return key
    return f"{plain.strip('.')[: _LONGEST_FOLDER - 11]}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class GenerationPaths:
    """The files of one generation."""

    pool: Path
    generation: int

    @property
    def folder(self) -> Path:
        """RUN/w/<pool>/g<N>."""
        return self.pool / f"g{self.generation}"

    @property
    def spec(self) -> Path:
        """The pool's PoolSpec, JSON."""
        return self.pool / "spec.json"

    @property
    def page(self) -> Path:
        """The pool's stats page, shared by its generations."""
        return self.pool / "page"

    @property
    def spooler(self) -> Path:
        """By this socket the gateway's spooler takes over connections (`hitless.gateway.spooler`)."""
        return self.pool.parents[1] / "gw" / HANDED

    @property
    def hop(self) -> Path:
        """HAProxy's inner socket, by which a worker invokes an authorizer."""
        return self.pool.parents[1] / "gw" / HOP

    @property
    def alive_lock(self) -> Path:
        """Held by the zygote and, inherited, by each of its workers: free means that all are dead."""
        return self.folder / "alive.lock"

    @property
    def control(self) -> Path:
        return self.folder / "ctl.sock"

    @property
    def zygote(self) -> Path:
        """JSON, by the zygote: its pid and start time, and whether its workers are fresh processes."""
        return self.folder / "zygote.json"

    @property
    def outcome(self) -> Path:
        """JSON, by the zygote or a fresh worker: why this generation cannot start. Empty if there is no reason."""
        return self.folder / "outcome.json"

    @property
    def accepted(self) -> Path:
        """Made by the daemon when every worker is ready and passes a probe; else the start was interrupted."""
        return self.folder / "accepted"

    def socket(self, worker: int) -> Path:
        """The socket that a worker serves."""
        return self.folder / f"w{worker}.sock"
