"""The document of a release, and of a release to promote.

The command line sends it, the engine's state file keeps it, and on AWS it lies beside the release's record. The
fingerprint decides whether a release is "unchanged": code and configuration count, the commit and the message do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Self

import msgspec

from hitless.documents import convert, to_plain
from hitless.errors import UsageError
from hitless.service.model import PROTECTION, Function, Home, Network, StageSettings

DRILL_MESSAGE = "drill: "
"""How the message of a release begins that a drill shipped."""


class ArtifactRef(msgspec.Struct, frozen=True):
    """An artifact by its digest (`sha256:…`); `local` ones run on this machine only."""

    digest: str
    local: bool


class PromotedFrom(msgspec.Struct, frozen=True):
    """The release whose artifacts another release ships."""

    home: Home
    stage: str
    release: int


class ReleaseDocument(msgspec.Struct, frozen=True):
    """Everything a release is made of."""

    service: str
    region: str
    functions: tuple[Function, ...]
    artifacts: Mapping[str, ArtifactRef]
    settings: StageSettings
    commit: str | None = None
    message: str | None = None
    memory_mb: int | None = None
    """What all workers of the service may take together; None leaves it to the engine."""
    promoted_from: PromotedFrom | None = None
    """The release that it was promoted from; None if it was built for its stage."""
    total_workers: int | None = None
    """How many workers all functions and stages of the service may have together."""
    cpu_weight: int | None = None
    """The service's share of the processors, among those of its engine; None is 100."""

    @property
    def digests(self) -> dict[str, str]:
        """Function → digest of its artifact."""
        return {name: artifact.digest for name, artifact in self.artifacts.items()}

    def fingerprint(self) -> str:
        """Equal for two documents that would serve the same, and protect their stage alike."""
        what = self.to_json()
        settings = what.pop("settings")
        kept = {key: settings.get(key) for key in ("release_header", "shield", *PROTECTION)}
        del what["commit"], what["message"]
        what.pop("promoted_from", None)
        return hashlib.sha256(json.dumps([what, kept], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Without what is None, except for `commit` and `message`."""
        plain = to_plain(self)
        plain["functions"] = [_known(function) for function in plain["functions"]]
        for name, default in _LATER_SETTINGS.items():
            if getattr(self.settings, name) == default:
                del plain["settings"][name]
        if self.settings.tls and self.settings.tls.acme is None:
            del plain["settings"]["tls"]["acme"]
        return {key: value for key, value in plain.items() if value is not None or key in ("commit", "message")}

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Raises UsageError if the document does not have this form."""
        return convert(document, cls, "the release is not in a form that this version knows", error=_OtherVersionError)


def environment_changes(old: ReleaseDocument, functions: Iterable[Function]) -> list[str]:
    """The variables of which these functions have another value than the release's: `api.LEVEL`. Pure."""
    before = {one.name: dict(one.environment) for one in old.functions}
    pairs = [(one.name, before[one.name], dict(one.environment)) for one in functions if one.name in before]
    return [f"{name}.{key}" for name, had, has in pairs for key in sorted({*had, *has}) if had.get(key) != has.get(key)]


class _OtherVersionError(UsageError):
    default_hint = "use the same version of hitless for the engine and the command"


_LATER_SETTINGS = {"network": Network(), "throttle": None, "tls": None, "base_path": "", "trace_requests": False}
"""Settings of a stage that documents of earlier versions do not have, with their defaults."""


def _known(function: dict[str, Any]) -> dict[str, Any]:
    """Without what it does not have, so that a document of an earlier version equals one of the same release."""
    later = {"http_api", "preflights", "mapped", "module", "binary_media_types", "guarded", "authorizer"}
    later |= {"import_per_worker", "schedules", "artifact", "storage_mb"}
    return {key: value for key, value in function.items() if key not in later or value}


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """A release to promote, at either home. `artifacts`: function → digest."""

    home: Home
    stage: str
    release: int
    artifacts: Mapping[str, str]
    commit: str | None
    message: str | None
    local: tuple[str, ...] = ()
    """Functions whose artifacts were built for this machine only; such a release cannot be promoted."""

    def __str__(self) -> str:
        return f"release {self.release} of {self.stage}" + (" on AWS" if self.home is Home.AWS else "")

    @property
    def promoted_from(self) -> PromotedFrom:
        """As the document of the release that ships its artifacts records it."""
        return PromotedFrom(self.home, self.stage, self.release)

    @property
    def refs(self) -> dict[str, ArtifactRef]:
        """Function → artifact, for the document of a release."""
        return {name: ArtifactRef(digest, name in self.local) for name, digest in self.artifacts.items()}

    @classmethod
    def of(cls, stage: str, release: int, document: ReleaseDocument) -> Self:
        """A release of the engine."""
        local = tuple(name for name, artifact in document.artifacts.items() if artifact.local)
        return cls(Home.ENGINE, stage, release, document.digests, document.commit, document.message, local)
