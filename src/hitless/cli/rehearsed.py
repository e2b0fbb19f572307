"""What a rehearsal is held against: the engine's live release, a folder's code, or what is live on AWS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hitless.artifact.store import ArtifactStore
from hitless.artifact.target import Host, Target
from hitless.aws.buckets import Bucket
from hitless.cli.aws_common import connected
from hitless.cli.common import Context
from hitless.cli.shipping import build_document, folders_of, load
from hitless.cloud.core_outputs import CoreOutputs
from hitless.cloud.kept import fetch_artifacts, live_release
from hitless.cloud.records import Records
from hitless.errors import ConflictError, UsageError
from hitless.rollout.release import ReleaseDocument
from hitless.service.model import Home, Service
from hitless.store.store import Store

AWS = "aws"
BUCKET_VARIABLE = "HITLESS_ARTIFACT_BUCKET"
"""The stage's artifact bucket, where it is told: a build's role may read that and no stack."""

_HINT = "ship a first release, or name a folder that holds the live code: --against DIR"


class NothingLive(ConflictError):
    """The stage has no release yet."""


def live_of(ctx: Context, service: Service, against: str | None) -> ReleaseDocument:
    """The release to rehearse against, its artifacts in the data folder's store.

    `against` is `aws`, a folder, or None for the stage's home. Raises NothingLive where there is none.
    """
    if against == AWS or (against is None and service.settings.home is Home.AWS):
        return _on_aws(ctx, service)
    return _here(ctx) if against is None else _built(ctx, Path(against))


def _built(ctx: Context, folder: Path) -> ReleaseDocument:
    there = replace(ctx, service_dir=folder.expanduser().resolve())
    return build_document(there, load(there))


def _here(ctx: Context) -> ReleaseDocument:
    """The live release as the state file has it; the engine need not run."""
    folders = folders_of(ctx)
    if not folders.state_file.exists():
        raise NothingLive(f"there is no release to rehearse against: no engine ever ran on {folders.data}", hint=_HINT)
    store = Store(folders.state_file, read_only=True)
    try:
        live = store.live(ctx.stage)
        row = store.release(ctx.stage, live[0]) if live else None
    finally:
        store.close()
    if row is None:
        raise NothingLive(f"{ctx.stage} has no live release to rehearse against", hint=_HINT)
    return ReleaseDocument.from_json(row.document)


def _on_aws(ctx: Context, service: Service) -> ReleaseDocument:
    """The live release out of the stage's artifact bucket, each artifact checked by its digest."""
    folders = folders_of(ctx)
    folders.create()
    with _bucket(ctx, service) as bucket:
        found = live_release(Records(bucket, service.stage))
        if found is None:
            raise NothingLive(
                f"{service.stage} has no live release on AWS to rehearse against", hint="`hitless aws deploy` ships it"
            )
        number, kept = found
        live = ReleaseDocument.from_json(kept)
        digests = {one.digest for one in live.artifacts.values()}
        fetched = fetch_artifacts(bucket, ArtifactStore(folders.artifacts), digests)
    ctx.say(f"rehearsing against release {number} of {service.stage} on AWS; artifacts fetched: {fetched}")
    for declared in sorted({str(target) for target in _foreign(live)}):
        ctx.say(f"note: what is live is made for {declared}, and this machine is another: it may not come up here")
    return live


def _foreign(live: ReleaseDocument) -> set[Target]:
    targets = {Target(function.runtime, function.architecture) for function in live.functions}
    return {target for target in targets if Host.here().differences(target)}


@contextmanager
def _bucket(ctx: Context, service: Service) -> Iterator[Bucket]:
    with connected(ctx, service) as on:
        name = os.environ.get(BUCKET_VARIABLE)
        if not name:
            core = f"{service.name}-core-{service.stage}"
            stack = on.stacks.find(core)
            if stack is None:
                raise UsageError(
                    f"there is no stack {core} in {service.region}",
                    hint=f"make it by `hitless aws bootstrap --stage {service.stage}`",
                )
            name = CoreOutputs.of(stack.outputs, core).bucket
        yield Bucket(on.aws.client("s3"), name)
