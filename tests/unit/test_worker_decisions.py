"""Pure functions of workers: back-off, buckets, crash lines, environment, folder names."""

from __future__ import annotations

import signal
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.worker.crash import (
    DEATHS_IN_WINDOW,
    EXIT_ON_SIGTERM,
    EXIT_OUT_OF_DESCRIPTORS,
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    TOO_SLOW,
    Death,
    DeathHistory,
    backoff_after_death,
    log_lines,
    own_fault,
)
from hitless.worker.environment import lambda_environment
from hitless.worker.handler import HandlerFailure, MarshalError, failure_of, marshalled, runtime_error
from hitless.worker.layout import BUCKETS, bucket_bounds, bucket_of
from hitless.worker.paths import folder_name
from hitless.workers.stats import EMPTY, Histogram
from tests.unit.test_worker_event import spec

pytestmark = pytest.mark.unit


def test_a_worker_killed_from_outside_is_replaced_at_once() -> None:
    assert backoff_after_death(DeathHistory(), now_s=10, lived_s=1, by_itself=False, alone=False)[1] == 0


def test_a_worker_that_dies_by_its_own_fault_backs_off_up_to_a_limit() -> None:
    history, delays = DeathHistory(), []
    for step in range(12):
        history, delay = backoff_after_death(history, now_s=100.0 * step, lived_s=1, by_itself=True, alone=False)
        delays.append(delay)
    assert delays[:4] == [0, FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert delays[-1] == LONGEST_DELAY_S


def test_a_long_life_clears_a_workers_history_of_deaths() -> None:
    history = DeathHistory(failures=6)
    assert backoff_after_death(history, now_s=0, lived_s=1, by_itself=True, alone=False)[1] > FIRST_DELAY_S
    assert backoff_after_death(history, now_s=0, lived_s=60, by_itself=True, alone=False)[1] == 0


def test_the_last_serving_worker_backs_off_only_briefly() -> None:
    history = DeathHistory(failures=6)
    assert backoff_after_death(history, now_s=0, lived_s=1, by_itself=True, alone=True)[1] == FIRST_DELAY_S


def test_many_deaths_of_any_cause_in_a_short_time_back_off() -> None:
    history, delays = DeathHistory(), []
    for step in range(DEATHS_IN_WINDOW):
        history, delay = backoff_after_death(history, now_s=0.01 * step, lived_s=0.01, by_itself=False, alone=False)
        delays.append(delay)
    assert not any(delays[:-1])
    assert delays[-1] > 0


@given(st.integers(0, 2**40))
def test_a_latency_lies_within_the_bounds_of_its_bucket(microseconds: int) -> None:
    index = bucket_of(microseconds)
    low, high = bucket_bounds(index)
    if index < BUCKETS - 1:
        assert low <= microseconds <= high
        assert high - low <= microseconds / 16
    assert 0 <= index < BUCKETS


def test_latency_buckets_have_no_gaps() -> None:
    for index in range(BUCKETS - 1):
        assert bucket_bounds(index)[1] + 1 == bucket_bounds(index + 1)[0]


def test_percentiles_are_computed_from_latency_buckets() -> None:
    buckets = [0] * BUCKETS
    buckets[bucket_of(10)] = 99
    buckets[bucket_of(5000)] = 1
    histogram = Histogram(tuple(buckets), 99 * 10 + 5000)
    assert histogram.percentile_us(50) == 10
    assert histogram.percentile_us(99) == 10
    assert histogram.percentile_us(99.9) == pytest.approx(5000, rel=0.04)
    assert histogram.mean_us == pytest.approx(59.9)
    assert EMPTY.percentile_us(50) is None
    assert (histogram + histogram - histogram) == histogram


def killed(number: int) -> int:
    return number


def exited(code: int) -> int:
    return code << 8


def test_only_sigkill_and_sigterm_count_as_kills_from_outside() -> None:
    assert not own_fault(killed(signal.SIGKILL), timed_out=False)
    assert not own_fault(exited(EXIT_ON_SIGTERM), timed_out=False)
    assert not own_fault(exited(EXIT_OUT_OF_DESCRIPTORS), timed_out=False)
    assert not own_fault(killed(signal.SIGKILL), timed_out=True)
    assert own_fault(killed(signal.SIGSEGV), timed_out=False)
    assert own_fault(killed(signal.SIGKILL), timed_out=False, fault=TOO_SLOW)
    assert own_fault(exited(0), timed_out=False)
    assert own_fault(exited(1), timed_out=False)


def failure_with(error: BaseException) -> HandlerFailure:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - as in a worker
        return failure_of(caught)


def test_an_exception_is_logged_as_lambdas_runtime_does() -> None:
    """No colon without a message, the heading in any case, no-break spaces: awslambdaric's bootstrap.py."""
    assert failure_with(ValueError()).log_text("7") == "[ERROR] ValueError\nTraceback (most recent call last):"
    indented = HandlerFailure("ValueError", "bad", ('  File "app.py", line 1\n    raise\n',)).log_text("7").splitlines()
    assert indented[0] == "[ERROR] ValueError: bad"
    assert indented[2:] == ['\u00a0\u00a0File "app.py", line 1', "\u00a0\u00a0\u00a0\u00a0raise"]


@pytest.mark.parametrize(
    ("error", "message", "printed"),
    [
        (SystemExit(), "Runtime exited without providing a reason", ()),
        (SystemExit(3), "Runtime exited with error: exit status 3", ()),
        (SystemExit("no data"), "Runtime exited with error: exit status 1", ("no data",)),
        (KeyboardInterrupt(), "Runtime exited with error: exit status 1", ("KeyboardInterrupt\n",)),
    ],
)
def test_an_exit_of_the_handler_is_logged_as_an_exit_of_the_runtime(
    error: BaseException, message: str, printed: tuple[str, ...]
) -> None:
    failure = failure_with(error)
    assert (failure.error_type, failure.message) == ("Runtime.ExitError", message)
    assert failure.log_text("7").splitlines()[-2:] == [f"RequestId: 7 Error: {message}", "Runtime.ExitError"]
    assert failure.trace[-1:] == printed
    assert failure.to_json("7") == {"errorMessage": f"RequestId: 7 Error: {message}", "errorType": "Runtime.ExitError"}


def test_a_result_is_marshalled_as_lambdas_runtime_does() -> None:
    assert marshalled({"pi": Decimal("3.14"), "n": [Decimal(5)]}) == '{"pi": 3.14, "n": [5]}'
    for wrong in (object(), {1, 2}, float("nan"), Decimal("NaN")):
        with pytest.raises(MarshalError, match="Unable to marshal response: "):
            marshalled(wrong)


def test_a_crash_is_logged_in_lambdas_words() -> None:
    assert runtime_error(killed(signal.SIGKILL)) == "Runtime exited with error: signal: killed"
    assert runtime_error(killed(signal.SIGSEGV)) == "Runtime exited with error: signal: segmentation fault"
    assert runtime_error(exited(3)) == "Runtime exited with error: exit status 3"
    assert runtime_error(exited(0)) == "Runtime exited without providing a reason"
    lines = log_lines(spec(), Death(killed(signal.SIGKILL), "7", 12.0, timed_out=False, start_logged=False))
    assert lines[:4] == [
        "START RequestId: 7 Version: 3",
        "RequestId: 7 Error: Runtime exited with error: signal: killed",
        "Runtime.ExitError",
        "END RequestId: 7",
    ]
    assert lines[4].startswith("REPORT RequestId: 7\tDuration: 12.00 ms\tBilled Duration: 12 ms\tMemory Size: 128 MB\t")
    assert lines[4].endswith("Status: error\tError Type: Runtime.ExitError")


def test_too_much_memory_is_logged_in_lambdas_words() -> None:
    """`Memory Size: 10239 MB  Max Memory Used: 10239 MB  Status: error  Error Type: Runtime.OutOfMemory`, after `Error:
    Runtime exited with error: signal: killed` and `Runtime.ExitError`
    (github.com/aws-solutions-library-samples/cloud-intelligence-dashboards-data-collection/issues/201).
    """
    lines = log_lines(spec(), Death(killed(signal.SIGKILL), "7", 12.0, False, start_logged=True, too_large=True))
    assert lines[:2] == ["RequestId: 7 Error: Runtime exited with error: signal: killed", "Runtime.ExitError"]
    assert lines[-1].endswith("\tMax Memory Used: 128 MB\tStatus: error\tError Type: Runtime.OutOfMemory")


def test_a_timeout_is_logged_in_lambdas_words() -> None:
    lines = log_lines(spec(), Death(killed(signal.SIGKILL), "7", 6000.4, timed_out=True, start_logged=True))
    assert lines[0].endswith("Z 7 Task timed out after 6.00 seconds")
    assert lines[-1].endswith("Status: timeout")
    assert not lines[0].startswith("START")


def test_the_environment_has_only_lambdas_variables_and_the_service_files() -> None:
    inherited = {"PATH": "/bin", "HOME": "/home/x", "SECRET": "s", "VIRTUAL_ENV": "/v", "PYTHONPATH": "/p"}
    found = lambda_environment(spec(environment={"TABLE": "t", "TZ": "Europe/Berlin"}, commit="abc"), inherited)
    assert found["AWS_LAMBDA_FUNCTION_NAME"] == "worldclock-dev-api"
    assert found["AWS_LAMBDA_FUNCTION_VERSION"] == "3"
    assert found["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "128"
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert found["AWS_EXECUTION_ENV"].startswith("AWS_Lambda_python3.")
    assert found["AWS_LAMBDA_LOG_GROUP_NAME"] == "/aws/lambda/worldclock-dev-api"
    assert "/[3]" in found["AWS_LAMBDA_LOG_STREAM_NAME"]
    assert (found["_HANDLER"], found["LAMBDA_TASK_ROOT"]) == ("app.main", "/task")
    assert (found["HITLESS_COMMIT"], found["HITLESS_STAGE"]) == ("abc", "dev")
    assert (found["TABLE"], found["TZ"], found["PATH"]) == ("t", "Europe/Berlin", "/bin")
    assert not {"SECRET", "VIRTUAL_ENV", "PYTHONPATH"} & found.keys()


def test_a_long_or_unusual_key_gets_a_short_unique_folder() -> None:
    assert folder_name("dev-r12-zones-1") == "dev-r12-zones-1"
    long = [folder_name(f"staging-r1234-a-function-with-a-name-{number}") for number in range(50)]
    assert len(set(long)) == 50
    assert max(map(len, long)) <= 28
    assert "/" not in folder_name("../../etc")
    assert folder_name("a/b") != folder_name("a-b")
