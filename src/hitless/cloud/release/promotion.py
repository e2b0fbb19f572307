"""Promotes from and to AWS without a build: finds a stage's live release, and turns its digests into artifacts.

Each copy is checked against the digest: Lambda's CodeSha256, the bytes from a bucket, the zip in the artifact store.
Before traffic reaches the release, `proving` checks Lambda again.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping

from hitless.artifact.model import Artifact
from hitless.artifact.store import ArtifactStore
from hitless.aws.buckets import Bucket
from hitless.cloud.records.records import LOOKED_AT, Record, Records
from hitless.cloud.stage.stage import Cloud, live_number
from hitless.errors import CloudError, ConflictError, EngineError, UsageError
from hitless.release.document import Origin, ReleaseDocument
from hitless.service.model import Home, Service


def promotable(cloud: Cloud, stage: str, commit: str | None = None) -> Origin:
    """The stage's live release, or the one of `commit`, if a newer one went live while that waited for an approval.

    Raises ConflictError if there is none, CloudError if Lambda serves other bytes.
    """
    observed = cloud.stack.observe()
    number = live_number(observed)
    if number is None:
        raise ConflictError(f"{stage} has no live release to promote", hint="deploy to it first")
    record = cloud.records.require(number)
    if commit not in (None, record.commit):
        return _origin(
            stage, next((one for one in cloud.records.recently_live(LOOKED_AT) if one.commit == commit), None)
        )
    at = observed.at
    for name, digest in record.artifacts.items():
        lambda_name = record.functions[name]
        served = cloud.lambdas.code_sha256(lambda_name, at[lambda_name]) if lambda_name in at else None
        if served != digest.removeprefix("sha256:"):
            raise CloudError(
                f"{lambda_name} does not serve the bytes of release {number} of {stage}",
                hint=f"`hitless aws status --stage {stage}` shows what serves; roll back or deploy, then promote",
            )
    return _origin(stage, record)


def _origin(stage: str, record: Record | None) -> Origin:
    if record is None:
        raise ConflictError(f"{stage} had no live release of this commit", hint="deploy the commit to that stage first")
    return Origin(Home.AWS, stage, record.release, dict(record.artifacts), record.commit, record.message)


def given_artifacts(service: Service, digests: Mapping[str, str], store: ArtifactStore) -> dict[str, Artifact]:
    """The stored artifact of each function of the service. Raises UsageError if a function has no digest, EngineError
    if its zip is missing from the store or damaged.
    """
    if missing := [function.name for function in service.functions if function.name not in digests]:
        raise UsageError(
            f"the release to promote has no artifact for {', '.join(missing)}",
            hint="this serverless.yml has functions that the release does not have: deploy or push instead",
        )
    found = {}
    for function in service.functions:
        digest = digests[function.name]
        if not store.verify(digest):
            raise EngineError(
                f"the artifact of {function.name} ({digest}) is missing from {store.root} or damaged",
                hint="promote again; if it was deleted, deploy its commit again",
            )
        path = store.zip_path(digest)
        with zipfile.ZipFile(path) as packed:
            unpacked_bytes = sum(entry.file_size for entry in packed.infolist())
        found[function.name] = Artifact(
            digest, path.stat().st_size, unpacked_bytes, False, function.runtime, function.architecture
        )
    return found


def live_release(records: Records) -> tuple[int, ReleaseDocument] | None:
    """Number and document of the live release, if there is one. Raises ConflictError if no document was kept."""
    record = records.live()
    if record is None:
        return None
    document = records.document(record.release)
    if document is None:
        raise ConflictError(
            f"release {record.release} of {record.stage} has no description, because an older hitless shipped it",
            hint="deploy it again with this version (`hitless aws deploy --force`), or name a folder: --against DIR",
        )
    return record.release, document


def fetch_artifacts(bucket: Bucket, store: ArtifactStore, digests: Iterable[str]) -> int:
    """Fetch the artifacts (`sha256:…`) missing from the store. Returns their number. CloudError if bytes differ."""
    missing = [digest for digest in sorted(set(digests)) if not store.verify(digest)]
    for digest in missing:
        with store.working() as workspace:
            zipped = workspace.folder / "artifact.zip"
            bucket.get_artifact(digest.removeprefix("sha256:"), zipped)
            store.zip_path(digest).unlink(missing_ok=True)  # the file there was damaged
            store.add(zipped, None, 0)
    return len(missing)
