"""The named transitions between definitions on emulated AWS under load: no request fails, and the new release serves.

Their table is that of the model's tests (tests/unit/transitions.py). Of which the emulator shows no more than that the
updates pass and requests are answered stands in NOT_SEEN, and in docs/aws-emulation.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hitless.documents import to_plain
from hitless.errors import ServiceFileError
from hitless.release.result import Outcome
from hitless.release.smoke import find_route
from hitless.service import event_sources
from tests.aws.emulated import EmulatedAws, emulated_aws
from tests.aws.load import Ask, Load, Right
from tests.aws.transition_support import STACK, Demo
from tests.support import eventually
from tests.unit.definitions import REGION, Definition, Route, lambda_name
from tests.unit.transitions import TRANSITIONS, Transition

pytestmark = pytest.mark.aws

MANUAL = Path(__file__).parents[2] / "docs" / "aws-emulation.md"
CLOCK_FACTOR = 300.0
BAKE_ROUNDS = 3
NOT_SEEN: Mapping[str, tuple[str, ...]] = {
    "ministack's Lambda stores no KMS key and no layer of another account": (
        "a KMS key for the environment",
        "a KMS key is disabled",
        "a layer is added by its ARN",
    ),
    "ministack's CloudFormation ignores reservedConcurrency": (
        "reserved concurrency is lowered",
        "reserved concurrency is raised",
        "reserved concurrency is set",
        "reserved concurrency is removed",
    ),
    "every version runs on this machine's processor and Python": ("another architecture", "another runtime"),
    "functions are on this machine's network": (
        "functions move into a VPC",
        "functions move out of a VPC",
        "other subnets",
        "a security group's rules change",
        "a custom security group is removed",
    ),
    "policies of roles are not enforced; unit tests and the policy simulation check them": (
        "a role gets more permissions",
        "a role gets fewer permissions",
        "a role gets other permissions",
        "a role is denied more",
        "a role is denied less",
        "a managed policy is removed",
        "another managed policy",
        "a boundary is added",
        "another boundary",
        "a boundary is removed",
        "a custom role gets other permissions",
        "a custom role is denied more",
        "an attached policy changes",
        "an attached policy denies less",
        "an attached policy denies something else",
        "a denying policy is attached",
        "a denying policy is removed",
        "an attached policy is removed",
    ),
    "the front does not validate bodies, compress, count quotas, customize gateway responses or enforce API policies": (
        "body validation is added",
        "body validation changes",
        "body validation is removed",
        "responses are compressed",
        "a usage plan gets a quota",
        "a gateway response is added",
        "a gateway response is removed",
        "a gateway response is renamed",
        "the API gets a policy",
    ),
    "the API has one address, whatever its endpoint and domains are": (
        "a regional endpoint",
        "the API's default address is switched off",
        "a domain is added",
        "another domain",
        "the domain is removed",
    ),
    "the test functions use no table, and only requests invoke them": (
        "a table is added",
        "a table is removed",
        "a table's stream is removed",
        "an index is added",
        "an index is removed",
        "another index",
        "a condition and its resources are removed",
        "a schedule is added",
        "a schedule is removed",
        "another schedule",
    ),
}
"""Why the emulator does not show more of these than that the updates pass and no request fails."""

SAMPLE = (
    "every function's code",
    "a route moves to another function",
    "a path parameter is renamed",
    "the first of two keys is removed",
)


@pytest.fixture(scope="module")
def fast_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    """An emulator on which a bake of five minutes takes one second."""
    with emulated_aws(tmp_path_factory.mktemp("emulators"), clock_factor=CLOCK_FACTOR) as running:
        yield running


@pytest.fixture
def demo(fast_aws: EmulatedAws, tmp_path: Path) -> Demo:
    fast_aws.front.reset()
    fast_aws.emulator.reset()
    return Demo.new(fast_aws, tmp_path)


def _named(*names: str) -> list[Transition]:
    return [one for one in TRANSITIONS if one.name in names]


def test_the_manual_lists_the_transitions_that_the_emulator_cannot_show() -> None:
    known = {one.name for one in TRANSITIONS}
    hidden = [name for names in NOT_SEEN.values() for name in names]
    assert len(set(hidden)) == len(hidden)
    assert set(hidden) <= known
    assert len(known - set(hidden)) >= 60
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", MANUAL.read_text(), re.M)
    for reason, names in NOT_SEEN.items():
        assert (reason, "; ".join(names)) in rows


@pytest.mark.parametrize("transition", _named(*SAMPLE), ids=SAMPLE)
def test_a_sample_of_transitions_fails_no_request(demo: Demo, transition: Transition) -> None:
    _transit(demo, transition)


@pytest.mark.long
@pytest.mark.parametrize("transition", TRANSITIONS, ids=[one.name for one in TRANSITIONS])
def test_a_transition_fails_no_request(demo: Demo, transition: Transition) -> None:
    _transit(demo, transition)


def test_responses_of_a_held_route_count_for_the_live_release(demo: Demo) -> None:
    (moves,) = _named("a route moves to another function")
    assert demo.ship(moves.before).outcome is Outcome.LIVE
    assert demo.url is not None
    with Load(demo.url) as load:
        load.change(_only(demo, moves.before))
        load.complete_rounds()
        _ships(demo, moves, load)
    assert not load.failures, load.failures[:5]

    def every_request_is_a_versions() -> Any:
        (rollout,) = demo.cloud().rollouts.of(2)
        receipt = to_plain(rollout.receipt)
        assert receipt["clients"]["requests"] == receipt["cost"]["requests"]
        return receipt

    receipt = eventually(every_request_is_a_versions, deadline_s=30)
    assert receipt["live"]["requests"] > 0 < receipt["candidate"]["requests"]


def _transit(demo: Demo, transition: Transition) -> None:
    before, after = transition.before, transition.after
    assert demo.ship(before).outcome is Outcome.LIVE
    url = demo.url
    if url is None:
        assert demo.ship(after).outcome is Outcome.LIVE
        url = demo.url
        assert url is not None
        with Load(url) as load:
            load.change(_after(demo, before, after))
            load.complete_rounds()
    else:
        with Load(url) as load:
            load.change(_only(demo, before))
            load.complete_rounds()
            if transition.refused:
                _is_refused(demo, transition)
                load.change(_only(demo, before))
            else:
                _ships(demo, transition, load)
                load.change(_after(demo, before, after))
            load.complete_rounds(BAKE_ROUNDS)
    assert not load.failures, load.failures[:5]
    assert sum(load.answered.values()) >= BAKE_ROUNDS


def _ships(demo: Demo, transition: Transition, load: Load) -> None:
    """Ships B while A's routes are requested until the contract step, and routes of both releases all the time."""
    before, after = transition.before, transition.after
    load.change(_meanwhile(demo, before, after, own=True))

    def hear(said: str) -> None:
        if said.startswith("draining"):
            load.complete_rounds(1)
            load.change(_meanwhile(demo, before, after, own=False))

    demo.on_say = hear
    result = demo.ship(after)
    assert result.outcome in (Outcome.LIVE, Outcome.UNCHANGED), (result.reason, load.failures[:3])
    notes = [said for said in demo.said if said.startswith("note: ")]
    assert [note for note in notes if transition.noted in note] or not transition.noted, notes
    _is_what_lambda_has(demo, after)


def _is_refused(demo: Demo, transition: Transition) -> None:
    standing = _template(demo)
    with pytest.raises(ServiceFileError) as caught:
        demo.ship(transition.after)
    assert transition.refused in caught.value.message
    assert caught.value.hint
    assert _template(demo) == standing


def _template(demo: Demo) -> Any:
    body = demo.aws.client("cloudformation", REGION).get_template(StackName=STACK)["TemplateBody"]
    return json.loads(body) if isinstance(body, str) else body


def _is_what_lambda_has(demo: Demo, definition: Definition) -> None:
    """Checks that all traffic of each function goes to a version with the definition's configuration."""
    lambdas = demo.aws.client("lambda", REGION)
    for key, one in definition.functions.items():
        name = lambda_name(key, one)
        alias = lambdas.get_alias(FunctionName=name, Name="live")
        assert not (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights")
        found = lambdas.get_function_configuration(FunctionName=name, Qualifier=alias["FunctionVersion"])
        for said in ("MemorySize", "Timeout", "Runtime", "Architectures"):
            wanted = one.properties.get(said)
            assert wanted is None or found[said] == wanted, said


# what is asked, and which answers are right


def _paths(definition: Definition) -> set[tuple[str, str]]:
    return {
        ("GET" if route.method == "ANY" else route.method, _path(route))
        for one in definition.functions.values()
        for route in one.routes
    }


def _path(route: Route) -> str:
    parts = ["1" if part.startswith("{") else part for part in route.path.strip("/").split("/")]
    return "/".join(parts)


def _keys(*definitions: Definition) -> dict[str, str]:
    return {value: name for one in definitions for name, value in one.keys if value}


def _asks(*definitions: Definition) -> list[Ask]:
    """Every request that one of them answers, with each API key if one of them needs keys."""
    paths = sorted(set().union(*map(_paths, definitions)))
    return [Ask(method, path, key) for method, path in paths for key in _keys(*definitions) or ("",)]


def _answer(demo: Demo, definition: Definition, ask: Ask, keys: Mapping[str, str]) -> tuple[str, str, str] | None:
    """(key, Lambda's name, letter) of the function that answers; None if there is none, or the API key is invalid."""
    found = find_route(demo.package(definition).service.functions, ask.method, f"/{ask.path}")
    if found is None:
        return None
    function, route = found
    one = definition.functions[function.name]
    if any(r.private and _is(r, route) for r in one.routes) and ask.key not in keys:
        return None
    return function.name, lambda_name(function.name, one), one.letter


def _is(mine: Route, theirs: event_sources.Route) -> bool:
    return (mine.method, f"/{mine.path.lstrip('/')}") == (theirs.method, theirs.path)


def _only(demo: Demo, definition: Definition) -> dict[Ask, Right]:
    found = {ask: _answer(demo, definition, ask, _keys(definition)) for ask in _asks(definition)}
    return {ask: frozenset({(200, one[1], one[2])}) for ask, one in found.items() if one is not None}


def _meanwhile(demo: Demo, before: Definition, after: Definition, *, own: bool) -> dict[Ask, Right]:
    """The live release's responses with either release's bytes; with `own` also for routes that it alone has."""
    asks: dict[Ask, Right] = {}
    for ask in _asks(before, after):
        mine = _answer(demo, before, ask, _keys(before))
        theirs = _answer(demo, after, ask, _keys(before, after))
        if mine is None or (theirs is None and not own):
            continue
        right = {(200, mine[1], mine[2])}
        if mine[0] in after.functions:
            right.add((200, mine[1], after.functions[mine[0]].letter))
        if theirs is not None and not own:
            right.add((200, theirs[1], theirs[2]))
        asks[ask] = frozenset(right)
    return asks


def _after(demo: Demo, before: Definition, after: Definition) -> dict[Ask, Right]:
    """The next release's responses. Removed routes are refused; keys of the previous one stay valid for one more."""
    has_api = any(one.routes for one in after.functions.values())
    asks: dict[Ask, Right] = {}
    for ask in _asks(before, after):
        found = _answer(demo, after if has_api else before, ask, _keys(before, after))
        asks[ask] = frozenset({(200, found[1], found[2])} if found else {(403, "", "")})
    return asks
