"""What the engine's pipeline asks of AWS, each errand in a process of its own (`hitless.processes.aws_errand`), because
the engine's daemon neither loads boto3 nor waits for AWS.

An order is `{"act", "folder", "stage", "data", …}`. A release that is cut off with its process is continued by the next
one (docs/aws-releases.md), and CodeDeploy's alarms guard the traffic meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hitless.documents import convert, to_plain
from hitless.errors import ConflictError
from hitless.homes.aws import AwsHome, GivenArtifacts
from hitless.homes.home import Workplace
from hitless.release.document import PromotedFrom
from hitless.release.who import Who

Order = Mapping[str, Any]


def _live(home: AwsHome, order: Order) -> dict[str, Any]:
    return dict(to_plain(home.promotable()))


def _fetch(home: AwsHome, order: Order) -> dict[str, Any]:
    return {"fetched": home.fetch(order["artifacts"].values())}


def _copy(home: AwsHome, order: Order) -> dict[str, Any]:
    """The live release, its zips in the engine's store; null if there is none, or no description of it was kept."""
    try:
        return {"document": home.live().to_json()}
    except ConflictError as error:
        return {"document": None, "why": error.message}


def _ship(home: AwsHome, order: Order) -> dict[str, Any]:
    origin = order["promoted_from"]
    given = GivenArtifacts(
        digests=order["artifacts"],
        commit=order["commit"],
        message=order["message"],
        promoted_from=convert(origin, PromotedFrom, "promoted_from") if origin else None,
        who=Who.from_json(order["who"]),
    )
    return dict(to_plain(home.ship(home.place.load_for_aws(), given)))


def _verify(home: AwsHome, order: Order) -> dict[str, Any]:
    found = home.verify(order["release"], order["artifacts"])
    return {"faults": found.faults, "superseded": found.superseded}


def _rollback(home: AwsHome, order: Order) -> dict[str, Any]:
    return dict(to_plain(home.rolled_back(None, order["why"])))


ACTS: Mapping[str, Callable[[AwsHome, Order], dict[str, Any]]] = {
    "live": _live,
    "fetch": _fetch,
    "copy": _copy,
    "ship": _ship,
    "verify": _verify,
    "rollback": _rollback,
}


def run_errand(order: Order) -> dict[str, Any]:
    """Do what the order's `act` names; its document. Raises HitlessError."""
    place = Workplace(stage=order["stage"], service_dir=Path(order["folder"]), data_dir=Path(order["data"]), say=_say)
    return ACTS[order["act"]](AwsHome(place), order)


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
