"""Sends a run's errands to AWS: each a process of its own that ends with the daemon, which has no boto3.

An errand acts with the AWS credentials of the engine's own environment: those of the shell that started it, or of the
profile in its owner's ~/.aws.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from hitless.documents import convert, to_plain
from hitless.errors import CloudError, ConflictError, HitlessError, MachineError, ServiceFileError, UsageError
from hitless.homes.errands import CopyLive, Errand, FetchArtifacts, GivenArtifacts, RollBack, Ship, TellOrigin, Verify
from hitless.pipeline.children import call_process
from hitless.release.document import Origin, ReleaseDocument
from hitless.release.result import Verified
from hitless.release.who import Who

_KINDS: Mapping[str, type[HitlessError]] = {
    kind.code: kind for kind in (UsageError, ServiceFileError, ConflictError, MachineError)
}


@dataclass(frozen=True, slots=True)
class StagePlace:
    """A stage, and the folder that has its serverless.yml."""

    folder: Path
    stage: str


@dataclass
class AwsErrands:
    """The verbs of `hitless.homes.aws`, awaited. Each raises HitlessError if AWS or the errand fails."""

    data: Path

    async def origin(self, place: StagePlace, *, log: Path | None = None) -> Origin:
        """The live release of a stage, with the digests that Lambda says it serves."""
        return convert(await self._run(TellOrigin(), place, log), Origin, "the errand to AWS")

    async def fetch(self, place: StagePlace, origin: Origin, *, log: Path) -> int:
        """Bring the release's zips into the engine's store, digests checked; the number that were missing there."""
        errand = FetchArtifacts(digests=tuple(origin.artifacts.values()))
        return int((await self._run(errand, place, log))["fetched"])

    async def live(self, place: StagePlace, *, log: Path) -> ReleaseDocument | str:
        """The live release, its zips in the engine's store; or why there is no document of it."""
        answer = await self._run(CopyLive(), place, log)
        return ReleaseDocument.from_json(answer["document"]) if answer["document"] else str(answer["why"])

    async def ship(self, place: StagePlace, document: ReleaseDocument, who: Who, *, log: Path) -> dict[str, Any]:
        """Ship the document's artifacts; the document of the end."""
        given = GivenArtifacts(document.digests, document.commit, document.message, document.promoted_from, who)
        return await self._run(Ship(given=given), place, log)

    async def verify(self, place: StagePlace, document: ReleaseDocument, release: int, *, log: Path) -> Verified:
        """Check that the release serves what was shipped, and passes the smoke requests through its aliases."""
        errand = Verify(release=release, digests=document.digests)
        return convert(await self._run(errand, place, log), Verified, "the errand to AWS")

    async def rollback(self, place: StagePlace, why: str, *, log: Path) -> dict[str, Any]:
        """Make the release before live again; the document of the end."""
        return await self._run(RollBack(why=why), place, log)

    async def _run(self, errand: Errand, place: StagePlace, log: Path | None) -> dict[str, Any]:
        errand = replace(errand, stage=place.stage, folder=str(place.folder), data=str(self.data))
        answer = await call_process("hitless.processes.aws_errand", plan=to_plain(errand), log=log or Path(os.devnull))
        if not answer:
            what = type(errand).__name__
            raise CloudError(f"the errand to AWS ({what}) ended without an answer", hint="see the run's log")
        if error := answer.get("error"):
            raise _error(error)
        return answer


def _error(error: Mapping[str, Any]) -> HitlessError:
    kind, hint = _KINDS.get(str(error["code"]), CloudError), str(error["hint"])
    if kind is MachineError:
        hint += "; the engine acts on AWS with its own environment: that of the shell that ran `hitless up`"
    return kind(str(error["message"]), hint=hint, details=dict(error["details"]))
