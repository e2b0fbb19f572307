"""What the engine's pipeline asks of AWS, each errand in a process of its own (`hitless.processes.aws_errand`), because
the engine's daemon neither loads boto3 nor waits for AWS.

An order is `{"act", "folder", "stage", "data", …}`. A release that is cut off with its process is continued by the next
one (docs/aws-releases.md), and traffic stays under CodeDeploy's alarms meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hitless.cli.aws_common import load_for_aws
from hitless.cli.aws_given import ship_given
from hitless.cli.aws_wire import connected_stage, store_of
from hitless.cli.common import Context
from hitless.cli.rehearsed import AWS, live_of
from hitless.cloud.records.kept import fetch_artifacts
from hitless.cloud.release.promotion import promotable
from hitless.cloud.release.rollback import rollback
from hitless.cloud.release.verifying import faults_of
from hitless.documents import to_plain
from hitless.errors import ConflictError
from hitless.release.who import Who

Order = Mapping[str, Any]


def live(ctx: Context, order: Order) -> dict[str, Any]:
    """What is live in the stage, proved."""
    with connected_stage(ctx, load_for_aws(ctx)) as stage:
        return dict(to_plain(promotable(stage.cloud, ctx.stage)))


def bring(ctx: Context, order: Order) -> dict[str, Any]:
    """The stage's zips of `artifacts` (function → digest) into the engine's store."""
    with connected_stage(ctx, load_for_aws(ctx)) as stage:
        return {"fetched": fetch_artifacts(stage.cloud.bucket, store_of(ctx), order["artifacts"].values())}


def copy(ctx: Context, order: Order) -> dict[str, Any]:
    """What the live release is made of, its zips in the engine's store; null where there is none, or none was kept."""
    try:
        return {"document": live_of(ctx, load_for_aws(ctx), AWS).to_json()}
    except ConflictError as error:
        return {"document": None, "why": error.message}


def ship(ctx: Context, order: Order) -> dict[str, Any]:
    """A release of `artifacts`; its document."""
    service = load_for_aws(ctx)
    told = {name: order[name] for name in ("commit", "message", "promoted_from")}
    who = Who.from_json(order["who"])
    return ship_given(ctx, service, order["artifacts"], service.settings.strategy, **told, who=who).to_json()


def verify(ctx: Context, order: Order) -> dict[str, Any]:
    """What is wrong with `release`, which has just gone live with `artifacts`."""
    service = load_for_aws(ctx)
    with connected_stage(ctx, service) as stage:
        found = faults_of(stage.cloud, service, order["release"], order["artifacts"])
        return {"faults": found.faults, "superseded": found.superseded}


def take_back(ctx: Context, order: Order) -> dict[str, Any]:
    """The release before, at once."""
    with connected_stage(ctx, load_for_aws(ctx)) as stage:
        return rollback(stage.cloud, None, why=order["why"]).to_json()


ACTS: Mapping[str, Callable[[Context, Order], dict[str, Any]]] = {
    "live": live,
    "fetch": bring,
    "copy": copy,
    "ship": ship,
    "verify": verify,
    "rollback": take_back,
}


def run_errand(order: Order) -> dict[str, Any]:
    """Do what the order's `act` names; its document. Raises HitlessError."""
    ctx = Context(
        json=True,
        stage=order["stage"],
        service_dir=Path(order["folder"]),
        data_dir=Path(order["data"]),
        yes=False,
        debug=False,
    )
    return ACTS[order["act"]](ctx, order)
