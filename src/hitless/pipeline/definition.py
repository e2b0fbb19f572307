"""Which branch feeds which stage, in the order of promotion, and what a build may take: what the pipeline must know
before a commit is read.

Kept in the data folder; written by `hitless pipeline url`, and again from each commit that is pushed to a stage.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hitless.errors import EngineError
from hitless.service.model import Approval, BuildSettings, Service


@dataclass(frozen=True, slots=True)
class StageEntry:
    """One stage. A `guarded` one takes only what was live in the stage before it; what goes to a `tested` one is tested
    first; the branch of a `checked` one takes only what has passed its tests as another branch.
    """

    stage: str
    branch: str
    guarded: bool
    tested: bool = True
    checked: bool = False

    @property
    def asks(self) -> bool:
        """Whether there is anything to override."""
        return self.guarded or self.checked


@dataclass(frozen=True, slots=True)
class Definition:
    """`path` is the service's folder in the repository, "" for its root."""

    service: str
    path: str
    stages: tuple[StageEntry, ...]
    builds: BuildSettings = field(default_factory=BuildSettings)

    @classmethod
    def of(cls, service: Service, path: str) -> Definition:
        """A stage that asks for approval, and one named prod, is guarded, unless it is the first."""
        entries = tuple(
            StageEntry(
                stage.name,
                stage.branch,
                bool(index) and (stage.approval is Approval.MANUAL or stage.name == "prod"),
                stage.test,
                stage.required_checks,
            )
            for index, stage in enumerate(service.stages)
        )
        return cls(service.name, path, entries, service.builds)

    @classmethod
    def read(cls, file: Path) -> Definition | None:
        """None where there is none yet. Raises EngineError where it is damaged."""
        try:
            document = json.loads(file.read_text())
            stages = tuple(StageEntry(**entry) for entry in document["stages"])
            builds = BuildSettings(**document.get("builds", {}))
            return cls(str(document["service"]), str(document["path"]), stages, builds)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"{file} cannot be read: {error!r}", hint="`hitless pipeline url` writes it anew"
            ) from error

    def write(self, file: Path) -> None:
        stages: list[dict[str, Any]] = [asdict(entry) for entry in self.stages]
        fresh = file.with_suffix(f".{os.getpid()}")
        document = {"service": self.service, "path": self.path, "stages": stages, "builds": asdict(self.builds)}
        fresh.write_text(json.dumps(document))
        fresh.replace(file)

    def fed_by(self, branch: str) -> tuple[StageEntry, ...]:
        """The stages that a branch feeds."""
        return tuple(entry for entry in self.stages if entry.branch == branch)

    def entry(self, stage: str) -> StageEntry | None:
        return next((entry for entry in self.stages if entry.stage == stage), None)

    def before(self, stage: str) -> str | None:
        """The stage that promotes into this one."""
        names = [entry.stage for entry in self.stages]
        index = names.index(stage) if stage in names else 0
        return names[index - 1] if index > 0 else None
