"""Promotes from and to AWS: the live release of a stage, and given digests as artifacts. Nothing is built.

A digest is checked wherever bytes pass: Lambda's CodeSha256, the bytes from a bucket, the zip in the artifact store.
Before traffic reaches the release, `proving` asks Lambda once more.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping

from hitless.artifact.model import Artifact
from hitless.artifact.store import ArtifactStore
from hitless.cloud.stage.settling import Cloud, live_number
from hitless.errors import CloudError, ConflictError, EngineError, UsageError
from hitless.release.document import Origin
from hitless.service.model import Home, Service


def promotable(cloud: Cloud, stage: str) -> Origin:
    """The stage's live release. Raises ConflictError if there is none, CloudError if Lambda serves other bytes."""
    observed = cloud.stack.observe()
    number = live_number(observed)
    if number is None:
        raise ConflictError(f"{stage} has no live release to promote", hint="deploy to it first")
    record = cloud.records.require(number)
    at = observed.at
    for name, digest in record.artifacts.items():
        lambda_name = record.functions[name]
        served = cloud.lambdas.code_sha256(lambda_name, at[lambda_name]) if lambda_name in at else None
        if served != digest.removeprefix("sha256:"):
            raise CloudError(
                f"{lambda_name} does not serve the bytes of release {number} of {stage}",
                hint=f"`hitless aws status --stage {stage}` shows what serves; roll back or deploy, then promote",
            )
    return Origin(Home.AWS, stage, number, dict(record.artifacts), record.commit, record.message)


def given_artifacts(service: Service, digests: Mapping[str, str], store: ArtifactStore) -> dict[str, Artifact]:
    """The artifact of each function of the service. Raises UsageError if one has none, EngineError if its zip is
    missing or damaged in the store.
    """
    if missing := [function.name for function in service.functions if function.name not in digests]:
        raise UsageError(
            f"the release to promote has no artifact for {', '.join(missing)}",
            hint="its functions are not those of this serverless.yml: deploy or push instead",
        )
    found = {}
    for function in service.functions:
        digest = digests[function.name]
        if not store.verify(digest):
            raise EngineError(
                f"the artifact of {function.name} ({digest}) is not in {store.root}, or damaged",
                hint="promote again; if it was deleted, deploy its commit again",
            )
        path = store.zip_path(digest)
        with zipfile.ZipFile(path) as packed:
            unpacked_bytes = sum(entry.file_size for entry in packed.infolist())
        found[function.name] = Artifact(
            digest, path.stat().st_size, unpacked_bytes, False, function.runtime, function.architecture
        )
    return found
