"""The options of `hitless drill`, with their help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hitless.drill import faults, scenarios
from hitless.drill.pace import PROFILE_EXAMPLES

DEFAULT_RELEASES = 5
DEFAULT_RATE = 500


class Arrivals(StrEnum):
    """How requests are spread over time."""

    EVEN = "even"
    POISSON = "poisson"


class Protocol(StrEnum):
    """The protocol of the requests."""

    H1 = "h1"
    H2 = "h2"


RateOption = Annotated[float | None, typer.Option("--rate", help=f"Requests a second; default {DEFAULT_RATE}.")]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", help=f"A changing rate, instead of --rate: {PROFILE_EXAMPLES}.")
]
ArrivalsOption = Annotated[
    Arrivals, typer.Option("--arrivals", help="Evenly spaced, or at random as from many clients.")
]
ProtocolOption = Annotated[
    Protocol, typer.Option("--protocol", help="HTTP/1.1, or HTTP/2 (without TLS: by prior knowledge).")
]
DurationOption = Annotated[float, typer.Option("--duration", help="Seconds; longer if the releases take longer.")]
ReleasesOption = Annotated[
    int | None,
    typer.Option("--releases", min=0, help="Number of releases to ship; default: one for each scenario, or 5."),
]
ScenariosOption = Annotated[
    str, typer.Option("--scenarios", help=f"Kinds of releases, in turn: {', '.join(scenarios.SCENARIOS)}.")
]
FaultsOption = Annotated[str, typer.Option("--faults", help=f"Faults to cause meanwhile: {', '.join(faults.FAULTS)}.")]
RequestsOption = Annotated[
    Path | None,
    typer.Option("--requests", help="JSON lines or a HAR file; default: the smoke requests, else each route."),
]
ReportOption = Annotated[Path | None, typer.Option("--report", help="The HTML page to write.")]
TargetOption = Annotated[str | None, typer.Option("--target", help="A URL to load; without --releases nothing ships.")]
StrategyOption = Annotated[
    str | None, typer.Option("--strategy", help="The strategy of releases whose scenario has none.")
]
NewConnectionsOption = Annotated[
    float, typer.Option("--new-connections", help="Percentage of requests that open a connection of their own.")
]
ConnectionsOption = Annotated[int, typer.Option("--connections", help="Number of connections that are kept alive.")]
IdempotencyKeyOption = Annotated[
    bool, typer.Option("--idempotency-key", help="Send each unsafe request with a new Idempotency-Key.")
]
