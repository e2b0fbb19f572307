"""What runs before a service's handler on Lambda: counts the failures that Lambda does not, and shields a canary.

It is the one file of a Lambda layer; a function's own zip stays as it was built. Lambda calls `handler` here, the
service's own stands in $HITLESS_HANDLER. Two things are done, both for requests from API Gateway alone:

* An answer of 5xx, or one that API Gateway would not take, is a line in the function's log in CloudWatch's embedded
  metric format: metric `Failed` by (FunctionName, ExecutedVersion). What the handler raises stays an error of Lambda's.
* While a shift is under way the stage variable named by $HITLESS_SHIELD holds `LIVE:CANDIDATE`, two versions' numbers.
  A request that may run twice and that the candidate fails is then handed to the live one, whose answer goes out with
  `x-hitless-shielded: 1`; the failure is counted as `Shielded`. At any other time nothing here reaches for the network.

It must not fail where the handler would not, must import nothing that the handler might have in another version before
the handler has (botocore comes at the first failure), and nothing of hitless: it runs alone, on Python 3.9 and later.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Optional

NAMESPACE, FAILED, SHIELDED = "hitless", "Failed", "Shielded"

OURS = "hitless"
"""Stage variables that begin so are ours; the handler does not see them."""

QUIET = "hitlessQuiet"
"""The stage variable of requests of our own, a smoke request or one that was handed over: neither counted nor shielded.
"""

WARM = "hitlessWarm"
"""An event with this key only wants the handler imported. Its value is how many seconds to stay busy, so that of
invocations at the same time each reaches an execution environment of its own.
"""

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
GATEWAY_LIMIT_S = 29.0
CONNECT_S = 0.5
SPARED_S = 0.2
"""What is left of the function's time for the answer itself."""

CUT_S = 1.0
"""A shielded handler that hangs is cut off so long before its function's time is over, for the live version's sake."""

PAUSE_S = 5.0
"""After a hand-over that could not be made at all (no way, no permission): no other one for so long."""

NAME = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
VERSION = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "")
VARIABLE = os.environ.get("HITLESS_SHIELD", "")
IDEMPOTENT = frozenset(filter(None, os.environ.get("HITLESS_IDEMPOTENT", "").split(",")))

Handler = Callable[[Any, Any], Any]


class OutOfTime(BaseException):
    """The handler hangs."""


class Kept:
    """What an execution environment keeps from request to request."""

    handler: Optional[Handler] = None  # noqa: UP045 - evaluated, and 3.9 has no `|` of types
    client: Any = None
    paused_until_s = 0.0


def load() -> Handler:
    """The service's handler. One that cannot be imported is tried anew by each request, as Lambda would."""
    if Kept.handler is None:
        named = os.environ["HITLESS_HANDLER"]
        module, _, function = named.rpartition(".")
        os.environ["_HANDLER"] = named
        Kept.handler = getattr(importlib.import_module(module.replace("/", ".")), function)
    return Kept.handler


def handler(event: Any, context: Any) -> Any:
    """Lambda's entry."""
    if isinstance(event, dict) and WARM in event:
        load()
        time.sleep(min(float(event[WARM]), 1.0))
        return None
    if not isinstance(event, dict) or "httpMethod" not in event or "requestContext" not in event:
        return load()(event, context)
    variables = event.get("stageVariables") or {}
    if variables:
        event["stageVariables"] = {name: v for name, v in variables.items() if not name.startswith(OURS)} or None
    if QUIET in variables:
        return load()(event, context)
    live, _, candidate = str(variables.get(VARIABLE, "")).partition(":")
    if live and candidate == VERSION and may_run_twice(event):
        return shielded(event, context, live)
    answer = load()(event, context)
    if not is_well(answer):
        count(FAILED)
    return answer


def shielded(event: dict[str, Any], context: Any, live: str) -> Any:
    """The handler's answer, or where it fails the live version's."""
    ends_s = time.monotonic() + min(context.get_remaining_time_in_millis() / 1000, GATEWAY_LIMIT_S) - SPARED_S
    asked = json.dumps(event)  # before the handler may change it
    try:
        with cut_off_before(ends_s):
            answer = load()(event, context)
    except (Exception, SystemExit, OutOfTime) as error:
        better = hand_over(live, asked, ends_s)
        if better is None and isinstance(error, OutOfTime):
            raise TimeoutError(str(error)) from None
        if better is None:
            raise
        traceback.print_exc()
        return better
    if is_well(answer):
        return answer
    better = hand_over(live, asked, ends_s)
    if better is None:
        count(FAILED)
        return answer
    return better


@contextlib.contextmanager
def cut_off_before(ends_s: float) -> Iterator[None]:
    """Raises OutOfTime in the handler CUT_S before the end; a function with little time is left alone."""
    left_s = ends_s - CUT_S - time.monotonic()
    if left_s < CUT_S or threading.current_thread() is not threading.main_thread():
        yield
        return

    def cut(*_: object) -> None:
        raise OutOfTime(f"no answer within {left_s:.1f} s, and time is needed to ask the live version")

    before, timer = signal.signal(signal.SIGALRM, cut), signal.setitimer(signal.ITIMER_REAL, left_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def may_run_twice(event: dict[str, Any]) -> bool:
    """By its method, its Idempotency-Key, or the service's word for its route."""
    method, path = event["httpMethod"], event.get("resource")
    if method in SAFE_METHODS or f"{method} {path}" in IDEMPOTENT or f"ANY {path}" in IDEMPOTENT:
        return True
    return any(str(name).lower() == "idempotency-key" for name in event.get("headers") or {})


def is_well(answer: Any) -> bool:
    """Whether API Gateway would pass the answer on, and it is none of 5xx."""
    if not isinstance(answer, dict):
        return False
    status, body = answer.get("statusCode", 200), answer.get("body")
    if isinstance(status, str) and status.isdecimal():
        status = int(status)
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status < 500:
        return False
    return body is None or isinstance(body, str)


def hand_over(live: str, asked: str, ends_s: float) -> Optional[dict[str, Any]]:  # noqa: UP045
    """The live version's answer, marked and counted; None where there is none, or that version fails as well."""
    now_s = time.monotonic()
    if now_s > ends_s - CONNECT_S or now_s < Kept.paused_until_s:
        return None
    event = json.loads(asked)
    event["stageVariables"] = {**(event.get("stageVariables") or {}), QUIET: "1"}
    try:
        given = client().invoke(FunctionName=NAME, Qualifier=live, Payload=json.dumps(event).encode())
        answer = json.loads(given["Payload"].read())
    except Exception as error:  # noqa: BLE001 - whatever it is, the request's own failure is what counts
        Kept.paused_until_s = time.monotonic() + PAUSE_S
        sys.stderr.write(f"hitless: version {live} cannot be asked in place of {VERSION}: {error}\n")
        return None
    if given.get("FunctionError") or not is_well(answer):
        return None
    count(SHIELDED)
    marked: dict[str, Any] = {**answer, "headers": {**(answer.get("headers") or {}), "x-hitless-shielded": "1"}}
    return marked


def client() -> Any:
    """Lambda's, made at the first failure."""
    if Kept.client is None:
        import botocore.config  # noqa: PLC0415 - takes a third of a second, and only a failing canary needs it
        import botocore.session  # noqa: PLC0415

        settings = botocore.config.Config(
            connect_timeout=CONNECT_S,
            read_timeout=GATEWAY_LIMIT_S,
            retries={"max_attempts": 0},
            user_agent_extra="hitless-shield",
        )
        Kept.client = botocore.session.get_session().create_client("lambda", config=settings)
    return Kept.client


def count(metric: str) -> None:
    """One line that CloudWatch makes a metric of (CloudWatch User Guide, "Embedded metric format specification")."""
    metrics = {
        "Namespace": NAMESPACE,
        "Dimensions": [["FunctionName", "ExecutedVersion"]],
        "Metrics": [{"Name": metric, "Unit": "Count"}],
    }
    line = {
        "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [metrics]},
        "FunctionName": NAME,
        "ExecutedVersion": VERSION,
        metric: 1,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if "HITLESS_HANDLER" in os.environ:
    try:
        load()
    except Exception:  # noqa: BLE001 - said now, and raised by each request until it can be imported
        traceback.print_exc()
