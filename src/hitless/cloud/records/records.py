"""The record and the template of each release, in the stage's artifact bucket.

`releases/STAGE/NUMBER.json` is written when a release begins, and again when it ends. Nothing else remembers releases,
so any machine can finish, list or roll back to one. A record is only saved over the version that was read last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from hitless.artifact.store import ArtifactStore
from hitless.aws.buckets import Bucket
from hitless.cloud.transform.model import Template
from hitless.documents import convert, to_plain
from hitless.errors import ConflictError, UsageError
from hitless.release.document import PromotedFrom, ReleaseDocument
from hitless.release.result import Outcome, Step

LOOKED_AT = 200
"""The live release is looked for among so many of the newest ones."""
READ_AT_ONCE = 8
"""A stage that ships many times a day has thousands of records within a year, and each takes a call."""


@dataclass(frozen=True, slots=True)
class Record:
    """One release.

    `versions` and `artifacts` are by the function's name in serverless.yml; `functions` gives Lambda's names. `outcome`
    is None while the release is under way, and if its deploy was cut off.
    """

    release: int
    service: str
    stage: str
    created_at: str
    fingerprint: str
    strategy: str
    commit: str | None = None
    message: str | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str | None = None
    ended_at: str | None = None
    steps: tuple[Step, ...] = ()
    promoted_from: PromotedFrom | None = None
    """None if the release was built."""
    left_for: int | None = None
    """The release for which a rollback is leaving this one. Written before the rollback moves traffic."""
    holder: str = ""
    """The mark of the process that carries the release on. Another mark means that another process has taken over."""

    @property
    def at(self) -> dict[str, str]:
        """Lambda's name → the version of this release."""
        return {self.functions[name]: version for name, version in self.versions.items()}


class Records:
    """The releases of one stage."""

    def __init__(self, bucket: Bucket, stage: str) -> None:
        self._bucket = bucket
        self._prefix = f"releases/{stage}/"
        self._seen: dict[int, str] = {}

    def numbers(self) -> list[int]:
        """The numbers of all releases, newest first."""
        found = (
            re.fullmatch(r"(\d+)\.json", key.removeprefix(self._prefix)) for key in self._bucket.keys(self._prefix)
        )
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def get(self, number: int) -> Record | None:
        """The release of that number, or None."""
        key = f"{self._prefix}{number}.json"
        found = self._bucket.get_json(key)
        if found is None:
            return None
        document, self._seen[number] = found
        return convert(document, Record, key)

    def many(self, numbers: Iterable[int]) -> list[Record]:
        """The releases with those numbers, in their order; missing ones are left out."""
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            return [record for record in pool.map(self.get, numbers) if record is not None]

    def is_overtaken(self, number: int) -> bool:
        """Whether a newer release was begun. Numbers have no gaps, so one call for the next number is enough."""
        following = f"{self._prefix}{number + 1}.json"
        return following in self._bucket.keys(following)

    def require(self, number: int) -> Record:
        """The release of that number. UsageError if there is none."""
        if (record := self.get(number)) is None:
            raise UsageError(f"there is no release {number}", hint="`hitless aws releases` lists them")
        return record

    def template(self, number: int) -> Template | None:
        """The template that the release wanted."""
        found = self._bucket.get_json(f"{self._prefix}{number}.template.json")
        return dict(found[0]) if found is not None else None

    def keep_document(self, number: int, document: ReleaseDocument) -> None:
        """Keep the release's document beside its record, so that an engine can start the same release."""
        self._bucket.put_json(f"{self._prefix}{number}.release.json", document.to_json())

    def document(self, number: int) -> ReleaseDocument | None:
        """The release's document; None if an earlier version of hitless shipped the release.

        It is looked for by a list, because a caller who may not list the bucket is denied a missing key.
        """
        key = f"{self._prefix}{number}.release.json"
        found = self._bucket.get_json(key) if key in self._bucket.keys(key) else None
        return ReleaseDocument.from_json(found[0]) if found is not None else None

    def live(self) -> Record | None:
        """The release that went live last, by the records alone: a caller may be allowed to read the bucket and no
        stack.

        A rollback saves its target's record again, so the latest end counts, not the number.
        """
        were_live = [one for one in self.many(self.numbers()[:LOOKED_AT]) if one.outcome == Outcome.LIVE]
        return max(were_live, key=lambda record: (record.ended_at or "", record.release), default=None)

    def begin(self, record: Record, template: Template, *, new: bool) -> None:
        """Take the number if it is `new`, and keep the template. Raises ConflictError if another process was faster."""
        if new:
            key = f"{self._prefix}{record.release}.json"
            self._seen[record.release] = self._bucket.put_json(key, to_plain(record), new=True)
        self._bucket.put_json(f"{self._prefix}{record.release}.template.json", template)

    def save(self, record: Record) -> None:
        """Save the record. Raises ConflictError if another process has saved it since it was read."""
        over, key = self._seen.get(record.release, ""), f"{self._prefix}{record.release}.json"
        self._seen[record.release] = self._bucket.put_json(key, to_plain(record), over=over)

    def next_number(self) -> int:
        """The number after the newest."""
        return max(self.numbers(), default=0) + 1

    def unfinished(self) -> Record | None:
        """The newest release if its deploy has not ended."""
        newest = next(iter(self.numbers()), None)
        record = self.get(newest) if newest is not None else None
        return record if record is not None and record.outcome is None else None


def live_release(records: Records) -> tuple[int, ReleaseDocument] | None:
    """Number and document of the live release; None if the stage has none. Raises ConflictError if no document was
    kept.
    """
    record = records.live()
    if record is None:
        return None
    document = records.document(record.release)
    if document is None:
        raise ConflictError(
            f"release {record.release} of {record.stage} was shipped by a hitless that kept no description of it",
            hint="deploy it again with this version (`hitless aws deploy --force`), or name a folder: --against DIR",
        )
    return record.release, document


def fetch_artifacts(bucket: Bucket, store: ArtifactStore, digests: Iterable[str]) -> int:
    """Fetch those artifacts (`sha256:…`) that are not in the store, and return their number. Raises CloudError if bytes
    differ.
    """
    missing = [digest for digest in sorted(set(digests)) if not store.verify(digest)]
    for digest in missing:
        with store.working() as workspace:
            zipped = workspace.folder / "artifact.zip"
            bucket.get_artifact(digest.removeprefix("sha256:"), zipped)
            store.zip_path(digest).unlink(missing_ok=True)  # what lay there was damaged
            store.add(zipped, None, 0)
    return len(missing)
