"""What the pipeline is made of, given to each of its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hitless.clock import Clock
from hitless.engine.engine import Engine
from hitless.pipeline.builds import Builds
from hitless.pipeline.repository import Repository
from hitless.pipeline.workshop import Workshop
from hitless.rollout.release import ReleaseDocument
from hitless.store.runs import RunRecords


class Rehearse(Protocol):
    """Rolls a candidate out over a copy of the live release, elsewhere; its findings, of which one is `may_ship`."""

    async def __call__(self, live: ReleaseDocument, candidate: ReleaseDocument, *, log: Path) -> dict[str, Any]: ...


Tell = Callable[[str, Mapping[str, Any]], None]
"""Tells who wants to know: what happened (`succeeded`, `failed`, `waiting_for_approval`), and the run's document."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The real ones are put together by `hitless.cli.wire`; `urls` gives each stage's address for clients."""

    engine: Engine
    workshop: Workshop
    repository: Repository
    records: RunRecords
    builds: Builds
    clock: Clock
    urls: Callable[[], Mapping[str, str]]
    rehearse: Rehearse
    tell: Tell
