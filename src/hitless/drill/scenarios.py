"""The kinds of release in a drill: the changes that each makes to the service, and its rollout's expected outcome.

A failing release is a copy of the service with other settings, and with code appended to its handlers' modules. That
code works for any handler: it wraps the function that serverless.yml names and leaves it otherwise unchanged. A kind
that fails only under traffic sets its own alarms, because the service's may be too tolerant, and removes the smoke
requests. To add a kind, add an entry to `SCENARIOS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from hitless.drill.requests import SAFE, DrillRequest
from hitless.drill.workspace import WRAPPER, Setting, Workspace
from hitless.errors import UsageError
from hitless.release.result import Outcome

READY_TIMEOUT_S = 3
SLOWER = 10
LEAST_DELAY_S = 0.03
LEAK_BYTES = 8 << 20
LEAK_LIMIT_BYTES = 96 << 20
ALARMS: Mapping[str, int] = {"error_rate_percent": 1, "minimum_requests": 20}
SLOW_ALARMS: Mapping[str, int] = {**ALARMS, "p99_relative_percent": 300}

# The wrappers import inside the function, because a handler's module may use the same names for other things.
_ON_ROUTE = f"""
def {WRAPPER}(handler):
    import os
    from urllib.parse import unquote

    def broken(event, context):
        if event.get("httpMethod") == %(method)r and unquote(event.get("path") or "") == %(path)r:
            ACT
        return handler(event, context)

    return broken
"""

_RAISE = _ON_ROUTE.replace("ACT", 'raise RuntimeError("broken on purpose by a drill: scenario raises-on-route")')
_LARGE = _ON_ROUTE.replace("ACT", 'return {"statusCode": 200, "body": "x" * (7 << 20)}  # too-large')
_EXIT = _ON_ROUTE.replace("ACT", "os._exit(1)  # broken on purpose by a drill: scenario exits")
_FORK = _ON_ROUTE.replace("ACT", 'broken.left = getattr(broken, "left", 8) - 1; broken.left < 0 or os.fork()  # forks')
_CLOSE = _ON_ROUTE.replace("ACT", "os.closerange(3, 4096)  # broken on purpose by a drill: scenario closes-descriptors")
_CRASH = 'raise RuntimeError("broken on purpose by a drill: scenario import-crash")\n'
_STUCK = _ON_ROUTE.replace("ACT", '__import__("time").sleep(3600)  # broken on purpose by a drill: scenario hangs')
_HANG = "import time\n\ntime.sleep(3600)  # broken on purpose by a drill: scenario never-ready\n"
_THROW = 'throw new Error("broken on purpose by a drill: scenario import-crash");\n'
_WAIT = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); // scenario never-ready\n"

_IMPATIENT: Mapping[str, Setting] = {"ready_timeout_s": READY_TIMEOUT_S}

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


def route_to_break(requests: Sequence[DrillRequest]) -> DrillRequest:
    """The last request with a safe method, because the shield retries those; if there is none, the last request."""
    return next((one for one in reversed(requests) if one.method in SAFE), requests[-1])


CANARY = "Canary10Percent5Seconds"
LINEAR = "Linear25PercentEvery2Seconds"
LONG_CANARY = "Canary10Percent30Seconds"
"""The strategy of failing releases: long enough for a verdict at a low request rate. An alarm ends it earlier."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of release, and how the copy of the service is changed before it is shipped.

    `code` (`script` in JavaScript) is appended to each handler's module, `program` replaces that of a custom runtime.
    `wrapper` defines
    the function that wraps each handler; in it, `%(method)r` and `%(path)r` are those of the route to break. `settings`
    replace the stage's. `strategy`, if set, replaces the strategy of the drill or the stage.
    """

    name: str
    expected: Outcome = Outcome.LIVE
    rolls_back: bool = False
    strategy: str | None = None
    code: str = ""
    script: str = ""
    program: str = ""
    wrapper: str = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def broken(self) -> bool:
        """Whether the release is meant to fail. A stage named prod accepts such a release only with --yes."""
        return self.expected is not Outcome.LIVE

    def alter(self, workspace: Workspace, requests: Sequence[DrillRequest]) -> None:
        """Change the copy of the service."""
        if workspace.program is not None and self.program:
            workspace.replace_program(self.program.encode())
        elif self.code:
            workspace.append(self.code, self.script)
        if self.wrapper:
            request = route_to_break(requests)
            path = unquote(request.path.partition("?")[0])
            workspace.wrap(self.wrapper % {"method": request.method, "path": path})
        for key, value in self.settings.items():
            workspace.set_stage(key, value)


def _failing(name: str, wrapper: str, alarms: Mapping[str, int] = ALARMS) -> Scenario:
    """A release that fails under traffic."""
    settings: Mapping[str, Setting] = {"alarms": alarms, "smoke": ()}
    return Scenario(name, Outcome.ROLLED_BACK, strategy=LONG_CANARY, wrapper=wrapper, settings=settings)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("good"),
        Scenario("canary", strategy=CANARY),
        Scenario("linear", strategy=LINEAR),
        Scenario("rollback", rolls_back=True),
        Scenario("import-crash", Outcome.ROLLED_BACK, code=_CRASH, script=_THROW, program="#!/bin/sh\nexit 1\n"),
        Scenario(
            "never-ready",
            Outcome.ROLLED_BACK,
            code=_HANG,
            script=_WAIT,
            program="#!/bin/sh\nexec sleep 3600\n",
            settings=_IMPATIENT,
        ),
        _failing("raises-on-route", _RAISE),
        _failing("slow", _SLOW, SLOW_ALARMS),
        _failing("leaks", _LEAK),
        _failing("exits", _EXIT),
        _failing("hangs", _STUCK),
        _failing("too-large", _LARGE),
        _failing("closes-descriptors", _CLOSE),
        Scenario("forks", strategy=CANARY, wrapper=_FORK),
    )
}
"""docs/drill.md says what each one does."""


def choose(names: Sequence[str], releases: int) -> tuple[Scenario, ...]:
    """One scenario for each of `releases` releases: the names in order, repeated as needed; `good` without names.

    Raises UsageError for an unknown name.
    """
    for name in names:
        if name not in SCENARIOS:
            raise UsageError(f"--scenarios: {name!r} is unknown", hint=f"known: {', '.join(SCENARIOS)}")
    turns = [SCENARIOS[name] for name in names] or [SCENARIOS["good"]]
    return tuple(turns[index % len(turns)] for index in range(releases))
