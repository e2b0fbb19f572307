"""`hitless aws status`: what runs on AWS."""

from __future__ import annotations

from typing import Any

import typer

from hitless.cli.aws_common import load_for_aws
from hitless.cli.aws_wire import connected_stage
from hitless.cli.common import Context, command
from hitless.cloud.repair.repair import describe
from hitless.cloud.status import status as read_status


def register(app: typer.Typer) -> None:
    @command(app, "status", example="hitless aws status --stage prod --json")
    def status(ctx: Context) -> None:
        """Show what runs, and whatever is amiss. The stage's URL, its release, the share of each version now."""
        service = load_for_aws(ctx)
        with connected_stage(ctx, service) as stage:
            document = read_status(stage.cloud, service=service.name, stage=service.stage)
        ctx.show(document, lambda: _in_words(document))


def _in_words(document: dict[str, Any]) -> str:
    if document["stack"]["status"] is None:
        return "\n".join([f"{document['stage']} has no service on AWS yet", *map(describe, document["troubles"])])
    lines = [f"{document['stage']}: release {document['release'] or '-'} at {document['url'] or 'no URL'}"]
    for name, weights in sorted(document["weights"].items()):
        shares = ", ".join(f"version {version} {percent} %" for version, percent in sorted(weights.items()))
        lines.append(f"  {name}: {shares}")
    if candidate := document["candidate"]:
        lines.append(f"  release {candidate['release']} is under way since {candidate['since']}")
    lines += [f"  amiss: {describe(one)}" for one in document["troubles"]]
    return "\n".join(lines)
