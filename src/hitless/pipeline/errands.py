"""What a run needs of AWS, as errands: each a process of its own that ends with the daemon, which has no boto3.

The errand acts with the AWS credentials that the engine's own environment has: those of the shell that started it, or
of the profile in its owner's ~/.aws.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.documents import convert, to_plain
from hitless.errors import CloudError, ConflictError, HitlessError, MachineError, ServiceFileError, UsageError
from hitless.pipeline.children import call_process
from hitless.release.document import Origin, ReleaseDocument
from hitless.release.who import Who

_KINDS: Mapping[str, type[HitlessError]] = {
    kind.code: kind for kind in (UsageError, ServiceFileError, ConflictError, MachineError)
}


@dataclass(frozen=True, slots=True)
class Place:
    """A stage, and the folder whose serverless.yml tells of it."""

    folder: Path
    stage: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What is wrong with a release on AWS, one sentence each; or that it is not the live one any more."""

    faults: tuple[str, ...]
    superseded: bool


@dataclass(frozen=True, slots=True)
class AwsErrands:
    """With the artifacts of an engine's data folder. Each raises HitlessError where AWS, or the errand, fails."""

    data: Path

    async def live(self, place: Place, *, log: Path | None = None) -> Origin:
        """What is live in a stage on AWS, with the digests that Lambda says it serves."""
        return convert(await self._run("live", place, {}, log), Origin, "the errand to AWS")

    async def fetch(self, place: Place, origin: Origin, *, log: Path) -> int:
        """Have the release's zips in the engine's store, digests checked; how many had to be fetched."""
        return int((await self._run("fetch", place, {"artifacts": origin.artifacts}, log))["fetched"])

    async def copy(self, place: Place, *, log: Path) -> ReleaseDocument | str:
        """What the live release is made of, its zips in the engine's store; or why nothing can be compared with it."""
        answer = await self._run("copy", place, {}, log)
        return ReleaseDocument.from_json(answer["document"]) if answer["document"] else str(answer["why"])

    async def ship(self, place: Place, document: ReleaseDocument, who: Who, *, log: Path) -> dict[str, Any]:
        """A release of the document's artifacts; its document when it has ended."""
        order = {
            "artifacts": document.digests,
            "commit": document.commit,
            "message": document.message,
            "promoted_from": to_plain(document.promoted_from),
            "who": who.to_json(),
        }
        return await self._run("ship", place, order, log)

    async def verify(self, place: Place, document: ReleaseDocument, release: int, *, log: Path) -> Verified:
        """Whether the release serves what was shipped, and answers the smoke requests through its aliases."""
        digests = {name: one.digest for name, one in document.artifacts.items()}
        found = await self._run("verify", place, {"artifacts": digests, "release": release}, log)
        return Verified(tuple(found["faults"]), bool(found["superseded"]))

    async def rollback(self, place: Place, why: str, *, log: Path) -> dict[str, Any]:
        """The release before is live again; the document of that."""
        return await self._run("rollback", place, {"why": why}, log)

    async def _run(self, act: str, place: Place, order: Mapping[str, Any], log: Path | None) -> dict[str, Any]:
        plan = {**order, "act": act, "folder": place.folder, "stage": place.stage, "data": self.data}
        answer = await call_process("hitless.processes.aws_errand", plan=plan, log=log or Path(os.devnull))
        if not answer:
            raise CloudError(f"the errand to AWS ({act}) ended without a word", hint="the run's log tells more")
        if error := answer.get("error"):
            raise _error(error)
        return answer


def _error(error: Mapping[str, Any]) -> HitlessError:
    kind, hint = _KINDS.get(str(error["code"]), CloudError), str(error["hint"])
    if kind is MachineError:
        hint += "; the engine acts on AWS with what its own environment has: that of the shell that ran `hitless up`"
    return kind(str(error["message"]), hint=hint, details=dict(error["details"]))
