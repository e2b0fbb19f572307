"""`hitless status`: the engine and the stages of a service, at both homes."""

from __future__ import annotations

import pkgutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from hitless.cli.common import Context, HomeOption, command
from hitless.cli.following import beside, painted
from hitless.documents import convert
from hitless.errors import EngineNotRunningError
from hitless.homes.home import home_at
from hitless.pipeline.buildspec.output import visible
from hitless.release.status import FunctionStatus, GatewayFigures, StageStatus, Status
from hitless.service.model import Home, Service

WATCH_S = 1.0


@command("status", example="hitless status --json")
def status(
    ctx: Context,
    home: HomeOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again each second, until Ctrl-C.")] = False,
) -> None:
    """Show the engine and the stages, here and on AWS. Lists live releases, candidates and request counts."""
    while True:
        document = home_at(home, ctx).status() if home is not None else _of_every_home(ctx)
        if ctx.json:
            ctx.show(document, str)
        else:
            text = painted(visible(in_words(convert(document, Status, "the status"))), sys.stdout)
            sys.stdout.write(("\x1b[H\x1b[J" if watch and sys.stdout.isatty() else "") + text + "\n")
            sys.stdout.flush()
        if not watch:
            return
        time.sleep(WATCH_S)


def _of_every_home(ctx: Context) -> dict[str, Any]:
    """The engine's document with an entry for each stage on AWS."""
    service = ctx.try_load()
    elsewhere = _on_aws(ctx, service) if service is not None else []
    try:
        document = home_at(Home.ENGINE, ctx).status()
    except EngineNotRunningError as error:
        if service is None or not elsewhere:
            raise
        ctx.say(f"note: {error.message}")
        document = {"service": service.name, "engine": None, "stages": []}
    order = [stage.name for stage in service.stages] if service is not None and elsewhere else []
    return _with(ctx, document, _entries(ctx, elsewhere), order)


def entries_on_aws(ctx: Context) -> list[dict[str, Any]]:
    """The stages on AWS, as `status` shows them; none if the service file cannot be read."""
    service = ctx.try_load()
    return _entries(ctx, _on_aws(ctx, service)) if service is not None else []


def _on_aws(ctx: Context, service: Service) -> list[Service]:
    """The service, read for each of its stages on AWS: the engine does not serve those."""
    names = [stage.name for stage in service.stages if stage.home is Home.AWS]
    found = {name: service if name == service.stage else replace(ctx, stage=name).try_load() for name in names}
    for name in (name for name, one in found.items() if one is None):
        ctx.say(f"warning: {name} on AWS is not shown: {service.file.name} cannot be read for it")
    return [one for one in found.values() if one is not None]


def _entries(ctx: Context, services: Sequence[Service]) -> list[dict[str, Any]]:
    """Each stage on AWS as `status` shows it; all are asked at once."""
    if not services:
        return []
    entry = pkgutil.resolve_name("hitless.homes.aws:entry_or_error")
    with ThreadPoolExecutor(max_workers=len(services)) as pool:
        return list(pool.map(lambda service: entry(ctx, service), services))


def _with(
    ctx: Context, document: dict[str, Any], entries: list[dict[str, Any]], order: Sequence[str]
) -> dict[str, Any]:
    """The engine's document with the stages that live elsewhere, in the file's order."""
    there = {entry["stage"]: entry for entry in entries}
    for stage in document["stages"]:
        if stage["stage"] in there and stage["live"]:
            ctx.say(f"note: the engine still serves {stage['stage']} at {stage['url']}, its home until now")
    here = {stage["stage"]: {"home": "engine", **stage} for stage in document["stages"]}
    both = {**here, **there}
    names = [*(name for name in order if name in both), *(name for name in both if name not in order)]
    return {**document, "stages": [both[name] for name in names]}


def in_words(status: Status) -> str:
    """The status for a person."""
    engine = status.engine
    runs = f"engine {engine.pid}, gateway {engine.gateway_pid}, since {engine.started_at}" if engine else ""
    lines = [f"{status.service}: {runs or 'no engine is running here'}"]
    if engine and engine.isolation_missing:
        lines.append(f"handlers are not isolated by {'; '.join(engine.isolation_missing)}")
    if engine and engine.compiled is False:
        lines.append("workers run uncompiled; `hitless doctor` says why")
    for stage in (*status.stages, *status.previews):
        lines.append(f"\n{_headline(stage)}")
        if candidate := stage.candidate:
            lines.append(f"  candidate {candidate.release}: {candidate.state},{beside(candidate)}")
            lines += [f"  alarms: {candidate.alarms.sentence}"] if candidate.alarms else []
        if guard := stage.guard:
            lines.append(f"  guarded for {guard.left_s:.0f} s more: release {guard.previous} is kept ready")
        lines += [_function(function) for function in stage.functions]
        lines += [f"  problem: {one['where']}: {one['what']}; {one['mends']}" for one in stage.troubles or ()]
    return "\n".join(lines)


def _headline(stage: StageStatus) -> str:
    live, what = stage.live, "no release"
    if live:
        what = f"release {live.release} since {live.since}" + (f", commit {live.commit[:8]}" if live.commit else "")
    if stage.error:
        what = f"unknown: {stage.error}"
    if preview := stage.preview:
        until = f"ends: {preview.ending}" if preview.ending else f"until {preview.expires_at}"
        what += f", preview of {preview.branch} {until}"
    at = " on AWS" if stage.home is Home.AWS else ""
    return f"{stage.stage}{at}  {stage.url or 'no URL'}  {what}"


def _function(function: FunctionStatus) -> str:
    if function.weights:
        shares = ", ".join(f"version {one} {percent} %" for one, percent in sorted(function.weights.items()))
        return f"  {function.name:<16} {shares}"
    busy = sum(worker.busy for worker in function.workers)
    latency, scaling = function.latency_ms, function.scaling
    timing = f"p50 {latency.p50} ms, p99 {latency.p99} ms" if latency else "no request yet"
    limits = f" of {scaling.min} to {scaling.max}" if scaling and scaling.min != scaling.max else ""
    why = f"; {scaling.reason}" if scaling and scaling.reason else ""
    workers = "worker" if len(function.workers) == 1 else "workers"
    requests = "request" if function.requests == 1 else "requests"
    return (
        f"  {function.name:<16} {len(function.workers)}{limits} {workers} ({busy} busy{why}), "
        f"{function.restarts} restarts, "
        f"{function.requests} {requests}, {function.failed} failed, {timing}{_at_gateway(function.gateway)}"
    )


def _at_gateway(seen: GatewayFigures | None) -> str:
    """The figures that only the gateway knows, if they are not zero."""
    if seen is None:
        return ""
    figures = (
        (seen.failed, "failed at the gateway"),
        (seen.queued, "waiting for a worker"),
        (seen.reading, "slow readers"),
    )
    return "".join(f", {number} {text}" for number, text in figures if number)
