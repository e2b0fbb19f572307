"""What a build takes and what it gives, as data.

An artifact is known by the SHA-256 of its zip's bytes and by nothing else: two builds that give the same bytes give the
same artifact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

UNPACKED_LIMIT_BYTES = 262_144_000
"""Lambda's limit of what a function's code unpacks to (Lambda quotas, "Deployment package")."""

DIRECT_UPLOAD_LIMIT_BYTES = 52_428_800
"""Lambda takes a larger zip by way of a bucket only."""


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
