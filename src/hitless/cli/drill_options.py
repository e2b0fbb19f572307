"""The options of `hitless drill`, each with what its help says."""

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
    """How the instants of requests are spread."""

    EVEN = "even"
    POISSON = "poisson"


class Protocol(StrEnum):
    """What the drill speaks."""

    H1 = "h1"
    H2 = "h2"


RateOption = Annotated[float | None, typer.Option("--rate", help=f"Requests a second; default {DEFAULT_RATE}.")]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", help=f"A rate that changes, instead of --rate: {PROFILE_EXAMPLES}.")
]
ArrivalsOption = Annotated[
    Arrivals, typer.Option("--arrivals", help="Evenly spaced, or by chance as from many clients.")
]
ProtocolOption = Annotated[
    Protocol, typer.Option("--protocol", help="HTTP/1.1, or HTTP/2 (without TLS: by prior knowledge).")
]
DurationOption = Annotated[float, typer.Option("--duration", help="Seconds; longer where the releases take longer.")]
ReleasesOption = Annotated[
    int | None,
    typer.Option("--releases", min=0, help="How many ship meanwhile; default: as many as scenarios, or 5."),
]
ScenariosOption = Annotated[
    str, typer.Option("--scenarios", help=f"What they are, in turn: {', '.join(scenarios.SCENARIOS)}.")
]
FaultsOption = Annotated[str, typer.Option("--faults", help=f"What breaks meanwhile: {', '.join(faults.FAULTS)}.")]
RequestsOption = Annotated[
    Path | None, typer.Option("--requests", help="JSON lines or a HAR; default: the smoke requests, else one a route.")
]
ReportOption = Annotated[Path | None, typer.Option("--report", help="The HTML page to write.")]
TargetOption = Annotated[str | None, typer.Option("--target", help="A URL; without --releases, load alone.")]
StrategyOption = Annotated[
    str | None, typer.Option("--strategy", help="How releases roll out whose scenario does not say.")
]
NewConnectionsOption = Annotated[
    float, typer.Option("--new-connections", help="Percent of the requests on connections of their own.")
]
ConnectionsOption = Annotated[int, typer.Option("--connections", help="Connections that are kept alive.")]
IdempotencyKeyOption = Annotated[
    bool, typer.Option("--idempotency-key", help="Each unsafe request carries a fresh Idempotency-Key.")
]
