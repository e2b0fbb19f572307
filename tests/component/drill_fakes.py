"""Replaces the engine in the drill's tests: a shipper that changes the release of a test server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hitless.drill.progress import Snapshot, TerminalProgress
from hitless.drill.shipper import Shipped, Shipper


class FakeEngine(Shipper):
    """Releases by number. `deploy` looks into the folder, as an engine would: an import that raises or hangs is turned
    away. `outcomes` overrides what a deploy (by its number) comes to.
    """

    def __init__(self, url: str, *, takes_s: float = 0.05) -> None:
        self.url = url
        self.live = 1
        self.newest = 1
        self.before: list[int] = []
        self.forgotten: set[int] = set()
        self.digests_at_start: Mapping[str, str] = {"api": "sha256:start"}
        self.outcomes: dict[int, Shipped] = {}
        self.deployed: list[dict[str, str]] = []
        self.messages: list[str] = []
        self.strategies: list[str | None] = []
        self.takes_s = takes_s

    async def status(self) -> Mapping[str, Any]:
        live = {"release": self.live, "artifacts": dict(self.digests_at_start)}
        return {"engine": {"pid": 1}, "stages": [{"stage": "dev", "url": self.url, "live": live, "functions": []}]}

    async def deploy(self, folder: Path, *, message: str, strategy: str | None = None) -> Shipped:
        await asyncio.sleep(self.takes_s)
        files = _read(folder)
        self.deployed.append(files)
        self.messages.append(message)
        self.strategies.append(strategy)
        self.newest += 1
        if self.newest in self.outcomes:
            return self.outcomes[self.newest]
        code = "\n".join(files.values())
        if "raise RuntimeError" in code:
            return Shipped(self.newest, "rolled_back", "RuntimeError: broken on purpose")
        if "time.sleep(3600)" in code:
            return Shipped(self.newest, "rolled_back", "not ready within 3 s")
        return self._make_live(self.newest)

    async def rollback(self, release: int | None) -> Shipped:
        await asyncio.sleep(self.takes_s)
        to = release if release is not None else self.before[-1]
        if to in self.forgotten:
            return Shipped(None, "error", f"there is no release {to}")
        return self._make_live(to)

    async def digests(self, folder: Path) -> Mapping[str, str]:
        return {"api": "sha256:marked"} if "hitless_drill_marker.py" in _read(folder) else {"api": "sha256:start"}

    async def up(self) -> None:
        return None

    def _make_live(self, release: int) -> Shipped:
        self.before.append(self.live)
        self.live = release
        return Shipped(release, "live")


def _read(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


class Silent(TerminalProgress):
    """Progress that is recorded and not printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.snapshots: list[Snapshot] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def tick(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
