"""botocore's errors as sentences that say who must act, without secrets."""

from __future__ import annotations

import boto3
import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
    UnauthorizedSSOTokenError,
)

from hitless.aws.session import Aws, aws_errors, connect, explain, retries
from hitless.cloud.stage.stage import is_busy
from hitless.errors import CloudError, HitlessError, MachineError, UsageError
from tests.unit.aws_fakes import error

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("raised", "kind", "words", "hint"),
    [
        (NoCredentialsError(), MachineError, "no AWS credentials", "aws sso login"),
        (UnauthorizedSSOTokenError(), MachineError, "has expired", "aws sso login"),
        (ProfileNotFound(profile="x"), UsageError, "x", "AWS_PROFILE"),
        (NoRegionError(), UsageError, "region", "provider.region"),
        (EndpointConnectionError(endpoint_url="https://x"), MachineError, "cannot be reached", "it continues"),
        (BotoCoreError(), CloudError, "error", "continues"),
        (error("ExpiredToken", "the token AKIA123 is old"), MachineError, "have expired", "AWS_PROFILE"),
        (error("InvalidClientTokenId", "bad"), MachineError, "does not accept", "AWS_PROFILE"),
        (error("AccessDenied", "not you"), CloudError, "AWS denies Operation: not you", "hitless aws plan"),
        (error("Throttling", "Rate exceeded"), CloudError, "throttles", "in a minute"),
        (error("RequestThrottled", "slow down"), CloudError, "throttles", "in a minute"),
        (ConnectionClosedError(endpoint_url="https://x"), MachineError, "cannot be reached", "it continues"),
        (error("OptInRequired", "no"), UsageError, "not enabled this region", "provider.region"),
        (error("Strange", "what"), CloudError, "Operation: what", "it continues"),
    ],
)
def test_each_aws_error_becomes_an_error_that_says_who_must_act(
    raised: BotoCoreError | ClientError, kind: type[HitlessError], words: str, hint: str
) -> None:
    explained = explain(raised)
    assert type(explained) is kind
    assert words in explained.message
    assert hint in explained.hint


def test_an_error_about_an_expired_token_does_not_show_the_token() -> None:
    assert "AKIA123" not in str(explain(error("ExpiredToken", "the token AKIA123 is old")).to_json())


def test_errors_of_our_own_pass_unchanged() -> None:
    with pytest.raises(KeyError), aws_errors():
        raise KeyError("ours")


def test_a_region_that_does_not_exist_is_refused_before_any_call() -> None:
    with pytest.raises(UsageError, match="eu-nowhere-1 is not a region"):
        connect("eu-nowhere-1", {})


def test_throttled_calls_are_retried_at_a_lower_rate() -> None:
    assert retries({}) == {"mode": "adaptive", "total_max_attempts": 8}
    assert retries({"AWS_MAX_ATTEMPTS": "2"}) == {"mode": "adaptive", "total_max_attempts": 2}
    with pytest.raises(UsageError, match="AWS_MAX_ATTEMPTS: 'often'"):
        retries({"AWS_MAX_ATTEMPTS": "often"})


@pytest.mark.parametrize(
    ("said", "busy"),
    [
        (
            "Stack:arn:aws:cloudformation:eu-west-1:1:stack/x/1 is in UPDATE_IN_PROGRESS state and can not be updated.",
            True,
        ),
        ("Stack x is in UPDATE_COMPLETE_CLEANUP_IN_PROGRESS state and can not be updated.", True),
        ("Resource handler returned message: no such bucket", False),
    ],
)
def test_a_concurrent_stack_update_is_recognised_by_cloudformations_message(said: str, busy: bool) -> None:
    assert is_busy(said) is busy


def test_a_subprocess_gets_the_sessions_credentials() -> None:
    session = boto3.Session(aws_access_key_id="A", aws_secret_access_key="B", region_name="us-east-1")
    shell = {"PATH": "/bin", "AWS_PROFILE": "other", "AWS_SESSION_TOKEN": "old", "HITLESS_DEPLOY_ROLE_ARN": "arn:r"}
    environ = Aws("us-east-1", session=session).subprocess_environ(shell)
    assert environ == {"PATH": "/bin", "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B"}
