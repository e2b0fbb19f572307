"""Strategies: names, round trip, steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.service.strategy import MAX_SHIFT_S, AllAtOnce, Canary, Linear, Strategy, parse, weights

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("AllAtOnce", AllAtOnce()),
        ("Canary10Percent5Minutes", Canary(10, 300)),
        ("Canary10Percent30Minutes", Canary(10, 1800)),
        ("Linear10PercentEvery1Minute", Linear(10, 60)),
        ("Linear10PercentEvery10Minutes", Linear(10, 600)),
        ("Canary5Percent30Seconds", Canary(5, 30)),
        ("Linear25PercentEvery1Second", Linear(25, 1)),
    ],
)
def test_a_strategy_is_printed_by_the_name_it_was_read_from(name: str, strategy: Strategy) -> None:
    assert parse(name) == strategy
    assert str(strategy) == name


def test_a_strategy_name_may_use_singular_or_plural_units() -> None:
    assert parse("Linear10PercentEvery1Minutes") == parse("Linear10PercentEvery1Minute")
    assert parse("Canary10Percent5Minute") == parse("Canary10Percent5Minutes")


def test_a_strategy_in_whole_minutes_gets_awss_name() -> None:
    assert str(parse("Canary10Percent120Seconds")) == "Canary10Percent2Minutes"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "allatonce",
        "AllAtOnce ",
        "Canary",
        "Canary0Percent5Minutes",
        "Canary100Percent5Minutes",
        "Canary010Percent5Minutes",
        "Canary10Percent0Minutes",
        "Canary10Percent05Minutes",
        "Canary10PercentEvery5Minutes",
        "Linear10Percent5Minutes",
        "Canary10Percent5Hours",
        "Canary-10Percent5Minutes",
        "Canary1٠Percent5Minutes",
        "Canary10Percent2881Minutes",
        "Linear1PercentEvery30Minutes",
        "xCanary10Percent5Minutes",
    ],
)
def test_an_unknown_strategy_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a strategy|percent|48 hours"):
        parse(name)


def test_each_kind_of_strategy_has_its_weights_and_bakes() -> None:
    assert weights(AllAtOnce()) == ((100, 0),)
    assert weights(Canary(10, 300)) == ((10, 300), (100, 0))
    assert weights(Linear(30, 60)) == ((30, 60), (60, 60), (90, 60), (100, 0))
    assert weights(Linear(50, 5)) == ((50, 5), (100, 0))


ANY_STRATEGY: st.SearchStrategy[Strategy] = st.one_of(
    st.just(AllAtOnce()),
    st.builds(Canary, st.integers(1, 99), st.integers(1, MAX_SHIFT_S)),
    st.builds(Linear, st.integers(1, 99), st.integers(1, MAX_SHIFT_S // 99)),
)


@given(ANY_STRATEGY)
def test_every_strategy_is_parsed_from_its_own_name(strategy: Strategy) -> None:
    assert parse(str(strategy)) == strategy


@given(ANY_STRATEGY)
def test_weights_rise_to_100_and_only_the_last_step_does_not_bake(strategy: Strategy) -> None:
    steps = weights(strategy)
    percents = [percent for percent, _ in steps]
    assert percents == sorted(set(percents))
    assert percents[0] >= 1
    assert steps[-1] == (100, 0)
    assert all(bake_s > 0 for _, bake_s in steps[:-1])
