"""The wrapper around each handler on Lambda, with a handler and a Lambda client of the test."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from hitless.aws.layer import hitless_wrapper

pytestmark = pytest.mark.unit

WELL = {"statusCode": 200, "body": "live"}
Handler = Callable[[Any, Any], Any]


class Context:
    """Lambda's context; its remaining time does not change."""

    def __init__(self, left_s: float = 10.0) -> None:
        self._left_s = left_s

    def get_remaining_time_in_millis(self) -> int:
        return int(1000 * self._left_s)


class FakeLambda:
    """Responds as the live version does; `asked` are the requests sent to it."""

    def __init__(self, answer: Any = WELL, *, error: str = "") -> None:
        self.answer, self.error = answer, error
        self.asked: list[dict[str, Any]] = []

    def invoke(self, **given: Any) -> dict[str, Any]:
        self.asked.append(given)
        if isinstance(self.answer, Exception):
            raise self.answer
        answer = {"Payload": io.BytesIO(json.dumps(self.answer).encode())}
        return {**answer, "FunctionError": self.error} if self.error else answer


@pytest.fixture
def wrapped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Makes the wrapper as version 8 of `api` loads it, around that handler; without a handler the import fails."""

    def make(handler: Handler | None, live: FakeLambda | None = None, **environ: str) -> ModuleType:
        given = {"HITLESS_HANDLER": "service_under_test.app.handler", "HITLESS_SHIELD": "hitlessShieldApi", **environ}
        lambdas = {"AWS_LAMBDA_FUNCTION_NAME": "api", "AWS_LAMBDA_FUNCTION_VERSION": "8"}
        for name, value in (given | lambdas).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("_HANDLER", "hitless_wrapper.handler")
        for name in ("service_under_test", "service_under_test.app"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        if handler is not None:
            monkeypatch.setattr(sys.modules["service_under_test.app"], "handler", handler, raising=False)
        spec = importlib.util.spec_from_file_location("hitless_wrapper", str(hitless_wrapper.__file__))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if live is not None:
            module.Kept.client = live
        return module

    return make


def event(method: str = "GET", *, variables: dict[str, str] | None = None, **changed: Any) -> dict[str, Any]:
    given = {"httpMethod": method, "resource": "/items/{id}", "requestContext": {}, "headers": {"Accept": "*/*"}}
    return {**given, "stageVariables": variables, **changed}


BAKING = {"hitlessShieldApi": "7:8", "theirs": "1"}


def counted(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The metrics that the log's lines count, each with its version."""
    found = []
    for line in capsys.readouterr().out.splitlines():
        document = json.loads(line)
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        (metric,) = directive["Metrics"]
        assert (directive["Namespace"], document[metric["Name"]]) == ("hitless", 1)
        dimensions = {name: document[name] for name in directive["Dimensions"][0]}
        assert dimensions == {"FunctionName": "api", "ExecutedVersion": "8"}
        found.append(str(metric["Name"]))
    return found


def raises(_: Any, __: Any) -> Any:
    raise RuntimeError("broken on purpose")


def leaves(_: Any, __: Any) -> Any:
    raise SystemExit(3)


def answers(answer: Any) -> Handler:
    return lambda _, __: answer


@pytest.mark.parametrize(
    ("answer", "metrics"),
    [
        ({"statusCode": 200, "body": ""}, []),
        ({"body": "no status is 200"}, []),
        ({"statusCode": 404}, []),
        ({"statusCode": "200"}, []),
        ({"statusCode": 500}, ["Failed"]),
        ({"statusCode": "503"}, ["Failed"]),
        ({"statusCode": "none"}, ["Failed"]),
        ({"statusCode": 200, "body": {}}, ["Failed"]),
        ("no answer at all", ["Failed"]),
        (None, ["Failed"]),
    ],
)
def test_responses_that_api_gateway_turns_into_5xx_are_counted_and_passed_on(
    wrapped: Any, capsys: pytest.CaptureFixture[str], answer: Any, metrics: list[str]
) -> None:
    assert wrapped(answers(answer)).handler(event(), Context()) == answer
    assert counted(capsys) == metrics


def test_an_exception_of_the_handler_is_raised_to_lambda(wrapped: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="on purpose"):
        wrapped(raises).handler(event(), Context())
    assert counted(capsys) == []


@pytest.mark.parametrize("handler", [raises, leaves, answers({"statusCode": 500}), answers("none")])
def test_a_candidates_failed_request_is_answered_by_the_live_version(
    wrapped: Any, capsys: pytest.CaptureFixture[str], handler: Handler
) -> None:
    live = FakeLambda({"statusCode": 200, "body": "live", "headers": {"etag": "1"}})
    answer = wrapped(handler, live).handler(event(variables=dict(BAKING)), Context())
    assert answer == {"statusCode": 200, "body": "live", "headers": {"etag": "1", "x-hitless-shielded": "1"}}
    ((asked),) = live.asked
    assert (asked["FunctionName"], asked["Qualifier"]) == ("api", "7")
    handed = json.loads(asked["Payload"])
    assert handed == event(variables={"theirs": "1", "hitlessQuiet": "1"})
    assert counted(capsys) == ["Shielded"]


def test_the_live_version_gets_the_request_without_the_handlers_changes(wrapped: Any) -> None:
    def spoils(given: dict[str, Any], _: Any) -> Any:
        given.clear()
        raise RuntimeError

    live = FakeLambda()
    wrapped(spoils, live).handler(event(variables=dict(BAKING)), Context())
    assert json.loads(live.asked[0]["Payload"])["resource"] == "/items/{id}"


def test_a_hanging_handler_is_interrupted_in_time_for_the_live_version(
    wrapped: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(_: Any, __: Any) -> Any:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001 - as a handler may
            pytest.fail("an ordinary except keeps it from being cut off")

    live = FakeLambda()
    module = wrapped(hangs, live)
    monkeypatch.setattr(module, "CUT_S", 0.05)
    monkeypatch.setattr(
        module, "time", SimpleNamespace(monotonic=lambda: 0.0, time=time.time)
    )  # however slow it is here
    assert module.handler(event(variables=dict(BAKING)), Context(0.8))["body"] == "live"
    assert counted(capsys) == ["Shielded"]
    live.error = "Unhandled"
    with pytest.raises(TimeoutError, match="no answer within"):
        module.handler(event(variables=dict(BAKING)), Context(0.8))


@pytest.mark.parametrize(
    ("given", "shielded"),
    [
        (event("HEAD"), True),
        (event("OPTIONS"), True),
        (event("POST"), False),
        (event("POST", headers={"idempotency-KEY": "a"}), True),
        (event("PUT", headers=None), True),
        (event("PUT", resource="/other"), False),
        (event("DELETE", resource="/any"), True),
    ],
)
def test_only_idempotent_requests_are_shielded(
    wrapped: Any, capsys: pytest.CaptureFixture[str], given: dict[str, Any], shielded: bool
) -> None:
    live = FakeLambda()
    module = wrapped(answers({"statusCode": 500}), live, HITLESS_IDEMPOTENT="PUT /items/{id},ANY /any")
    answer = module.handler({**given, "stageVariables": dict(BAKING)}, Context())
    assert bool(live.asked) is shielded
    assert answer["statusCode"] == (200 if shielded else 500)
    assert counted(capsys) == ["Shielded" if shielded else "Failed"]


@pytest.mark.parametrize(
    "variables",
    [None, {"theirs": "1"}, {"hitlessShieldApi": "7:9"}, {"hitlessShieldApi": "8:9"}, {"hitlessShieldOther": "7:8"}],
    ids=["no shift", "no shield", "another candidate", "this one is live", "another function"],
)
def test_the_live_version_is_invoked_only_while_this_version_is_the_candidate(wrapped: Any, variables: Any) -> None:
    live = FakeLambda()
    answer = wrapped(answers({"statusCode": 500}), live).handler(event(variables=variables), Context())
    assert (answer, live.asked) == ({"statusCode": 500}, [])


@pytest.mark.parametrize("live", [FakeLambda({"statusCode": 502}), FakeLambda(WELL, error="Unhandled")])
def test_if_the_live_version_fails_too_the_client_gets_the_candidates_failure(
    wrapped: Any, capsys: pytest.CaptureFixture[str], live: FakeLambda
) -> None:
    answer = wrapped(answers({"statusCode": 500}), live).handler(event(variables=dict(BAKING)), Context())
    assert (answer, counted(capsys)) == ({"statusCode": 500}, ["Failed"])


def test_if_lambda_cannot_be_reached_it_is_not_tried_for_each_request(
    wrapped: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    live = FakeLambda(ConnectionError("no way to Lambda"))
    module = wrapped(answers({"statusCode": 500}), live)
    for _ in range(3):
        assert module.handler(event(variables=dict(BAKING)), Context()) == {"statusCode": 500}
    assert len(live.asked) == 1
    assert counted(capsys) == ["Failed"] * 3


def test_a_request_without_time_left_is_not_shielded(wrapped: Any) -> None:
    live = FakeLambda()
    module = wrapped(answers({"statusCode": 500}), live)
    assert module.handler(event(variables=dict(BAKING)), Context(0.6)) == {"statusCode": 500}
    assert live.asked == []


def test_requests_sent_by_hitless_are_neither_counted_nor_shielded(
    wrapped: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    live = FakeLambda()
    asked = event(variables={**BAKING, "hitlessQuiet": "1"})
    assert wrapped(answers({"statusCode": 500}), live).handler(asked, Context()) == {"statusCode": 500}
    assert (counted(capsys), live.asked) == ([], [])


def test_the_handler_does_not_get_the_shields_stage_variables(wrapped: Any) -> None:
    seen: list[Any] = []

    def looks(given: Any, _: Any) -> Any:
        seen.append(given["stageVariables"])
        return WELL

    module = wrapped(looks)
    for variables in (dict(BAKING), {"hitlessShieldApi": "7:8"}, None):
        module.handler(event(variables=variables), Context())
    assert seen == [{"theirs": "1"}, None, None]


@pytest.mark.parametrize("other", ["text", {"Records": []}, {"httpMethod": "GET"}])
def test_events_other_than_http_requests_pass_through(
    wrapped: Any, capsys: pytest.CaptureFixture[str], other: Any
) -> None:
    assert wrapped(lambda given, _: given).handler(other, Context()) == other
    assert counted(capsys) == []


def test_a_failed_import_of_the_handler_is_retried(
    wrapped: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = FakeLambda()
    module = wrapped(None, live)
    with pytest.raises(AttributeError):
        module.handler({"hitlessWarm": 0}, Context())
    assert module.handler(event(variables=dict(BAKING)), Context())["body"] == "live"
    monkeypatch.setattr(sys.modules["service_under_test.app"], "handler", answers({"body": "well"}), raising=False)
    assert module.handler(event(variables=dict(BAKING)), Context()) == {"body": "well"}
    assert module.handler({"hitlessWarm": 0}, Context()) is None
    assert len(live.asked) == 1


def test_the_wrapper_imports_only_the_standard_library() -> None:
    text = Path(str(hitless_wrapper.__file__)).read_text()
    imported = [
        line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))
    ]
    assert set(imported) <= set(sys.stdlib_module_names)
