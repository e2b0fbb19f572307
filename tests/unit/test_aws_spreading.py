"""Calls that AWS refuses because a change has not reached the called service yet: repeated, and within a bound."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from hitless.aws.lambdas import Lambdas
from hitless.aws.session import ATTEMPTS_VARIABLE, Aws, aws_errors
from hitless.errors import CloudError
from tests.aws.front.unspread import REFUSALS

pytestmark = pytest.mark.unit

CALLS: dict[str, Callable[[Any], Any]] = {
    "lambda:AddPermission": lambda client: client.add_permission(
        FunctionName="f",
        Qualifier="3",
        StatementId="s",
        Action="lambda:InvokeFunction",
        Principal="arn:aws:iam::1:role/r",
    ),
    "lambda:Invoke": lambda client: client.invoke(FunctionName="f", Qualifier="3"),
    "sts:AssumeRole": lambda client: client.assume_role(RoleArn="arn:aws:iam::1:role/role", RoleSessionName="s0"),
    "apigateway:UpdateAccount": lambda client: client.update_account(patchOperations=[]),
    "iam:AttachRolePolicy": lambda client: client.attach_role_policy(
        RoleName="r", PolicyArn="arn:aws:iam::aws:policy/p"
    ),
}


class Body:
    """The raw body of a response, as urllib3 gives it to botocore."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> list[bytes]:
        return [self._content]


class Refusing:
    """The wire: refuses the first `times` calls as AWS words it, then accepts. Nothing is sent."""

    def __init__(self, times: int, status: int, code: str, message: str, *, xml: bool) -> None:
        self.times, self.calls = times, 0
        said = json.dumps({"message": message}).encode()
        if xml:
            error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
            said = f"<ErrorResponse>{error}</ErrorResponse>".encode()
        self._refusal = (status, {"x-amzn-errortype": code}, said)
        self._accepted: tuple[int, dict[str, str], bytes] = (
            200,
            {},
            b"<Response><AssumeRoleResult/></Response>" if xml else b"{}",
        )

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        self.calls += 1
        status, headers, content = self._refusal if self.calls <= self.times else self._accepted
        return AWSResponse(request.url, status, headers, Body(content))


def client_of(service: str, wire: Refusing, tries: str = "8") -> Any:
    session = boto3.Session(aws_access_key_id="A", aws_secret_access_key="B", region_name="us-east-1")
    client = Aws("us-east-1", session=session, environ={ATTEMPTS_VARIABLE: tries}).client(service)
    client.meta.events.register("before-send", wire)
    return client


@pytest.mark.parametrize("operation", CALLS)
def test_a_call_that_meets_a_change_too_early_is_repeated(operation: str) -> None:
    service = operation.partition(":")[0]
    wire = Refusing(1, *REFUSALS[operation], xml=service in ("iam", "sts"))
    CALLS[operation](client_of(service, wire))
    assert wire.calls == 2


def test_the_repetitions_end_with_an_error_that_says_what_to_check() -> None:
    wire = Refusing(9, *REFUSALS["lambda:AddPermission"], xml=False)
    with pytest.raises(CloudError) as refused, aws_errors():
        CALLS["lambda:AddPermission"](client_of("lambda", wire, tries="2"))
    assert wire.calls == 2
    assert refused.value.message == (
        "AWS still refuses AddPermission: The provided principal was invalid. Please check the principal and try again."
    )
    assert "repeat in a minute" in refused.value.hint


def test_a_version_that_lambda_does_not_know_yet_is_awaited() -> None:
    wire = Refusing(1, *REFUSALS["lambda:GetFunctionConfiguration"], xml=False)
    Lambdas(client_of("lambda", wire)).wake("f", "3")
    assert wire.calls == 2


@pytest.mark.parametrize(
    "refusal",
    [
        (400, "InvalidParameterValueException", "The provided action was invalid."),
        (403, "AccessDeniedException", "not authorized to perform: lambda:AddPermission"),
    ],
)
def test_a_call_that_is_refused_for_good_is_not_repeated(refusal: tuple[int, str, str]) -> None:
    wire = Refusing(9, *refusal, xml=False)
    with pytest.raises(ClientError):
        CALLS["lambda:AddPermission"](client_of("lambda", wire))
    assert wire.calls == 1
