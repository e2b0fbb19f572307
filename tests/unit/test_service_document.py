"""The model as JSON: decoding returns an equal object."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.documents import convert, decode, to_plain, to_text
from hitless.errors import EngineError
from hitless.service.event_sources import Route
from hitless.service.model import (
    AlarmSettings,
    Approval,
    Function,
    Home,
    Nat,
    Network,
    RehearsalSettings,
    SmokeRequest,
    StageSettings,
)
from hitless.service.strategy import AllAtOnce, Canary, Linear, Strategy

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
    network=st.builds(Network, TEXT, TEXT, TEXT, st.lists(TEXT).map(tuple)),
    domain=st.none() | TEXT,
    smoke=st.lists(st.builds(SmokeRequest, TEXT, TEXT, PAIRS, st.none() | TEXT, st.integers(100, 599)), max_size=2).map(
        tuple
    ),
    alarms=st.builds(AlarmSettings, st.floats(0, 100), st.integers(0, 1000)),
    release_header=st.booleans(),
)


@given(FUNCTIONS)
def test_a_function_is_equal_after_a_round_trip_through_json(function: Function) -> None:
    assert decode(to_text(function), Function, "function") == function


@given(STAGES)
def test_a_stage_is_equal_after_a_round_trip_through_json(stage: StageSettings) -> None:
    assert decode(to_text(stage), StageSettings, "stage") == stage


def test_missing_fields_of_an_older_document_get_their_defaults() -> None:
    assert convert({"name": "api", "handler": "a.b"}, Function, "function") == Function("api", "a.b")
    assert convert({"name": "dev", "branch": "dev"}, StageSettings, "stage") == StageSettings("dev", "dev")


def test_every_field_of_the_model_is_in_the_document() -> None:
    assert set(to_plain(Function("a", "b.c"))) == set(Function.__struct_fields__)
    assert set(to_plain(StageSettings("dev", "dev"))) == set(StageSettings.__struct_fields__)


def test_secrets_are_not_in_the_repr() -> None:
    function = Function("api", "a.b", environment=(("KEY", "s3cret"),))
    request = SmokeRequest("GET", "/", headers=(("authorization", "s3cret"),), body="s3cret")
    assert "s3cret" not in repr(function)
    assert "s3cret" not in repr(StageSettings("dev", "dev", smoke=(request,)))


def test_an_unknown_strategy_is_an_error_with_the_path_of_the_field() -> None:
    with pytest.raises(EngineError, match=r"^stage: 'fast' is not a strategy .*\$\.strategy"):
        convert({"name": "dev", "branch": "dev", "strategy": "fast"}, StageSettings, "stage")


def test_a_strategy_is_written_as_its_name_and_can_be_copied() -> None:
    assert Strategy("Canary10Percent60Seconds") == Canary(10, 60) == "Canary10Percent1Minute"
    again = copy.deepcopy(Linear(10, 90))
    assert isinstance(again, Linear)
    assert (again.percent, again.every_s) == (10, 90)
    assert pickle.loads(pickle.dumps(AllAtOnce())) == AllAtOnce()
