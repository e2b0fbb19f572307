"""The pipeline's definition: branches, protection and promotion order of the stages, and limits of builds.

It is needed before a commit is read, so `hitless pipeline url` writes it to the data folder. A run can only make it
stricter until it has shipped; then its commit's settings replace those of the stage in which it is live.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from hitless.documents import decode, replace_file, to_text
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
        """None if there is none yet. Raises EngineError if it is damaged."""
        try:
            return decode(file.read_bytes(), cls, file.name)
        except FileNotFoundError:
            return None
        except (OSError, EngineError) as error:
            raise EngineError(
                f"{file} cannot be read: {error}", hint="`hitless pipeline url` writes it again"
            ) from error

    def write(self, file: Path) -> None:
        """Into a private file: `notify` may hold secrets."""
        replace_file(file, to_text(self), mode=0o600)

    def joined_by(self, commits: Definition) -> Definition:
        """With a commit's limits of builds and its additional stages. Other stages stay, made at least as strict."""
        stages = {stage.name: stage for stage in self.stages}
        for stage in commits.stages:
            stages[stage.name] = stricter(stages.get(stage.name, stage), stage)
        return replace(self, stages=tuple(stages.values()), builds=commits.builds)

    def with_live(self, settings: StageSettings) -> Definition:
        """With the settings of a release that is now live in their stage."""
        return replace(self, stages=tuple(settings if one.name == settings.name else one for one in self.stages))

    def fed_by(self, branch: str) -> tuple[StageSettings, ...]:
        """The stages that a branch feeds."""
        return tuple(stage for stage in self.stages if stage.branch == branch)

    def stage(self, name: str) -> StageSettings | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def before(self, stage: str) -> str | None:
        """The stage that is promoted to this one."""
        names = [one.name for one in self.stages]
        index = names.index(stage) if stage in names else 0
        return names[index - 1] if index > 0 else None

    def guarded(self, stage: StageSettings) -> bool:
        """Whether it takes only commits that were live in the stage before it, as prod and stages with approval do."""
        return self.before(stage.name) is not None and (stage.approval is Approval.MANUAL or stage.name == "prod")


def stricter(one: StageSettings, other: StageSettings) -> StageSettings:
    """`one` with every step and check that `other` asks for as well. Pure."""
    rehearsals = [astuple(each.rehearsal) for each in (one, other) if each.rehearsal]
    return replace(
        one,
        approval=other.approval if one.approval is Approval.NONE else one.approval,
        rehearsal=RehearsalSettings(*map(max, zip(*rehearsals, strict=True))) if rehearsals else None,
        test=one.test or other.test,
        verify=one.verify or other.verify,
        required_checks=one.required_checks or other.required_checks,
    )
