"""Shipping given artifacts to AWS: what `promote` and the engine's pipeline have in common. Nothing is built."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hitless.aws.osls import find_osls
from hitless.cli.aws_wire import connected_stage, store_of
from hitless.cli.common import Context
from hitless.cloud.records.result import Result
from hitless.cloud.release.deploy import Deploy
from hitless.cloud.release.packaging import package
from hitless.cloud.release.promotion import given_artifacts
from hitless.rollout.who import Who
from hitless.service.model import Service
from hitless.service.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Given:
    """What is shipped. `artifacts`: function → digest, all in the store. `promoted_from`: for the receipt."""

    artifacts: Mapping[str, str]
    commit: str | None
    message: str | None
    promoted_from: Mapping[str, Any] | None = None
    who: Who | None = None
    """Who asked, where that is not whoever runs the command."""


def ship_given(ctx: Context, service: Service, given: Given, strategy: Strategy) -> Result:
    """Ship these bytes with the configuration of `service`, which is read for the stage that they go to.

    UsageError or EngineError where an artifact lacks, before AWS is asked for anything.
    """
    store = store_of(ctx)
    artifacts = given_artifacts(service, given.artifacts, store)
    osls = find_osls(service.folder, os.environ)
    with connected_stage(ctx, service) as stage:
        stage.cloud.stack.refuse_plain()
        made = package(service, artifacts, stage.core, osls)
        cloud = stage.cloud
        if given.who is not None:
            cloud = replace(cloud, who=given.who.called_by(stage.aws.identity().name).to_json())
        return Deploy(cloud, store.zip_path).run(
            made, strategy=strategy, commit=given.commit, message=given.message, promoted_from=given.promoted_from
        )
