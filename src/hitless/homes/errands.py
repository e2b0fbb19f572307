"""Errands: the pipeline's jobs on AWS, as documents that the daemon sends to a separate process."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hitless.release.document import PromotedFrom
from hitless.release.who import Who


class GivenArtifacts(msgspec.Struct, frozen=True):
    """Artifacts to ship without a build (function → digest, all in the store), and their description for the receipt.

    `who` asked for the release; None is the person who runs the command.
    """

    digests: Mapping[str, str]
    commit: str | None
    message: str | None
    promoted_from: PromotedFrom | None
    who: Who | None = None


class Errand(msgspec.Struct, frozen=True, kw_only=True, tag_field="act"):
    """`folder` has the serverless.yml of the stage, `data` is the engine's data folder."""

    stage: str
    folder: str
    data: str = ""


class TellOrigin(Errand, frozen=True, tag="origin"):
    """The live release, to promote it: an `Origin`."""


class FetchArtifacts(Errand, frozen=True, tag="fetch"):
    """Fetch the stage's zips into the engine's store: `{"fetched": N}`, the number that were missing there."""

    digests: tuple[str, ...]


class CopyLive(Errand, frozen=True, tag="live"):
    """The live release's document, its zips in the engine's store: `{"document", "why"}`, one of them null."""


class Ship(Errand, frozen=True, tag="ship"):
    """Ship given artifacts: a `Result`."""

    given: GivenArtifacts


class Verify(Errand, frozen=True, tag="verify"):
    """Check a release that has just gone live: a `Verified`."""

    release: int
    digests: Mapping[str, str]


class RollBack(Errand, frozen=True, tag="rollback"):
    """Make the previous release live again: a `Result`."""

    why: str


AnyErrand = TellOrigin | FetchArtifacts | CopyLive | Ship | Verify | RollBack
