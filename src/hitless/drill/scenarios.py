"""The kinds of release in a drill: what each changes in the service, and how its rollout must end.

A failing release is a copy of the service with other settings, and with code appended to its handlers' modules. That
code works for any handler: it wraps the function that serverless.yml names and leaves it otherwise unchanged. A kind
that fails only under traffic sets its own alarms, because the service's may be lax, and removes the smoke requests.
To add a kind, add an entry to `SCENARIOS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from hitless.drill.requests import SAFE, DrillRequest
from hitless.drill.workspace import WRAPPER, Workspace
from hitless.errors import UsageError
from hitless.release.result import Outcome

READY_TIMEOUT_S = 3
SLOWER = 10
LEAST_DELAY_S = 0.03
LEAK_BYTES = 8 << 20
LEAK_LIMIT_BYTES = 96 << 20
ALARMS: Mapping[str, int] = {"error_rate_percent": 1, "minimum_requests": 20}
SLOW_ALARMS: Mapping[str, int] = {**ALARMS, "p99_relative_percent": 300}

Alteration = Callable[[Workspace, Sequence[DrillRequest]], None]

# The wrappers import inside the function, because a handler's module may use the same names for other things.
_ON_ROUTE = f"""
def {WRAPPER}(handler):
    import os
    from urllib.parse import unquote

    def broken(event, context):
        if event.get("httpMethod") == %(method)r and unquote(event.get("path") or "") == %(path)r:
            %(act)s
        return handler(event, context)

    return broken
"""

_SLOW = f"""
def {WRAPPER}(handler):
    import time

    def slow(event, context):
        began = time.perf_counter()
        answer = handler(event, context)
        time.sleep(max({LEAST_DELAY_S}, {SLOWER - 1} * (time.perf_counter() - began)))
        return answer

    return slow
"""

_LEAK = f"""
def {WRAPPER}(handler):
    import os
    import signal

    kept = []

    def leaking(event, context):
        kept.append(b"x" * {LEAK_BYTES})
        if len(kept) * {LEAK_BYTES} > {LEAK_LIMIT_BYTES}:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does with a process beyond its memory limit
        return handler(event, context)

    return leaking
"""


def import_crash(workspace: Workspace, _: Sequence[DrillRequest]) -> None:
    """Every handler's module raises when it is imported."""
    workspace.append('raise RuntimeError("broken on purpose by a drill: scenario import-crash")\n')


def never_ready(workspace: Workspace, _: Sequence[DrillRequest]) -> None:
    """Every handler's module hangs when it is imported."""
    workspace.append("import time\n\ntime.sleep(3600)  # broken on purpose by a drill: scenario never-ready\n")
    workspace.set_stage("ready_timeout_s", READY_TIMEOUT_S)


def raises_on_route(workspace: Workspace, requests: Sequence[DrillRequest]) -> None:
    """One route's handler raises."""
    act = 'raise RuntimeError("broken on purpose by a drill: scenario raises-on-route")'
    _break_route(workspace, requests, act)


def exits(workspace: Workspace, requests: Sequence[DrillRequest]) -> None:
    """One route's handler ends its process mid-request."""
    _break_route(workspace, requests, "os._exit(1)  # broken on purpose by a drill: scenario exits")


def slow(workspace: Workspace, _: Sequence[DrillRequest]) -> None:
    """Every handler takes ten times as long, and at least 30 ms longer."""
    workspace.wrap(_SLOW)
    _for_the_bake(workspace, SLOW_ALARMS)


def leaks(workspace: Workspace, _: Sequence[DrillRequest]) -> None:
    """Every request leaks 8 MiB; above 96 MiB the process is killed mid-request."""
    workspace.wrap(_LEAK)
    _for_the_bake(workspace, ALARMS)


def route_to_break(requests: Sequence[DrillRequest]) -> DrillRequest:
    """The last request with a safe method, because the shield retries those; if there is none, the last request."""
    return next((one for one in reversed(requests) if one.method in SAFE), requests[-1])


def _break_route(workspace: Workspace, requests: Sequence[DrillRequest], act: str) -> None:
    request = route_to_break(requests)
    path = unquote(request.path.partition("?")[0])
    workspace.wrap(_ON_ROUTE % {"method": request.method, "path": path, "act": act})
    _for_the_bake(workspace, ALARMS)


def _for_the_bake(workspace: Workspace, alarms: Mapping[str, int]) -> None:
    workspace.set_stage("alarms", dict(alarms))
    workspace.set_stage("smoke", [])


CANARY = "Canary10Percent5Seconds"
LINEAR = "Linear25PercentEvery2Seconds"
LONG_CANARY = "Canary10Percent30Seconds"
"""For failing releases: long enough for a verdict at a low request rate. An alarm ends it earlier."""


class Verb(StrEnum):
    """How a release is shipped."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of release. `alter` changes the copy of the service before it is shipped. `strategy`, if set, replaces
    the strategy of the drill or the stage.
    """

    name: str
    summary: str
    expected: Outcome = Outcome.LIVE
    verb: Verb = Verb.DEPLOY
    alter: Alteration | None = None
    strategy: str | None = None

    @property
    def broken(self) -> bool:
        """Whether the release is meant to fail. A stage named prod accepts such a release only with --yes."""
        return self.expected is not Outcome.LIVE


def _broken(name: str, summary: str, alter: Alteration, strategy: str | None = None) -> Scenario:
    return Scenario(name, summary, Outcome.ROLLED_BACK, alter=alter, strategy=strategy)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("good", "a healthy release"),
        Scenario("canary", "a healthy release, a tenth of the traffic first", strategy=CANARY),
        Scenario("linear", "a healthy release, a quarter of the traffic at a time", strategy=LINEAR),
        Scenario("rollback", "a rollback to the previous release", verb=Verb.ROLLBACK),
        _broken("import-crash", "its handlers' modules raise at import", import_crash),
        _broken("never-ready", "its import hangs", never_ready),
        _broken("raises-on-route", "one of its routes raises", raises_on_route, LONG_CANARY),
        _broken("slow", "it takes ten times as long", slow, LONG_CANARY),
        _broken("leaks", "each request leaks memory, until the process is killed", leaks, LONG_CANARY),
        _broken("exits", "one of its routes ends the process mid-request", exits, LONG_CANARY),
    )
}


def choose(names: Sequence[str], releases: int) -> tuple[Scenario, ...]:
    """One scenario for each of `releases` releases: the names in order, repeated as needed; `good` without names.

    Raises UsageError for an unknown name.
    """
    for name in names:
        if name not in SCENARIOS:
            raise UsageError(f"--scenarios: {name!r} is unknown", hint=f"known: {', '.join(SCENARIOS)}")
    turns = [SCENARIOS[name] for name in names] or [SCENARIOS["good"]]
    return tuple(turns[index % len(turns)] for index in range(releases))
