"""`hitless status`: what runs."""

from __future__ import annotations

from typing import Any

import typer

from hitless.cli.common import Context, command
from hitless.cli.shipping import client_of


def register(app: typer.Typer) -> None:
    @command(app, "status", example="hitless status --json")
    def status(
        ctx: Context,
    ) -> None:
        """Show what runs. The engine, each stage's live release and candidate, workers and counts."""
        document = client_of(ctx).call("GET", "/status")
        ctx.show(document, lambda: in_words(document))


def in_words(document: dict[str, Any]) -> str:
    """The status for a person."""
    engine = document["engine"]
    lines = [
        f"{document['service']}: engine {engine['pid']}, gateway {engine['gateway_pid']}, since {engine['started_at']}"
    ]
    for stage in [*document["stages"], *document.get("previews", ())]:
        live = stage["live"]
        what = f"release {live['release']} since {live['since']}" if live else "no release"
        if live and live["commit"]:
            what += f", commit {live['commit'][:8]}"
        lines.append(f"\n{stage['stage']}  {stage['url']}  {what}{_of_preview(stage.get('preview'))}")
        if candidate := stage["candidate"]:
            lines.append(f"  candidate {candidate['release']}: {candidate['state']}, {candidate['weight_percent']} %")
        for function in stage["functions"]:
            busy = sum(worker["busy"] for worker in function["workers"])
            latency = function["latency_ms"]
            timing = f"p50 {latency['p50']} ms, p99 {latency['p99']} ms" if latency else "no request yet"
            scaling = function["scaling"]
            limits = f" of {scaling['min']} to {scaling['max']}" if scaling["min"] != scaling["max"] else ""
            why = f"; {scaling['reason']}" if scaling["reason"] else ""
            lines.append(
                f"  {function['name']:<16} {len(function['workers'])}{limits} workers ({busy} busy{why}), "
                f"{function['restarts']} restarts, "
                f"{function['requests']} requests, {function['failed']} failed, {timing}"
            )
    return "\n".join(lines)


def _of_preview(preview: dict[str, Any] | None) -> str:
    if preview is None:
        return ""
    until = f"ends: {preview['ending']}" if preview["ending"] else f"until {preview['expires_at']}"
    return f", preview of {preview['branch']} {until}"
