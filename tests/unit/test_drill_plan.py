"""Bounds, scenarios, instants and the target's URL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hitless.drill import faults
from hitless.drill.plan import DrillPlan
from hitless.drill.requests import DrillRequest, from_routes, from_smoke
from hitless.drill.run import machine_notices
from hitless.drill.scenarios import SCENARIOS, choose
from hitless.drill.target import parse_target
from hitless.errors import UsageError
from hitless.release.result import Outcome
from hitless.service.event_sources import Route
from hitless.service.model import SmokeRequest

pytestmark = pytest.mark.unit
PLAN = DrillPlan("dev", 100, 10, (DrillRequest("GET", "/"),))


def test_scenarios_take_turns() -> None:
    names = [scenario.name for scenario in choose(["good", "rollback", "import-crash"], 5)]
    assert names == ["good", "rollback", "import-crash", "good", "rollback"]
    assert [scenario.name for scenario in choose([], 2)] == ["good", "good"]


def test_each_scenario_has_an_expected_outcome() -> None:
    assert {name: scenario.expected for name, scenario in SCENARIOS.items()} == {
        "good": Outcome.LIVE,
        "canary": Outcome.LIVE,
        "linear": Outcome.LIVE,
        "import-crash": Outcome.ROLLED_BACK,
        "never-ready": Outcome.ROLLED_BACK,
        "rollback": Outcome.LIVE,
        "raises-on-route": Outcome.ROLLED_BACK,
        "slow": Outcome.ROLLED_BACK,
        "leaks": Outcome.ROLLED_BACK,
        "exits": Outcome.ROLLED_BACK,
        "hangs": Outcome.ROLLED_BACK,
        "too-large": Outcome.ROLLED_BACK,
        "closes-descriptors": Outcome.ROLLED_BACK,
        "forks": Outcome.LIVE,
    }


def test_an_unknown_scenario_or_fault_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'bad'") as error:
        choose(["bad"], 1)
    assert "import-crash" in error.value.hint
    with pytest.raises(UsageError, match="'bad'") as error:
        faults.choose(["bad"])
    assert "kill-worker" in error.value.hint


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"rate_per_s": 0}, "--rate"),
        ({"rate_per_s": 100_001}, "--rate"),
        ({"rate_per_s": float("nan")}, "--rate"),
        ({"duration_s": -1}, "--duration"),
        ({"duration_s": 86_401}, "--duration"),
        ({"duration_s": float("inf")}, "--duration"),
        ({"new_connections_percent": 101}, "--new-connections"),
        ({"connections": 0}, "--connections"),
        ({"scenarios": choose([], 10_001)}, "--releases"),
        ({"requests": ()}, "nothing to send"),
    ],
)
def test_a_value_out_of_range_is_an_error_with_the_option(change: dict[str, object], option: str) -> None:
    plan = replace(PLAN, **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=option):
        plan.check(yes=True)


def test_a_drill_with_a_broken_release_on_prod_needs_the_yes_option() -> None:
    plan = replace(PLAN, stage="prod", scenarios=choose(["good", "import-crash"], 2))
    with pytest.raises(UsageError, match="import-crash") as error:
        plan.check(yes=False)
    assert "--yes" in error.value.hint
    plan.check(yes=True)
    replace(plan, scenarios=choose(["good", "rollback"], 2)).check(yes=False)
    replace(plan, stage="dev").check(yes=False)


def test_a_drills_releases_are_spread_evenly_over_its_duration() -> None:
    plan = replace(PLAN, duration_s=60, scenarios=choose([], 27))
    instants = plan.release_instants_s()
    assert len(instants) == 28
    assert instants[0] == 2.0
    assert instants[1] - instants[0] == pytest.approx(2.0)
    assert instants[-1] < 58


@pytest.mark.parametrize(("load", "cpus", "said"), [(3.9, 2, False), (4.0, 2, True), (15.0, 8, False), (2.5, 1, True)])
def test_an_overloaded_machine_causes_a_notice(load: float, cpus: int, said: bool) -> None:
    notices = machine_notices(load, cpus)
    assert bool(notices) is said
    assert not said or f"load {load:.1f} on {cpus} processor" in notices[0]


def test_routes_become_requests_with_parameters_filled_in() -> None:
    routes = [
        Route("GET", "/zones/{area}/{city}"),
        Route("ANY", "/{proxy+}"),
        Route("POST", "/items"),
        Route("DELETE", "/items/{id}"),
        Route("GET", "/{other+}"),
    ]
    requests = from_routes(routes)
    assert [(one.name, one.body) for one in requests] == [
        ("GET /zones/1/1", b""),
        ("GET /1", b""),
        ("POST /items", b"{}"),
        ("DELETE /items/1", b""),
    ]


def test_smoke_requests_become_load() -> None:
    (request,) = from_smoke([SmokeRequest("POST", "/meet", (("Content-Type", "application/json"),), '{"a": 1}', 201)])
    assert (request.name, request.body, request.status) == ("POST /meet", b'{"a": 1}', 201)
    assert request.headers == (("Content-Type", "application/json"),)


def test_a_request_has_only_the_headers_that_it_needs() -> None:
    wire = DrillRequest("POST", "/x", (("Host", "other"), ("X-A", "1")), b"{}").to_wire("here:8080")
    assert wire.head == (
        b"POST /x HTTP/1.1\r\nUser-Agent: hitless-drill\r\nAccept: */*\r\n"
        b"Host: other\r\nX-A: 1\r\nContent-Length: 2\r\n"
    )
    assert DrillRequest("GET", "/").to_wire("here:8080").head.startswith(b"GET / HTTP/1.1\r\nHost: here:8080\r\n")
    assert b"Content-Length: 0" in DrillRequest("POST", "/").to_wire("h").head


@pytest.mark.parametrize(
    ("url", "host", "port", "base", "header"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, "", "127.0.0.1:8080"),
        ("http://localhost/", "localhost", 80, "", "localhost"),
        ("https://x.example/dev/", "x.example", 443, "/dev", "x.example"),
        ("http://[::1]:8080/a/b", "::1", 8080, "/a/b", "[::1]:8080"),
    ],
)
def test_a_target_url_is_parsed(url: str, host: str, port: int, base: str, header: str) -> None:
    target = parse_target(url)
    assert (target.host, target.port, target.base_path, target.host_header) == (host, port, base, header)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x:99999", "http://u:p@x/", "http://x/?a=1", "http://x/#a"]
)
def test_a_target_must_be_a_plain_url(url: str) -> None:
    with pytest.raises(UsageError, match="--target"):
        parse_target(url)


def test_faults_with_a_seed_strike_soon_after_a_release_began_and_at_the_same_times_again() -> None:
    chosen = faults.choose(["all"], 1)
    seeded = replace(PLAN, duration_s=60, scenarios=choose([], 4), faults=chosen, fault_seed=1)
    instants = seeded.fault_instants_s()
    assert instants == seeded.fault_instants_s() != replace(seeded, fault_seed=2).fault_instants_s()
    assert len(instants) == len(chosen)
    assert {begun for begun, _ in instants} == {1, 2, 3, 4}
    assert all(0 <= after_s <= 3 for _, after_s in instants)
    assert all(begun == 0 for begun, _ in replace(seeded, scenarios=()).fault_instants_s())
