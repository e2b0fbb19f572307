"""Which branch feeds which stage, what protects it, and what a build may take: what the pipeline must know before a
commit is read.

Kept in the data folder; written by `hitless pipeline url`. A run only ever adds to it, until it has shipped: its commit
then speaks for the stage that it is live in, and for no other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from hitless.documents import convert, decode, to_plain, to_text
from hitless.errors import EngineError
from hitless.service.model import Approval, BuildSettings, RehearsalSettings, StageSettings


@dataclass(frozen=True, slots=True)
class Definition:
    """`path` is the service's folder in the repository, "" for its root; `stages` are in the order of promotion."""

    service: str
    path: str
    stages: tuple[StageSettings, ...]
    builds: BuildSettings = field(default_factory=BuildSettings)

    @classmethod
    def read(cls, file: Path) -> Definition | None:
        """None where there is none yet. Raises EngineError where it is damaged."""
        try:
            return decode(file.read_bytes(), cls, file.name)
        except FileNotFoundError:
            return None
        except (OSError, EngineError) as error:
            raise EngineError(
                f"{file} cannot be read: {error}", hint="`hitless pipeline url` writes it anew"
            ) from error

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Definition:
        """The inverse of `to_json`. Raises EngineError for anything else."""
        return convert(document, cls, "the pipeline's definition")

    def to_json(self) -> dict[str, Any]:
        """JSON's own types only. It may hold secrets: whom `notify` names."""
        return dict(to_plain(self))

    def write(self, file: Path) -> None:
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(to_text(self))
        fresh.replace(file)

    def joined_by(self, commits: Definition) -> Definition:
        """With a commit's limits of builds and the stages that only it has. Ours stay, at least as strict as there."""
        stages = {stage.name: stage for stage in self.stages}
        for stage in commits.stages:
            stages[stage.name] = stricter(stages.get(stage.name, stage), stage)
        return replace(self, stages=tuple(stages.values()), builds=commits.builds)

    def with_live(self, settings: StageSettings) -> Definition:
        """A release with these settings is live in their stage."""
        return replace(self, stages=tuple(settings if one.name == settings.name else one for one in self.stages))

    def fed_by(self, branch: str) -> tuple[StageSettings, ...]:
        """The stages that a branch feeds."""
        return tuple(stage for stage in self.stages if stage.branch == branch)

    def stage(self, name: str) -> StageSettings | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def before(self, stage: str) -> str | None:
        """The stage that promotes into this one."""
        names = [one.name for one in self.stages]
        index = names.index(stage) if stage in names else 0
        return names[index - 1] if index > 0 else None

    def guarded(self, stage: StageSettings) -> bool:
        """Whether it takes only what was live in the stage before it: it asks for approval, or is named prod."""
        return self.before(stage.name) is not None and (stage.approval is Approval.MANUAL or stage.name == "prod")


def stricter(one: StageSettings, other: StageSettings) -> StageSettings:
    """`one`, and every step and check that `other` asks for besides. Pure."""
    rehearsals = [astuple(each.rehearsal) for each in (one, other) if each.rehearsal]
    return replace(
        one,
        approval=other.approval if one.approval is Approval.NONE else one.approval,
        rehearsal=RehearsalSettings(*map(max, zip(*rehearsals, strict=True))) if rehearsals else None,
        test=one.test or other.test,
        verify=one.verify or other.verify,
        required_checks=one.required_checks or other.required_checks,
    )
