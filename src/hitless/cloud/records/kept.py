"""A stage's live release out of its artifact bucket, so that it can come up elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from hitless.artifact.store import ArtifactStore
from hitless.cloud.records.records import Records
from hitless.errors import ConflictError
from hitless.release.document import ReleaseDocument


class Artifacts(Protocol):
    """Where artifacts lie: aws.buckets.Bucket."""

    def get_artifact(self, sha256: str, target: Path) -> None: ...


def live_release(records: Records) -> tuple[int, ReleaseDocument] | None:
    """Number and document of the live release; None where the stage has none. ConflictError where none was kept."""
    record = records.live()
    if record is None:
        return None
    document = records.document(record.release)
    if document is None:
        raise ConflictError(
            f"release {record.release} of {record.stage} was shipped by a version that kept no description of it",
            hint="deploy it anew by this version (`hitless aws deploy --force`), or name a folder: --against DIR",
        )
    return record.release, document


def fetch_artifacts(bucket: Artifacts, store: ArtifactStore, digests: Iterable[str]) -> int:
    """Have these artifacts (`sha256:…`) in the store; how many had to be fetched. CloudError where bytes differ."""
    missing = [digest for digest in sorted(set(digests)) if not store.verify(digest)]
    for digest in missing:
        with store.working() as workspace:
            zipped = workspace.folder / "artifact.zip"
            bucket.get_artifact(digest.removeprefix("sha256:"), zipped)
            store.zip_path(digest).unlink(missing_ok=True)  # what lay there was damaged
            store.add(zipped, None, 0)
    return len(missing)
