"""What a build takes and what it gives, as data.

An artifact is known by the SHA-256 of its zip's bytes and by nothing else: two builds that give the same bytes give the
same artifact. The protocols say what a build needs of a service's model, and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

UNPACKED_LIMIT_BYTES = 262_144_000
"""Lambda's limit of what a function's code unpacks to (Lambda quotas, "Deployment package")."""

DIRECT_UPLOAD_LIMIT_BYTES = 52_428_800
"""Lambda takes a larger zip by way of a bucket only."""


class FunctionSource(Protocol):
    """What a build needs to know of one function."""

    @property
    def name(self) -> str: ...
    @property
    def handler(self) -> str: ...
    @property
    def runtime(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def package_patterns(self) -> tuple[str, ...]: ...


class ServiceSource(Protocol):
    """What a build needs to know of one service. A function's own patterns count only with `individually`."""

    @property
    def folder(self) -> Path: ...
    @property
    def file(self) -> Path: ...
    @property
    def functions(self) -> Sequence[FunctionSource]: ...
    @property
    def individually(self) -> bool: ...
    @property
    def package_patterns(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Artifact:
    """One function package. `local`: made for this machine, as the declared platform is another; never promoted."""

    digest: str
    zip_bytes: int
    unpacked_bytes: int
    local: bool
    runtime: str
    architecture: str


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The artifacts of all functions: what runs here, and what was declared; without the latter no promotion."""

    by_function: Mapping[str, Artifact]
    portable: Mapping[str, Artifact]
    warnings: tuple[str, ...]
