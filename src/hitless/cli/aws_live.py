"""What is live in a stage on AWS, fetched so that it can come up here: its description, and its artifacts."""

from __future__ import annotations

import os

from hitless.artifact.model import Host, Platform
from hitless.artifact.store import ArtifactStore
from hitless.aws.buckets import Bucket
from hitless.aws.session import aws_errors, connect
from hitless.aws.stacks import Stacks
from hitless.cli.aws_common import core_of
from hitless.cli.common import Context
from hitless.cli.shipping import folders_of
from hitless.cloud.records.kept import fetch_artifacts, live_release
from hitless.cloud.records.records import Records
from hitless.release.document import ReleaseDocument

BUCKET_VARIABLE = "HITLESS_ARTIFACT_BUCKET"
"""The stage's artifact bucket, where it is told: a build's role may read that and no stack."""


def fetch_live(ctx: Context, service: str, region: str) -> ReleaseDocument | None:
    """The live release of the context's stage, out of its artifact bucket; None where it has none.

    Its artifacts are in the data folder's store then, each checked by its digest.
    """
    folders = folders_of(ctx)
    folders.create()
    aws = connect(region)
    with aws_errors():
        name = os.environ.get(BUCKET_VARIABLE)
        if not name:
            name = core_of(Stacks(aws.client("cloudformation"), say=ctx.say), service, ctx.stage, region).bucket
        bucket = Bucket(aws.client("s3"), name)
        found = live_release(Records(bucket, ctx.stage))
        if found is None:
            return None
        number, live = found
        fetched = fetch_artifacts(bucket, ArtifactStore(folders.artifacts), live.digests.values())
    ctx.say(f"rehearsing against release {number} of {ctx.stage} on AWS; artifacts fetched: {fetched}")
    targets = {Platform(function.runtime, function.architecture) for function in live.functions}
    for declared in sorted(str(target) for target in targets if Host.here().differences(target)):
        ctx.say(f"note: what is live is made for {declared}, and this machine is another: it may not come up here")
    return live
