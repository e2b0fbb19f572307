"""The model as JSON: the way there and back gives the same object."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.service.document import function_from_json, function_to_json, stage_from_json, stage_to_json
from hitless.service.model import (
    AlarmSettings,
    Approval,
    Function,
    Home,
    Nat,
    RehearsalSettings,
    Route,
    SmokeRequest,
    StageSettings,
)
from hitless.service.strategy import AllAtOnce, Canary, Linear

pytestmark = pytest.mark.unit

TEXT = st.text(max_size=8)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
FUNCTIONS = st.builds(
    Function,
    name=TEXT,
    handler=TEXT,
    environment=PAIRS,
    routes=st.lists(st.builds(Route, TEXT, TEXT), max_size=3).map(tuple),
    package_patterns=st.lists(TEXT, max_size=3).map(tuple),
    memory_mb=st.integers(128, 10240),
    timeout_s=st.integers(1, 900),
    workers=st.integers(1, 1000),
    description=TEXT,
)
STAGES = st.builds(
    StageSettings,
    name=TEXT,
    branch=TEXT,
    home=st.sampled_from(Home),
    host=TEXT,
    port=st.integers(0, 65535),
    strategy=st.sampled_from([AllAtOnce(), Canary(5, 30), Linear(10, 60)]),
    approval=st.sampled_from(Approval),
    rehearsal=st.none() | st.builds(RehearsalSettings, st.floats(1, 100), st.floats(1, 100), st.floats(1, 1000)),
    shield=st.booleans(),
    nat=st.sampled_from(Nat),
    domain=st.none() | TEXT,
    smoke=st.lists(st.builds(SmokeRequest, TEXT, TEXT, PAIRS, st.none() | TEXT, st.integers(100, 599)), max_size=2).map(
        tuple
    ),
    alarms=st.builds(AlarmSettings, st.floats(0, 100), st.integers(0, 1000)),
    release_header=st.booleans(),
)


@given(FUNCTIONS)
def test_a_function_comes_back_equal(function: Function) -> None:
    assert function_from_json(json.loads(json.dumps(function_to_json(function)))) == function


@given(STAGES)
def test_a_stage_comes_back_equal(stage: StageSettings) -> None:
    assert stage_from_json(json.loads(json.dumps(stage_to_json(stage)))) == stage


def test_a_document_of_an_older_version_takes_the_defaults() -> None:
    assert function_from_json({"name": "api", "handler": "a.b"}) == Function("api", "a.b")
    assert stage_from_json({"name": "dev", "branch": "dev"}) == StageSettings("dev", "dev")
    rehearsed = [
        stage_from_json({"name": "dev", "branch": "dev", "rehearsal": word}).rehearsal for word in (True, False)
    ]
    assert rehearsed == [RehearsalSettings(), None]


def test_every_field_of_the_model_is_in_the_document() -> None:
    assert set(function_to_json(Function("a", "b.c"))) == set(Function.__dataclass_fields__)
    assert set(stage_to_json(StageSettings("dev", "dev"))) == set(StageSettings.__dataclass_fields__)


def test_secrets_are_not_in_the_repr() -> None:
    function = Function("api", "a.b", environment=(("KEY", "s3cret"),))
    request = SmokeRequest("GET", "/", headers=(("authorization", "s3cret"),), body="s3cret")
    assert "s3cret" not in repr(function)
    assert "s3cret" not in repr(StageSettings("dev", "dev", smoke=(request,)))
