"""Invariants between any two releases: no serving resource is replaced, removed or moved too early."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hitless.cloud.transform.model import STAGE_ID, Template, changes, of_type
from hitless.cloud.transform.updates import removes_guarded
from hitless.service.strategy import parse
from tests.unit.release_support import NAMES, RememberedStack, packaged, release

pytestmark = pytest.mark.unit

COMPILED = packaged().template
SERVING = (
    "AWS::Lambda::Function",
    "AWS::Lambda::Alias",
    "AWS::Lambda::Permission",
    "AWS::ApiGateway::RestApi",
    "AWS::ApiGateway::Stage",
    "AWS::ApiGateway::BasePathMapping",
    "AWS::IAM::Role",
    "AWS::Logs::LogGroup",
)


def without_function(compiled: Template, base: str) -> Template:
    """The service without one function: osls compiles neither its resources nor its routes."""
    made = copy.deepcopy(compiled)
    methods = [
        name for name, one in of_type(made["Resources"], "AWS::ApiGateway::Method").items()
        if f"{base}LambdaFunction" in str(one)
    ]  # fmt: skip
    paths = {made["Resources"][name]["Properties"]["ResourceId"]["Ref"] for name in methods}
    own = [name for name in made["Resources"] if name.startswith(base)]
    for name in [*methods, *paths, *own]:
        del made["Resources"][name]
    for one in of_type(made["Resources"], "AWS::ApiGateway::Deployment").values():
        one["DependsOn"] = [name for name in one["DependsOn"] if name not in methods]
    made["Outputs"] = {key: value for key, value in made["Outputs"].items() if not key.startswith(base)}
    return made


def with_setting(compiled: Template, base: str, memory: int) -> Template:
    made = copy.deepcopy(compiled)
    made["Resources"][f"{base}LambdaFunction"]["Properties"]["MemorySize"] = memory
    return made


def shipped(*codes: dict[str, str]) -> RememberedStack:
    stack = RememberedStack()
    for number, code in enumerate(codes, 1):
        stack.ship(COMPILED, release(number, code))
    return stack


@dataclass(frozen=True)
class Change:
    """One release of a history. `shifts`: whether its shift succeeds."""

    memory: int
    meetings: bool
    code: dict[str, str]
    shifts: bool
    strategy: str

    def compiled(self) -> Template:
        template = with_setting(COMPILED, "Zones", self.memory)
        return template if self.meetings else without_function(template, "Meetings")


CHANGES = st.builds(
    Change,
    memory=st.sampled_from([256, 512]),
    meetings=st.booleans(),
    code=st.fixed_dictionaries({name: st.sampled_from("abc") for name in NAMES}),
    shifts=st.booleans(),
    strategy=st.sampled_from(["AllAtOnce", "Canary10Percent5Minutes", "Linear20PercentEvery2Minutes"]),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(CHANGES, min_size=2, max_size=5))
def test_no_serving_resource_is_replaced_and_no_alias_is_removed_too_early(history: list[Change]) -> None:
    stack = RememberedStack()
    stack.ship(COMPILED, release(1))
    for number, change in enumerate(history, 2):
        began, served = len(stack.log), stack.live
        wanted = release(number, change.code, strategy=parse(change.strategy))
        stack.ship(change.compiled(), wanted, shifts=change.shifts)
        updates = [served.template, *stack.log[began:]]
        for before, after in itertools.pairwise(updates):
            _no_harm(before, after)
        _is_unchanged_until_the_shift(served.aliases, updates[:-1] if change.shifts else updates)


def _no_harm(before: Template, after: Template) -> None:
    for change in changes(before, after):
        assert not (change.type in SERVING and change.replaces), change
        if change.action == "remove" and change.type in SERVING:
            assert "hitless:retired" in before["Resources"][change.resource].get("Metadata", {}), change


def _is_unchanged_until_the_shift(aliases: dict[str, str] | Any, updates: list[Template]) -> None:
    """Checks that until the shift each update keeps every alias at its live version, and the Stage at its
    Deployment.
    """
    for template in updates[1:]:
        for name, version in aliases.items():
            assert template["Resources"][name]["Properties"]["FunctionVersion"] == version
        assert template["Resources"][STAGE_ID] == updates[0]["Resources"][STAGE_ID]


def test_a_release_changes_only_resources_of_changed_functions() -> None:
    stack = shipped({}, {"zones": "b"})
    touched = {
        change.resource for before, after in itertools.pairwise(stack.log[1:]) for change in changes(before, after)
    }
    assert touched
    assert all(name.startswith("Zones") for name in touched)


def test_a_commit_without_changes_publishes_nothing_and_keeps_the_recorded_commit() -> None:
    stack = shipped({}, {})
    variables = stack.live.resources["MetaLambdaFunction"]["Properties"]["Environment"]["Variables"]
    assert variables["HITLESS_COMMIT"] == "commit-1"
    assert stack.published["MetaLambdaFunction"] == [f"artifacts/{'a' * 64}.zip 512"]


def test_a_changed_function_gets_the_commit_of_its_release() -> None:
    stack = shipped({}, {"meta": "b"})
    variables = stack.live.resources["MetaLambdaFunction"]["Properties"]["Environment"]["Variables"]
    assert variables["HITLESS_COMMIT"] == "commit-2"


def test_repeating_a_failed_release_reuses_its_published_version() -> None:
    stack = shipped({})
    stack.ship(COMPILED, release(2, {"zones": "b"}), shifts=False)
    assert stack.live.aliases["ZonesAliasLive"] == "1"
    stack.ship(COMPILED, release(3, {"zones": "b"}))
    assert stack.live.aliases["ZonesAliasLive"] == "2"
    assert len(stack.published["ZonesLambdaFunction"]) == 2


def test_a_removed_function_is_kept_for_one_more_release() -> None:
    stack = shipped({}, {"zones": "b"})
    fewer = without_function(COMPILED, "Meetings")
    stack.ship(fewer, release(3))
    for name in ("MeetingsLambdaFunction", "MeetingsAliasLive", "MeetingsRole"):
        assert name in stack.live.resources, "it still answers requests that were on their way"
    assert "ApiGatewayMethodMeetingsPost" not in stack.live.resources
    stack.ship(fewer, release(4, {"zones": "c"}))
    expanded, contracted = stack.log[-2:]
    assert "MeetingsAliasLive" in expanded["Resources"]
    assert "MeetingsAliasLive" not in contracted["Resources"]
    assert removes_guarded(expanded, contracted), "the stack policy is lifted for this update"
    assert not removes_guarded(stack.log[-3], expanded)
