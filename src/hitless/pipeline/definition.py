"""The pipeline's definition: branches, protection and promotion order of the stages, and build limits.

It is needed before a commit is read, so `hitless pipeline url` writes it to the data folder. Until a run has deployed
its commit, the commit's settings can only make the definition stricter. Once the commit is live in a stage, its
settings replace that stage's settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from msgspec import structs

from hitless.documents import decode, replace_file, to_text
from hitless.errors import EngineError
from hitless.service.model import Approval, BuildSettings, PreviewSettings, RehearsalSettings, StageSettings


@dataclass(frozen=True, slots=True)
class Definition:
    """`path` is the service's folder in the repository, "" for its root; `stages` are in the order of promotion.

    `previews` are set on an engine that several services share; another engine reads them when it starts.
    """

    service: str
    path: str
    stages: tuple[StageSettings, ...]
    builds: BuildSettings = field(default_factory=BuildSettings)
    previews: PreviewSettings | None = None

    @classmethod
    def read(cls, file: Path) -> Definition | None:
        """Read the file; None if there is none yet. Raises EngineError if it is damaged."""
        try:
            return decode(file.read_bytes(), cls, file.name)
        except FileNotFoundError:
            return None
        except (OSError, EngineError) as error:
            raise EngineError(f"{file} cannot be read: {error}", hint="`hitless pipeline url` rewrites it") from error

    def write(self, file: Path) -> None:
        """Write a file that only its owner can read, because `notify` may contain secrets."""
        replace_file(file, to_text(self), mode=0o600, durable=True)

    def merged_with(self, from_commit: Definition) -> Definition:
        """A copy with the commit's build limits and its stages. Existing stages become at least as strict as there."""
        stages = {stage.name: stage for stage in self.stages}
        for stage in from_commit.stages:
            stages[stage.name] = stricter(stages.get(stage.name, stage), stage)
        return replace(self, stages=tuple(stages.values()), builds=from_commit.builds)

    def with_live(self, settings: StageSettings) -> Definition:
        """A copy in which a stage has the settings of the release that is now live in it."""
        return replace(self, stages=tuple(settings if old.name == settings.name else old for old in self.stages))

    def deployed_from(self, branch: str) -> tuple[StageSettings, ...]:
        """The stages that are deployed from this branch."""
        return tuple(stage for stage in self.stages if stage.branch == branch)

    def stage(self, name: str) -> StageSettings | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def previous_stage(self, stage: str) -> str | None:
        """The stage from which releases are promoted to this one."""
        names = [one.name for one in self.stages]
        index = names.index(stage) if stage in names else 0
        return names[index - 1] if index > 0 else None

    def requires_promotion(self, stage: StageSettings) -> bool:
        """Whether the stage accepts only commits that were live in the previous stage: prod, and after an approval."""
        manual = stage.approval is Approval.MANUAL or stage.name == "prod"
        return manual and self.previous_stage(stage.name) is not None


def stricter(one: StageSettings, other: StageSettings) -> StageSettings:
    """`one` with every step and check that `other` asks for as well. Has no side effects."""
    rehearsals = [structs.astuple(settings.rehearsal) for settings in (one, other) if settings.rehearsal]
    return structs.replace(
        one,
        approval=other.approval if one.approval is Approval.NONE else one.approval,
        rehearsal=RehearsalSettings(*map(max, zip(*rehearsals, strict=True))) if rehearsals else None,
        test=one.test or other.test,
        verify=one.verify or other.verify,
        required_checks=one.required_checks or other.required_checks,
    )
