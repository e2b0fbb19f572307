"""The documents of the release model: the JSON of each stays what earlier versions wrote, showed and sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.documents import convert, decode, to_plain, to_text
from hitless.errors import UsageError
from hitless.release.document import ArtifactRef, Origin, PromotedFrom, ReleaseDocument
from hitless.release.receipt import ReceiptDocument
from hitless.release.result import LastReading, Outcome, Result, SideCounts, Step
from hitless.release.status import StageStatus, Status
from hitless.release.who import Who
from hitless.rollout.receipt import Receipt
from hitless.service.event_sources import Route
from hitless.service.model import (
    AlarmSettings,
    Approval,
    Function,
    Home,
    Hooks,
    Notify,
    NotifyBy,
    RehearsalSettings,
    SmokeRequest,
    StageSettings,
    Sticky,
    StickyBy,
)
from hitless.service.strategy import Canary

pytestmark = pytest.mark.unit

FIXTURES = Path(__file__).parent / "fixtures" / "release"
API = Function(
    name="api",
    handler="src/handlers.api",
    environment=(("TABLE", "zones"),),
    routes=(Route("GET", "/zones/{area}"),),
    package_patterns=("!tests/**",),
    workers=1,
    max_workers=4,
    reserved_concurrency=8,
)
PROD = StageSettings(
    name="prod",
    branch="main",
    home=Home.AWS,
    strategy=Canary(10, 30),
    approval=Approval.MANUAL,
    rehearsal=RehearsalSettings(),
    domain="api.example.org",
    smoke=(SmokeRequest("GET", "/zones/eu", (("accept", "*/*"),)),),
    alarms=AlarmSettings(p99_ms=50, also=("db-cpu",)),
    hooks=Hooks("before", None),
    sticky=Sticky(StickyBy.HEADER, "x-user"),
    idempotent=(Route("PUT", "/zones/{area}"),),
    notify=(Notify(NotifyBy.COMMAND, "say"),),
)
DIGEST = f"sha256:{'a' * 64}"
FULL = ReleaseDocument(
    service="worldclock",
    region="eu-central-1",
    functions=(API, Function(name="before", handler="src/hooks.before")),
    artifacts={"api": ArtifactRef(DIGEST, False), "before": ArtifactRef(f"sha256:{'b' * 64}", True)},
    settings=PROD,
    commit="1a2b3c",
    message="faster",
    memory_mb=512,
    promoted_from=PromotedFrom(Home.AWS, "staging", 7),
)
LEAST = ReleaseDocument(
    service="worldclock",
    region="us-east-1",
    functions=(API,),
    artifacts={"api": ArtifactRef(f"sha256:{'c' * 64}", False)},
    settings=StageSettings(name="dev", branch="dev"),
)
ORIGIN = Origin(Home.AWS, "staging", 7, {"api": DIGEST}, "1a2b3c", None)


def recorded(name: str) -> Any:
    """A document as an earlier version wrote it."""
    return json.loads((FIXTURES / f"{name}.json").read_text())


def same(document: Any, name: str) -> None:
    """Equal, keys in the same order."""
    assert json.dumps(document) == json.dumps(recorded(name))


@pytest.mark.parametrize(("release", "name"), [(FULL, "full"), (LEAST, "least")])
def test_a_release_document_is_written_and_read_as_before(release: ReleaseDocument, name: str) -> None:
    same(release.to_json(), f"release_{name}")
    assert ReleaseDocument.from_json(recorded(f"release_{name}")) == release
    assert release.fingerprint() == recorded("fingerprints")[name]


def test_a_release_document_of_another_form_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not in a form"):
        ReleaseDocument.from_json({"service": "worldclock"})
    with pytest.raises(UsageError, match=r"`stage` - at `\$.promoted_from`"):
        ReleaseDocument.from_json({**recorded("release_full"), "promoted_from": {"home": "aws"}})


def test_the_fingerprint_ignores_fields_that_do_not_affect_serving() -> None:
    other = replace(FULL, commit="9", message="other", promoted_from=None)
    assert other.fingerprint() == FULL.fingerprint()
    assert replace(FULL, region="us-east-1").fingerprint() != FULL.fingerprint()
    settings = replace(PROD, port=9000, alarms=AlarmSettings())
    assert replace(FULL, settings=settings).fingerprint() == FULL.fingerprint()
    assert replace(FULL, settings=replace(PROD, shield=False)).fingerprint() != FULL.fingerprint()


def test_an_origin_is_written_and_read_as_before() -> None:
    same(to_plain(ORIGIN), "origin")
    assert convert(recorded("origin"), Origin, "origin") == ORIGIN
    same(to_plain(ORIGIN.promoted_from), "promoted_from")


def test_an_origin_of_the_engine_names_the_artifacts_that_cannot_be_promoted() -> None:
    origin = Origin.of("prod", 2, FULL)
    assert (origin.local, origin.artifacts) == (("before",), FULL.digests)
    assert origin.refs == FULL.artifacts


def test_the_caller_of_a_release_is_written_and_read_as_before() -> None:
    who = Who("ada", "grace", "GitHub Actions", "alan", "17")
    same(to_plain(who), "who")
    assert convert(recorded("who"), Who, "who") == who


NOON = "2026-11-24T12:00:00.000Z"
LATER = "2026-11-24T12:00:10.000Z"
ALARM = "alarm: 3 of 100 requests failed"
RESULTS = {
    "engine": Result(
        "prod",
        2,
        Outcome.ROLLED_BACK,
        "Canary10Percent30Seconds",
        reason=ALARM,
        duration_s=31.25,
        steps=(
            Step(NOON, "preparing", 0),
            Step(NOON, "shifting", 10),
            Step(LATER, "withdrawing", 0, ALARM),
            Step(LATER, "baking", 2.5),
        ),
        alarms=LastReading("alarm", "3 of 100 requests failed"),
        candidate=SideCounts(100, 1, 2),
        live=SideCounts(897, 0),
    ),
    "first": Result(
        "prod",
        2,
        Outcome.LIVE,
        "AllAtOnce",
        duration_s=31.25,
        steps=(Step(NOON, "preparing", 0),),
        alarms=None,
        candidate=SideCounts(100, 1, 2),
    ),
    "aws": Result(
        "prod",
        12,
        Outcome.LIVE,
        "Canary10Percent5Minutes",
        duration_s=301.5,
        steps=(Step(NOON, "shifting", 10), Step("2026-11-24T12:05:00.000Z", "ended", 100)),
        candidate=SideCounts(10, 0, 0),
        live=SideCounts(90, 0, 0),
        url="https://api.example.org",
    ),
    "aws_unchanged": Result("prod", 12, Outcome.UNCHANGED, "AllAtOnce", url=None),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_written_and_read_as_before(name: str) -> None:
    same(to_plain(RESULTS[name]), f"result_{name}")
    assert json.loads(to_text(RESULTS[name])) == recorded(f"result_{name}")
    assert decode(json.dumps(recorded(f"result_{name}")), Result, name) == RESULTS[name]


def test_the_status_of_an_engine_keeps_its_form() -> None:
    same(to_plain(convert(recorded("status_engine"), Status, "status")), "status_engine")


@pytest.mark.parametrize("name", ["status_aws", "status_aws_blank"])
def test_the_status_of_a_stage_on_aws_keeps_its_form(name: str) -> None:
    assert json.loads(to_text(convert(recorded(name), StageStatus, "status"))) == recorded(name)


RECEIPTS = ("receipt_engine", "receipt_first", "receipt_aws", "receipt_aws_first")


@pytest.mark.parametrize("name", RECEIPTS)
def test_a_receipt_is_written_and_read_as_before(name: str) -> None:
    receipt = decode(json.dumps(recorded(name)), ReceiptDocument, name)
    assert json.loads(to_text(receipt)) == recorded(name)
    assert list(to_plain(receipt)) == list(recorded(name)), "the keys of the receipt keep their order"


@pytest.mark.parametrize("name", RECEIPTS[:2])
def test_a_daemon_continues_a_receipt_of_an_earlier_version(name: str) -> None:
    document = convert(recorded(name), ReceiptDocument, name)
    assert Receipt.resumed(document).document() == document
