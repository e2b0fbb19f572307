"""Does an errand of the engine's pipeline on AWS, because the daemon neither loads boto3 nor waits for AWS.

Started by `hitless.pipeline.errands`. A release that is cut off with its process is continued by the next one
(docs/aws-releases.md), and CodeDeploy's alarms watch the traffic until then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_never

from hitless.cli.common import say_on_stderr
from hitless.documents import convert, to_plain
from hitless.errors import ConflictError
from hitless.homes.aws import AwsHome
from hitless.homes.errands import AnyErrand, CopyLive, FetchArtifacts, RollBack, Ship, TellOrigin, Verify
from hitless.homes.home import Workplace
from hitless.pipeline.children import serve_call


def run_errand(order: dict[str, Any]) -> dict[str, Any]:
    """Do an errand; its document. Raises HitlessError."""
    errand: AnyErrand = convert(order, AnyErrand, "the errand")  # type: ignore[arg-type]
    place = Workplace(
        stage=errand.stage, service_dir=Path(errand.folder), data_dir=Path(errand.data), say=say_on_stderr
    )
    return dict(to_plain(_done(errand, AwsHome(place))))


def _done(errand: AnyErrand, home: AwsHome) -> object:
    match errand:
        case TellOrigin():
            return home.origin()
        case FetchArtifacts(digests=digests):
            return {"fetched": home.fetch(digests)}
        case CopyLive():
            try:
                return {"document": home.live().to_json(), "why": None}
            except ConflictError as error:
                return {"document": None, "why": error.message}
        case Ship(given=given):
            return home.ship(given)
        case Verify(release=release, digests=digests_of):
            return home.verify(release, digests_of)
        case RollBack(why=why):
            return home.rolled_back(None, why)
        case _:
            assert_never(errand)


if __name__ == "__main__":
    serve_call(run_errand)
