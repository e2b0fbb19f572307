"""`hitless drill`: load on a service while releases ship and faults happen; every request is accounted for."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hitless.cli.common import Context, HomeOption, UnsuccessfulResult, command
from hitless.clock import SystemClock, timestamp
from hitless.drill import faults as drill_faults
from hitless.drill import scenarios as drill_scenarios
from hitless.drill.pace import PROFILE_EXAMPLES, Pieces, parse_profile
from hitless.drill.plan import DrillPlan, check_duration
from hitless.drill.progress import TerminalProgress
from hitless.drill.report import render
from hitless.drill.requests import DrillRequest, from_routes, from_smoke, read_requests, with_keys
from hitless.drill.result import DrillResult
from hitless.drill.run import run_drill
from hitless.drill.shipper import Shipper, stage_of
from hitless.drill.target import parse_target
from hitless.drill.workspace import Source
from hitless.errors import ConflictError, HitlessError, UsageError
from hitless.homes.home import StageHome, home_at
from hitless.pages.page import write_page
from hitless.service.model import PROGRAM_RUNTIMES, Home, Service

DEFAULT_RELEASES = 5
DEFAULT_RATE = 500

ProfileOption = Annotated[
    str | None, typer.Option("--profile", help=f"A changing rate, instead of --rate: {PROFILE_EXAMPLES}.")
]
ArrivalsOption = Annotated[
    Literal["even", "poisson"],
    typer.Option("--arrivals", help="Evenly spaced, or at random as from many clients."),
]
ProtocolOption = Annotated[
    Literal["h1", "h2"],
    typer.Option("--protocol", help="HTTP/1.1, or HTTP/2 (without TLS: by prior knowledge)."),
]
ReleasesOption = Annotated[
    int | None,
    typer.Option("--releases", min=0, help="Number of releases to ship; default: one for each scenario, or 5."),
]
ScenariosOption = Annotated[
    str, typer.Option("--scenarios", help=f"Kinds of releases, in turn: {', '.join(drill_scenarios.SCENARIOS)}.")
]
FaultsOption = Annotated[
    str, typer.Option("--faults", help=f"Faults to cause during the load: all, {', '.join(drill_faults.FAULTS)}.")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Cause faults at random times during rollouts. A seed repeats them.")
]
RequestsOption = Annotated[
    Path | None,
    typer.Option("--requests", help="JSON lines; default: the smoke requests, else each route."),
]
TargetOption = Annotated[str | None, typer.Option("--target", help="A URL to load; without --releases nothing ships.")]
StrategyOption = Annotated[
    str | None, typer.Option("--strategy", help="The strategy of releases whose scenario has none.")
]
NewConnectionsOption = Annotated[
    float, typer.Option("--new-connections", help="Percentage of requests that open a connection of their own.")
]
IdempotencyKeyOption = Annotated[
    bool, typer.Option("--idempotency-key", help="Send each unsafe request with a new Idempotency-Key.")
]


@command("drill", example="hitless drill --rate 1500 --duration 60 --releases 30")
def drill(
    ctx: Context,
    rate: Annotated[float | None, typer.Option("--rate", help=f"Requests a second; default {DEFAULT_RATE}.")] = None,
    profile: ProfileOption = None,
    arrivals: ArrivalsOption = "even",
    protocol: ProtocolOption = "h1",
    duration: Annotated[float, typer.Option("--duration", help="Seconds; longer if the releases take longer.")] = 30,
    releases: ReleasesOption = None,
    scenarios: ScenariosOption = "",
    faults: FaultsOption = "",
    seed: SeedOption = None,
    requests: RequestsOption = None,
    report: Annotated[Path | None, typer.Option("--report", help="The page to write: HTML, or Markdown (.md).")] = None,
    target: TargetOption = None,
    strategy: StrategyOption = None,
    new_connections: NewConnectionsOption = 20,
    connections: Annotated[int, typer.Option("--connections", help="Number of connections that are kept alive.")] = 50,
    idempotency_key: IdempotencyKeyOption = False,
    home: HomeOption = None,
) -> None:
    """Send load while releases ship. Every request is accounted for."""
    names, broken = _list(scenarios), _list(faults)
    count = releases if releases is not None else len(names) or (0 if target else DEFAULT_RELEASES)
    by_engine = target is None or count > 0 or bool(broken)
    service = ctx.load() if by_engine else ctx.try_load()
    kind = home or (service.settings.home if service else Home.ENGINE)
    shipped = home_at(kind, ctx) if by_engine else None
    shipper = _shipper(ctx, shipped, strategy, home) if shipped else None
    wanted = _requests(requests, service)
    plan = DrillPlan(
        stage=ctx.stage,
        rate_per_s=DEFAULT_RATE if rate is None else rate,
        duration_s=duration,
        requests=with_keys(wanted) if idempotency_key else wanted,
        profile=profile,
        pieces=_pieces(profile, rate, duration),
        seed=(secrets.randbits(31) if seed is None else seed) if arrivals == "poisson" else None,
        http2=protocol == "h2",
        scenarios=drill_scenarios.choose(names, count),
        faults=drill_faults.choose(broken, seed),
        fault_seed=seed,
        faults_left_out=drill_faults.LEFT_OUT if broken == ["all"] else {},
        report=_report(ctx, report, service),
        command=shlex.join(["hitless", *sys.argv[1:]]),
        new_connections_percent=new_connections,
        connections=connections,
    )
    plan.check(yes=ctx.yes)
    if kind is Home.AWS and shipped:
        _refuse_on_aws(plan, service)
    try:
        watched = shipped is not None and kind is Home.ENGINE
        result = asyncio.run(_run(ctx, plan, target, shipper, service, watched))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if shipped is not None:
        result = replace(result, receipts=_receipts(shipped, result))
    write_page(plan.report, partial(render, result))
    ctx.show(result.to_json(), lambda: f"{result.headline}; report {plan.report}")
    _conclude(result)


def _refuse_on_aws(plan: DrillPlan, service: Service | None) -> None:
    """UsageError for faults, and for scenarios that wrap a program."""
    if plan.faults:
        raise UsageError(
            f"--faults: the home of stage {plan.stage} is AWS, where no process can be killed",
            hint="leave --faults out: on AWS a drill sends load and ships releases only",
        )
    wrapped = [one.name for one in plan.scenarios if one.wrapper]
    if service and wrapped and all(one.runtime in PROGRAM_RUNTIMES for one in service.functions):
        raise UsageError(
            f"--scenarios: {wrapped[0]} wraps the program in Python, and {PROGRAM_RUNTIMES[1]} on Lambda has none",
            hint="leave it out, or drill a stage of the engine",
        )


def _shipper(ctx: Context, shipped: StageHome, strategy: str | None, home: Home | None) -> Shipper:
    return Shipper(
        service_dir=ctx.service_dir,
        data_dir=ctx.data_dir,
        stage=ctx.stage,
        strategy=strategy,
        home=home,
        read_status=shipped.status,
    )


def _receipts(home: StageHome, result: DrillResult) -> tuple[dict[str, Any], ...]:
    """The receipts of the rollouts since the drill began, oldest first; none if the home does not respond."""
    numbers = dict.fromkeys(one.release for one in (*result.releases, result.restored) if one and one.release)
    began = timestamp(result.started_at)
    try:
        shown = [home.release(number) for number in numbers]
    except HitlessError:
        return ()
    found = [
        {"release": each["release"], "rollout": rollout}
        for each in shown
        for rollout in each["rollouts"]
        if rollout["started_at"] >= began
    ]
    return tuple(sorted(found, key=lambda one: (one["rollout"]["started_at"], one["rollout"]["rollout"])))


async def _run(
    ctx: Context,
    plan: DrillPlan,
    target: str | None,
    shipper: Shipper | None,
    service: Service | None,
    watched: bool,
) -> DrillResult:
    stop = _stop_on_signal(ctx)
    if target is None:
        assert shipper is not None
        target = stage_of(await shipper.status(), plan.stage)["url"]
    if target is None:
        raise ConflictError(f"stage {plan.stage} has no URL yet", hint="ship a first release: `hitless deploy`")
    source = Source.of(service, ctx.stage) if service is not None else None
    with TerminalProgress() as progress:
        return await run_drill(
            plan,
            parse_target(target),
            shipper=shipper,
            source=source,
            data_dir=ctx.data_dir,
            progress=progress,
            clock=SystemClock(),
            stop=stop,
            watched=watched,
        )


def _stop_on_signal(ctx: Context) -> asyncio.Event:
    """Set by the first Ctrl-C: the drill ends in order, with the first release live again. The second cancels it."""
    stop, whole = asyncio.Event(), asyncio.current_task()

    def interrupt() -> None:
        if stop.is_set() and whole is not None:
            whole.cancel()
        else:
            ctx.say("ending after this rollout, with the first release live again; Ctrl-C again stops at once")
            stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    return stop


def _conclude(result: DrillResult) -> None:
    """UnsuccessfulResult if a request was lost, or a rollout ended otherwise than its scenario expects."""
    if result.exit_code == 6:
        raise UnsuccessfulResult(6, result.headline, f"{result.loss}; the report shows when: {result.plan.report}")
    if result.exit_code:
        raise UnsuccessfulResult(1, "; ".join(result.surprises), f"see the report: {result.plan.report}")


def _requests(file: Path | None, service: Service | None) -> tuple[DrillRequest, ...]:
    if file is not None:
        return read_requests(file)
    if service is None:
        return (DrillRequest("GET", "/"),)
    routes = [route for function in service.functions for route in function.routes]
    return from_smoke(service.settings.smoke) or from_routes(routes)


def _pieces(profile: str | None, rate: float | None, duration_s: float) -> Pieces:
    if profile is None:
        return ()
    if rate is not None:
        raise UsageError("--rate and --profile exclude each other", hint="leave one of them out")
    check_duration(duration_s)
    return parse_profile(profile, duration_s)


def _report(ctx: Context, named: Path | None, service: Service | None) -> Path:
    """The path of the page. Not in the service's folder by default, because that folder is shipped."""
    if named is not None:
        return named.expanduser().resolve()
    if service is None:
        return Path("drill.html").resolve()
    return ctx.data_dir / "drills" / f"drill-{SystemClock().now():%Y%m%dT%H%M%S}.html"


def _list(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if any(not name for name in names) and text.strip():
        raise UsageError(f"{text!r}: the list has an empty name", hint="separate the names with one comma each")
    return [name for name in names if name]
