"""The steps by which a stage is mended, as data: `troubles` chooses them, `repair` takes them.

Each reads as a sentence. `Step` lists them in the order in which they are taken: traffic first, then what leads clients
to it, then what is kept ready, then the stack, the records last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from hitless.cloud.repair.facts import Mapped, Served
from hitless.cloud.transform.model import FunctionIds


@dataclass(frozen=True, slots=True)
class StopShifts:
    """CodeDeploy's deployments of these groups; it moves their aliases back by itself."""

    groups: tuple[str, ...]

    def __str__(self) -> str:
        return f"stop the deployments of {', '.join(self.groups)}, which moves their traffic back"


@dataclass(frozen=True, slots=True)
class Point:
    """All of a function's traffic to one version."""

    function: str
    version: str

    def __str__(self) -> str:
        return f"point all traffic of {self.function} at version {self.version}"


@dataclass(frozen=True, slots=True)
class FinishRollback:
    """The rest of a rollback whose traffic is there already."""

    release: int

    def __str__(self) -> str:
        return f"finish the rollback to release {self.release}"


@dataclass(frozen=True, slots=True)
class Serve:
    """The Stage back to the Deployment that the stack gives it."""

    served: Served

    def __str__(self) -> str:
        return f"have stage {self.served.stage.name} serve Deployment {self.served.belongs}"


@dataclass(frozen=True, slots=True)
class Map:
    """A domain's mapping where the stack has it."""

    mapped: Mapped

    def __str__(self) -> str:
        return f"map {self.mapped.domain} to stage {self.mapped.belongs.name} of API {self.mapped.belongs.api}"


@dataclass(frozen=True, slots=True)
class Provision:
    """So many environments of the version ready; none with 0."""

    ids: FunctionIds
    function: str
    version: str
    environments: int

    def __str__(self) -> str:
        if not self.environments:
            return f"keep nothing ready of {self.function} version {self.version}"
        return f"keep {self.environments} environments of {self.function} version {self.version} ready"


@dataclass(frozen=True, slots=True)
class DropShield:
    """Stage variables and permissions of a shield that no shift needs."""

    def __str__(self) -> str:
        return "take the shield down"


@dataclass(frozen=True, slots=True)
class SettleStack:
    """The stack from where it got stuck to where it can be updated. `continues` a roll-back that got stuck."""

    stack: str
    continues: bool

    def __str__(self) -> str:
        if self.continues:
            return f"continue the roll-back of {self.stack}"
        return f"bring {self.stack} to where it can be updated"


@dataclass(frozen=True, slots=True)
class Upload:
    """An artifact into the bucket again: from this machine, or from Lambda."""

    function: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"put the artifact {self.sha256[:12]}… of {self.function} into the bucket again"


@dataclass(frozen=True, slots=True)
class End:
    """The record of a release whose machine died: how it ended."""

    release: int
    live: bool

    def __str__(self) -> str:
        return f"record release {self.release} as {'live' if self.live else 'rolled back'}"


Step = StopShifts | Point | FinishRollback | Serve | Map | Provision | DropShield | SettleStack | Upload | End

_ORDER = get_args(Step)


def rank(step: Step | None) -> int:
    """When it is taken, among others; what only a person can do comes last."""
    return len(_ORDER) if step is None else _ORDER.index(type(step))
