"""The plain verbs on this machine's engine, over its API."""

from __future__ import annotations

from typing import Any, Final

from hitless.cli.common import Context
from hitless.cli.engine_logs import show_logs
from hitless.cli.homes import DeployOrder, Drilled, LogQuery, StageHome
from hitless.cli.shipping import build_document, caller, client_of, conclude, follow, tell_notices
from hitless.errors import HitlessError
from hitless.release.document import ReleaseDocument
from hitless.release.result import Outcome
from hitless.service.model import Service


class EngineHome:
    """A stage that the engine serves. EngineNotRunningError where none runs."""

    def deploy(self, ctx: Context, service: Service, order: DeployOrder) -> None:
        """Build the folder and ship it; shows the rollout's document, or what a dry run would ship."""
        tell_notices(ctx, service)
        if order.dry_run:
            document = build_document(ctx, service, message=order.message)
            plan = _plan(document, _live_artifacts(ctx))
            ctx.show(plan, lambda: "\n".join(f"{one['action']:<7} {one['name']}" for one in plan["functions"]))
            return
        client = client_of(ctx)
        document = build_document(ctx, service, message=order.message)
        body = {
            "release": document.to_json(),
            "strategy": order.strategy,
            "force": order.force,
            "wait": not order.no_wait,
            "who": caller(),
        }
        result = follow(ctx, client.stream("POST", f"/stages/{ctx.stage}/deploy", body))
        if result is not None:
            conclude(ctx, result)

    def rollback(self, ctx: Context, release: int | None, message: str | None) -> None:
        """Ship an earlier release again."""
        body = {"release": release, "message": message, "who": caller()}
        result = follow(ctx, client_of(ctx).stream("POST", f"/stages/{ctx.stage}/rollback", body))
        if result is not None:
            conclude(ctx, result)

    def abort(self, ctx: Context) -> None:
        """Stop the rollout under way."""
        result = follow(ctx, client_of(ctx).stream("POST", f"/stages/{ctx.stage}/abort", {}))
        if result is not None:
            ctx.show(result, lambda: _sentence(result))

    def logs(self, ctx: Context, query: LogQuery) -> None:
        """Read from the workers' files: it works while the engine is down."""
        show_logs(ctx, query)

    def releases(self, ctx: Context) -> list[dict[str, Any]]:
        """Newest first, with what each cost."""
        listed: list[dict[str, Any]] = client_of(ctx).call("GET", f"/stages/{ctx.stage}/releases")
        return listed

    def release(self, ctx: Context, number: int) -> dict[str, Any]:
        """One release with its receipts."""
        one: dict[str, Any] = client_of(ctx).call("GET", f"/stages/{ctx.stage}/releases/{number}")
        return one

    def drilled(self, ctx: Context) -> Drilled:
        """Asked without a new process, so that a recovery is timed finely."""
        return Drilled(
            status=lambda: dict(client_of(ctx).call("GET", "/status")),
            release=lambda number: self.release(ctx, number),
            on_engine=True,
        )


HOME: Final[StageHome] = EngineHome()


def _sentence(result: dict[str, Any]) -> str:
    if result["outcome"] == Outcome.LIVE:
        return f"release {result['release']} is live; nothing guards it any more"
    return f"release {result['release']} was {result['outcome']}: {result['reason']}"


def _live_artifacts(ctx: Context) -> dict[str, str]:
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
