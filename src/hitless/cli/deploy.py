"""`hitless deploy`: build, ship, wait for the end of the rollout."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hitless.cli.common import Context, command
from hitless.cli.homes import refuse_aws
from hitless.cli.shipping import build_document, caller, client_of, conclude, follow, load
from hitless.errors import HitlessError, UsageError
from hitless.rollout.release import ReleaseDocument
from hitless.service.strategy import EXAMPLES, parse


def register(app: typer.Typer) -> None:
    @command(app, "deploy", example="hitless deploy --strategy Canary10Percent30Seconds --message 'new search'")
    def deploy(
        ctx: Context,
        strategy: Annotated[str | None, typer.Option("--strategy", help=f"For this rollout: {EXAMPLES}.")] = None,
        no_wait: Annotated[bool, typer.Option("--no-wait", help="Return when the rollout has begun.")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and compare; ship nothing.")] = False,
        force: Annotated[bool, typer.Option("--force", help="Ship even where nothing has changed.")] = False,
        message: Annotated[str | None, typer.Option("--message", "-m", help="What the release is about.")] = None,
    ) -> None:
        """Build the service and ship it. The stage's strategy says how; waits for the end of the rollout."""
        if strategy is not None:
            try:
                parse(strategy)
            except ValueError as error:
                raise UsageError(f"--strategy: {error}", hint=f"for example {EXAMPLES}") from error
        service = load(ctx)
        refuse_aws(service, "deploy")
        if dry_run:
            document = build_document(ctx, service, message=message)
            plan = _plan(document, _live_artifacts(client_of, ctx))
            ctx.show(plan, lambda: _plan_in_words(plan))
            return
        client = client_of(ctx)
        document = build_document(ctx, service, message=message)
        body = {
            "release": document.to_json(),
            "strategy": strategy,
            "force": force,
            "wait": not no_wait,
            "who": caller(),
        }
        result = follow(ctx, client.stream("POST", f"/stages/{ctx.stage}/deploy", body))
        if result is not None:
            conclude(ctx, result)


def _live_artifacts(client_of: Any, ctx: Any) -> dict[str, str]:
    try:
        status = client_of(ctx).call("GET", "/status")
    except HitlessError:
        return {}
    found = next((s for s in status["stages"] if s["stage"] == ctx.stage), None)
    return dict(found["live"]["artifacts"]) if found and found["live"] else {}


def _plan(document: ReleaseDocument, live: dict[str, str]) -> dict[str, Any]:
    names = sorted({*live, *document.artifacts})
    new = {name: artifact.digest for name, artifact in document.artifacts.items()}
    actions = {
        name: "remove"
        if name not in new
        else "add"
        if name not in live
        else "keep"
        if live[name] == new[name]
        else "change"
        for name in names
    }
    return {
        "stage": document.settings.name,
        "dry_run": True,
        "artifacts": new,
        "functions": [{"name": name, "action": action} for name, action in actions.items()],
    }


def _plan_in_words(plan: dict[str, Any]) -> str:
    return "\n".join(f"{function['action']:<7} {function['name']}" for function in plan["functions"])
