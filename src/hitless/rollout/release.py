"""A release: one immutable, numbered set of artifacts and configuration of a service in a stage.

`ReleaseDocument` is what the command line sends and the state file keeps; with its number and stage it is a `Release`.
The fingerprint decides what "unchanged" means: code and configuration count, the commit and the message do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hitless.errors import UsageError
from hitless.gateway.state import release_key
from hitless.scaling.bounds import bounds_of
from hitless.service.document import function_from_json, function_to_json, stage_from_json, stage_to_json
from hitless.service.model import PROTECTION, Function, StageSettings
from hitless.service.routes import compile_route
from hitless.store.store import ReleaseRow
from hitless.worker.spec import PoolSpec, RouteSpec


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """An artifact by its digest (`sha256:…`); `local` ones run here only."""

    digest: str
    local: bool


@dataclass(frozen=True, slots=True)
class ReleaseDocument:
    """Everything a release is made of."""

    service: str
    region: str
    functions: tuple[Function, ...]
    artifacts: Mapping[str, ArtifactRef]
    settings: StageSettings
    commit: str | None = None
    message: str | None = None
    memory_mb: int | None = None
    """What all workers of the engine may take together; None leaves it to the engine."""
    promoted_from: Mapping[str, Any] | None = None
    """`home`, `stage` and `release` whose bytes these are; None where the release was built for its stage."""

    def fingerprint(self) -> str:
        """Equal for two documents that would serve the same, and protect their stage alike."""
        what = self.to_json()
        settings = what.pop("settings")
        kept = {key: settings.get(key) for key in ("release_header", "shield", *PROTECTION)}
        del what["commit"], what["message"]
        what.pop("promoted_from", None)
        return hashlib.sha256(json.dumps([what, kept], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "region": self.region,
            "functions": [function_to_json(function) for function in self.functions],
            "artifacts": {name: {"digest": a.digest, "local": a.local} for name, a in self.artifacts.items()},
            "settings": stage_to_json(self.settings),
            "commit": self.commit,
            "message": self.message,
            **({} if self.memory_mb is None else {"memory_mb": self.memory_mb}),
            **({} if self.promoted_from is None else {"promoted_from": dict(self.promoted_from)}),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ReleaseDocument:
        """Raises UsageError where the document is not of this shape."""
        try:
            return cls(
                service=str(document["service"]),
                region=str(document["region"]),
                functions=tuple(map(function_from_json, document["functions"])),
                artifacts={
                    name: ArtifactRef(str(a["digest"]), bool(a["local"])) for name, a in document["artifacts"].items()
                },
                settings=stage_from_json(document["settings"]),
                commit=document.get("commit"),
                message=document.get("message"),
                memory_mb=document.get("memory_mb"),
                promoted_from=document.get("promoted_from"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"the release is not of the form that this engine knows: {error!r}",
                hint="use the same version of hitless for the engine and the command",
            ) from error


@dataclass(frozen=True, slots=True)
class Release:
    """A registered release."""

    stage: str
    number: int
    document: ReleaseDocument

    @property
    def key(self) -> str:
        """The release's part of the gateway's route keys; unique over the stages."""
        return release_key(self.stage, self.number)

    @property
    def served(self) -> tuple[Function, ...]:
        """The functions that have routes, and so pools: the others (hooks) run only when they are asked."""
        return tuple(function for function in self.document.functions if function.routes)

    def function(self, name: str) -> Function:
        return next(function for function in self.document.functions if function.name == name)


def release_of(row: ReleaseRow) -> Release:
    """The release that a row of the state file describes."""
    return Release(row.stage, row.release, ReleaseDocument.from_json(row.document))


def pool_spec(release: Release, function: Function, *, key: str, task_root: str, log_dir: str) -> PoolSpec:
    """What the workers need to know to run one function of a release."""
    document = release.document
    return PoolSpec(
        key=key,
        service=document.service,
        stage=document.settings.name,
        release=release.number,
        function=function.name,
        handler=function.handler,
        task_root=task_root,
        environment={
            "HITLESS_STAGE": document.settings.name,
            **({"HITLESS_COMMIT": document.commit} if document.commit else {}),
            **dict(function.environment),
        },
        timeout_s=function.timeout_s,
        memory_mb=function.memory_mb,
        workers=bounds_of(function).most,
        region=document.region,
        routes=tuple(RouteSpec(route.method, route.path, compile_route(route.path)) for route in function.routes),
        log_dir=log_dir,
        release_header=document.settings.release_header,
        commit=document.commit or "",
    )
