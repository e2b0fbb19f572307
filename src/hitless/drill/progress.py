"""Shows a drill while it runs: a line for each event, and on a terminal one live line below them."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The numbers that are shown while a drill runs."""

    elapsed_s: float
    duration_s: float
    requests: int
    failed: int
    releases_done: int
    releases: int
    p99_ms: float | None
    doing: str


class TerminalProgress:
    """Progress on standard error; the live line only if that is a terminal."""

    def __init__(self) -> None:
        self._live: Progress | None = None
        self._task = TaskID(0)
        if sys.stderr.isatty():
            self._live = Progress(
                TextColumn("{task.fields[clock]}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[sent]}"),
                TextColumn("{task.fields[failed]}"),
                TextColumn("[dim]{task.fields[rest]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._live.add_task("", total=1.0, clock="", sent="", failed="", rest="")

    def __enter__(self) -> TerminalProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def tick(self, snapshot: Snapshot) -> None:
        if self._live is None:
            return
        colour = "bold red" if snapshot.failed else "green"
        p99 = f"p99 {snapshot.p99_ms:.1f} ms · " if snapshot.p99_ms is not None else ""
        releases = f"releases {snapshot.releases_done}/{snapshot.releases} · " if snapshot.releases else ""
        self._live.update(
            self._task,
            total=snapshot.duration_s,
            completed=min(snapshot.elapsed_s, snapshot.duration_s),
            clock=f"{max(0.0, snapshot.elapsed_s):.0f}/{snapshot.duration_s:g} s",
            sent=f"{snapshot.requests:,} requests",
            failed=f"[{colour}]{snapshot.failed:,} failed[/]",
            rest=f"{p99}{releases}{snapshot.doing}",
        )
