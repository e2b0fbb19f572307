"""Shipping given artifacts to AWS: what `promote` and the engine's pipeline have in common. Nothing is built."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hitless.aws.osls import find_osls
from hitless.cli.aws_wire import connected_stage, store_of
from hitless.cli.common import Context
from hitless.cloud.records.result import Result
from hitless.cloud.release.deploy import Deploy
from hitless.cloud.release.packaging import package
from hitless.cloud.release.promotion import given_artifacts
from hitless.release.who import Who
from hitless.service.model import Service
from hitless.service.strategy import Strategy


def ship_given(
    ctx: Context, service: Service, digests: Mapping[str, str], strategy: Strategy, *, commit: str | None,
    message: str | None, promoted_from: Mapping[str, Any] | None, who: Who | None = None,
) -> Result:  # fmt: skip
    """Ship these bytes (function → digest, all in the store) with the configuration of `service`, which is read for the
    stage that they go to. `promoted_from` is for the receipt; `who` asked, if that is not whoever runs the command.

    UsageError or EngineError if an artifact is missing, before AWS is asked for anything.
    """
    store = store_of(ctx)
    artifacts = given_artifacts(service, digests, store)
    osls = find_osls(service.folder, os.environ)
    with connected_stage(ctx, service) as stage:
        stage.cloud.stack.refuse_plain()
        made = package(service, artifacts, stage.core, osls)
        cloud = stage.cloud
        if who is not None:
            cloud = replace(cloud, who=who.called_by(stage.aws.identity().name).to_json())
        return Deploy(cloud, store.zip_path).run(
            made, strategy=strategy, commit=commit, message=message, promoted_from=promoted_from
        )
