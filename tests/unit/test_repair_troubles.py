"""From an observed state to faults and repair steps, as pure functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hitless.aws.api_stages import ApiStage
from hitless.aws.codedeploy import Deployment
from hitless.aws.lambdas import AliasState
from hitless.cloud.records.records import Record
from hitless.cloud.repair.facts import Facts, Mapped, Served, look
from hitless.cloud.repair.troubles import (
    ContinueRollback,
    DropShield,
    End,
    FinishRollback,
    Map,
    Point,
    Provision,
    Serve,
    SettleStack,
    StopShifts,
    Upload,
    troubles,
)
from hitless.cloud.stage.stage import Observed
from hitless.cloud.transform.functions import Ready
from hitless.cloud.transform.model import FunctionIds, LiveState
from tests.unit.test_cloud_deploy import live_world

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
META, CONVERT = FunctionIds("Meta"), FunctionIds("Convert")
NAME = "worldclock-prod-meta"
API = ApiStage("api", "prod")


@functools.cache
def well() -> Facts:
    """Release 2 is live, all functions are at version 2, and there is no fault."""
    return replace(look(live_world("a", "b").cloud()), now=NOW)


def begun(number: int = 3, **said: object) -> Record:
    """A release that has not ended."""
    record = well().live
    assert record is not None
    fields = {"versions": {"meta": "3", "convert": "3"}, "strategy": "Canary10Percent5Minutes", **said}
    return replace(record, release=number, outcome=None, **fields)  # type: ignore[arg-type]


def at(version: str, **others: float) -> Observed:
    """The alias of `meta` at that version; `v1=0.1` is a share of version 1."""
    observed = well().observed
    state = AliasState(version, {name.removeprefix("v"): share for name, share in others.items()})
    return replace(observed, aliases={**observed.aliases, META: state})


def shifting(minutes: float) -> dict[str, tuple[FunctionIds, Deployment]]:
    """A deployment of `meta` that began this long ago."""
    return {"d-1": (META, Deployment("InProgress", began=NOW - timedelta(minutes=minutes)))}


def served(at: str | None, belongs: str = "mine") -> Served:
    return Served(API, at, belongs)


def left() -> Record:
    """Release 1, the target of a rollback."""
    return begun(1, versions={"meta": "1", "convert": "1"})


def mapped(at: ApiStage | None, path: str = "(none)") -> Mapped:
    return Mapped("api.example.org", path, at, API)


Change = Callable[[Facts], Facts]
TABLE: dict[str, tuple[Change, list[tuple[str, object]]]] = {
    "nothing": (lambda f: f, []),
    "no stack": (lambda f: Facts(NOW, "s", None), []),
    "no stack and a release that died": (
        lambda f: Facts(NOW, "s", None, unfinished=begun(1)),
        [("cut off, unless it still runs", End(1, live=False))],
    ),
    "an alias elsewhere": (
        lambda f: replace(f, observed=at("1")),
        [("to version 1 100 %: release 2 has version 2", Point(NAME, "2"))],
    ),
    "weights and no shift": (
        lambda f: replace(f, observed=at("2", v3=0.1)),
        [("has weights (version 2 90 %, version 3 10 %), and no shift", Point(NAME, "2"))],
    ),
    "an alias that is gone": (
        lambda f: replace(f, observed=replace(f.observed, aliases={CONVERT: AliasState("2")})),
        [("the alias live was deleted", None)],
    ),
    "a release under way whose shift goes on": (
        lambda f: replace(f, observed=at("2", v3=0.1), unfinished=begun(), deployments=shifting(1)),
        [],
    ),
    "a shift that lasts longer than its strategy and two hooks": (
        lambda f: replace(f, observed=at("2", v3=0.1), unfinished=begun(), deployments=shifting(141)),
        [("d-1 is in progress since 2026-11-24 09:39 UTC", StopShifts(("Meta",))), ("cut off", End(3, live=False))],
    ),
    "a shift that lasts as long as it may": (
        lambda f: replace(f, unfinished=begun(), deployments=shifting(139)),
        [],
    ),
    "a shift that nobody holds": (
        lambda f: replace(f, observed=at("2", v3=0.1), deployments=shifting(1)),
        [("no release is under way", StopShifts(("Meta",)))],
    ),
    "a release that died": (lambda f: replace(f, unfinished=begun()), [("cut off", End(3, live=False))]),
    "a release that died at its very end": (
        lambda f: replace(f, live=replace(begun(2), versions={"meta": "2", "convert": "2"}), unfinished=begun(2)),
        [("it is live, but its record does not say so", End(2, live=True))],
    ),
    "an update that goes on": (
        lambda f: replace(f, status="UPDATE_IN_PROGRESS", unfinished=begun(), observed=at("1"), served=served("other")),
        [],
    ),
    "a rollback that died": (
        lambda f: replace(f, left_for=left(), observed=at("1")),
        [
            ("to version 2 100 %: release 1 has version 1", Point("worldclock-prod-convert", "1")),
            ("the rollback from release 2 to 1 did not finish", FinishRollback(1)),
        ],
    ),
    "a stage elsewhere": (
        lambda f: replace(f, served=served("other")),
        [("it serves Deployment other instead of the stack's mine", Serve(served("other")))],
    ),
    "a stage that is gone": (lambda f: replace(f, served=served(None)), [("the stage was deleted", None)]),
    "a stage whose Deployment is gone": (
        lambda f: replace(f, served=served("other", "")),
        [("instead of the stack's (deleted)", None)],
    ),
    "a function that API Gateway may not invoke": (
        lambda f: replace(f, closed=(META,)),
        [("API Gateway may not invoke the alias live", None)],
    ),
    "a domain that leads nowhere": (
        lambda f: replace(f, mapped=(mapped(None),)),
        [("api.example.org leads nowhere", Map(mapped(None)))],
    ),
    "a path of a domain that leads elsewhere": (
        lambda f: replace(f, mapped=(mapped(ApiStage("other", "prod"), "v1"),)),
        [("api.example.org/v1 leads to stage prod of API other", Map(mapped(ApiStage("other", "prod"), "v1")))],
    ),
    "environments that nobody needs": (
        lambda f: replace(f, ready={(META, "1"): 2}),
        [("2 environments of version 1 are provisioned instead of 0", Provision(NAME, "1", 0))],
    ),
    "environments of a candidate whose deploy may go on": (
        lambda f: replace(f, ready={(META, "3"): 2}, unfinished=begun(), deployments=shifting(1)),
        [],
    ),
    "environments that are missing": (
        lambda f: replace(f, wanted={META: Ready(3)}, ready={(META, "2"): 1}),
        [("1 environments of version 2 are provisioned instead of 3", Provision(NAME, "2", 3))],
    ),
    "a shield and no shift": (
        lambda f: replace(f, shielding=("hitlessShieldMeta",)),
        [("a shield is up", DropShield())],
    ),
    "a shield of a shift": (
        lambda f: replace(f, shielding=("hitlessShieldMeta",), unfinished=begun(), deployments=shifting(1)),
        [],
    ),
    "a roll-back that is stuck": (
        lambda f: replace(f, status="UPDATE_ROLLBACK_FAILED", failures={"Table": "in use"}),
        [("got stuck at Table: in use", ContinueRollback("worldclock-prod"))],
    ),
    "a lost artifact": (
        lambda f: replace(f, missing=((begun(1, versions={"meta": "1"}), "meta", "ab" * 32),)),
        [("the artifact of meta (abababababab…) is not in the bucket", Upload(NAME, "1", "ab" * 32))],
    ),
    "a lost template": (
        lambda f: replace(f, missing=((begun(1), "", ""),)),
        [("its template is not in the artifact bucket", None)],
    ),
}
for state in ("UPDATE_FAILED", "CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"):
    TABLE[state] = (
        lambda f, state=state: replace(f, status=state, observed=Observed(LiveState(), {}, {}), served=None),  # type: ignore[misc]
        [(f"{state}: ", SettleStack("worldclock-prod"))],
    )


@pytest.mark.parametrize("case", TABLE)
def test_each_fault_is_reported_with_the_step_that_fixes_it(case: str) -> None:
    change, expected = TABLE[case]
    found = troubles(change(well()))
    assert [one.step for one in found] == [step for _, step in expected], [one.what for one in found]
    for one, (said, step) in zip(found, expected, strict=True):
        assert said in one.what
        assert one.where
        assert (one.fix == "`hitless aws repair`") == (step is not None)


def test_taking_over_stops_the_shifts_and_ends_the_running_release() -> None:
    facts = replace(well(), observed=at("2", v3=0.1), unfinished=begun(), deployments=shifting(1))
    steps = [one.step for one in troubles(facts, taking_over=True)]
    assert steps == [StopShifts(("Meta",)), End(3, live=False)]


def test_while_a_stack_rollback_is_stuck_the_live_releases_template_is_used() -> None:
    stuck = replace(well(), status="UPDATE_ROLLBACK_FAILED", served=served("other"))
    assert Serve(served("other")) in [one.step for one in troubles(stuck)]
    theirs = replace(stuck, live=begun(1, versions={"meta": "2", "convert": "2"}))
    assert Serve(served("other")) not in [one.step for one in troubles(theirs)]


def test_repair_moves_traffic_first_and_ends_the_record_last() -> None:
    facts = replace(
        well(), status="UPDATE_ROLLBACK_FAILED", failures={"T": "no"}, observed=at("1"), served=served("other"),
        mapped=(mapped(None),), ready={(META, "9"): 1}, shielding=("x",), unfinished=begun(),
        missing=((begun(1), "", ""),),
    )  # fmt: skip
    order = [type(one.step) for one in troubles(facts)]
    assert order == [Point, Serve, Map, Provision, DropShield, ContinueRollback, End, type(None)]
