"""Checks credentials, region and account, and translates botocore's errors into messages with a hint.

botocore finds the credentials (environment, profile, SSO, instance role); this module never prints them. In the
pipeline's deploy step, they are used only to assume the stage's deploy role. Its ARN is in HITLESS_DEPLOY_ROLE_ARN, and
the external id that another account's role requires is in HITLESS_DEPLOY_ROLE_EXTERNAL_ID. Retries use botocore's
`adaptive` mode: a throttled call is repeated with back-off, and later calls are slowed down. A call is repeated too if
AWS refuses it because a new role, permission or function has not reached the service that is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.session
from botocore import exceptions
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from hitless.errors import CloudError, HitlessError, MachineError, UsageError

DEPLOY_ROLE_VARIABLE = "HITLESS_DEPLOY_ROLE_ARN"
EXTERNAL_ID_VARIABLE = "HITLESS_DEPLOY_ROLE_EXTERNAL_ID"

ATTEMPTS_VARIABLE, ATTEMPTS = "AWS_MAX_ATTEMPTS", 8
"""The number of tries of a call. The variable is botocore's own, and osls reads it too."""

CREDENTIALS_HINT = "sign in with `aws sso login`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_INVALID = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "AuthFailure",
    "IncompleteSignature",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Forbidden", "403"}
_THROTTLED = {
    *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException"),
    *("RequestLimitExceeded", "TooManyRequestsException", "SlowDown"),
}
_UNSPREAD = {
    "AddPermission": ("InvalidParameterValueException", "principal was invalid"),
    "AssumeRole": ("AccessDenied", "sts:AssumeRole"),
    "AttachRolePolicy": ("NoSuchEntity", "cannot be found"),
    "Invoke": ("ResourceNotFoundException", "Function not found"),
    "UpdateAccount": ("BadRequestException", "role ARN does not have required permissions"),
}
"""Operation → code and words of a refusal that may end some seconds after a change (IAM User Guide, "Changes that I
make are not always immediately visible"). AWS gives such a refusal no code of its own.
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """The account and the principal that the credentials belong to."""

    account: str
    arn: str

    @property
    def name(self) -> str:
        """The principal's short name: `user/ada`, `assumed-role/deploy/ada`."""
        return self.arn.split(":", 5)[-1]

    @property
    def partition(self) -> str:
        return self.arn.split(":")[1] or "aws"


class Aws:
    """boto3 clients for one region, each created once. Any use may raise botocore's errors: wrap it in `aws_errors`."""

    def __init__(self, region: str, *, session: Any = None, environ: Mapping[str, str] = os.environ) -> None:
        self.region = region
        self._session = session or boto3.Session(region_name=region)
        self._clients: dict[str, Any] = {}
        self._config = Config(retries=retries(environ), connect_timeout=10, user_agent_extra="hitless")
        self._session.events.register("needs-retry", _awaits_spreading(retries(environ)["total_max_attempts"]))

    def client(self, service: str) -> Any:
        """botocore's client of that service, in the stage's region."""
        if service not in self._clients:
            self._clients[service] = self._session.client(service, region_name=self.region, config=self._config)
        return self._clients[service]

    def identity(self) -> Identity:
        """Who the credentials belong to. This is the cheapest call that shows that they are valid."""
        answer = self.client("sts").get_caller_identity()
        return Identity(answer["Account"], answer["Arn"])

    def subprocess_environ(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The environment for a subprocess that acts with this session's credentials, which are refreshed now."""
        found = self._session.get_credentials()
        if found is None:
            raise NoCredentialsError
        frozen = found.get_frozen_credentials()
        credentials = {
            "AWS_ACCESS_KEY_ID": frozen.access_key,
            "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
            "AWS_SESSION_TOKEN": frozen.token,
        }
        dropped = {*credentials, "AWS_PROFILE", "AWS_DEFAULT_PROFILE", DEPLOY_ROLE_VARIABLE, EXTERNAL_ID_VARIABLE}
        kept = {name: value for name, value in environ.items() if name not in dropped}
        return kept | {name: str(value) for name, value in credentials.items() if value}


def retries(environ: Mapping[str, str]) -> dict[str, Any]:
    """botocore's retry settings. Raises UsageError if $AWS_MAX_ATTEMPTS is not a whole number above 0."""
    text = environ.get(ATTEMPTS_VARIABLE, str(ATTEMPTS))
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{ATTEMPTS_VARIABLE}: {text!r} is not a whole number above 0", hint="unset it")
    return {"mode": "adaptive", "total_max_attempts": int(text)}


def _awaits_spreading(tries: int) -> Callable[..., float | None]:
    """A handler of botocore's event `needs-retry`: the seconds to wait before a call that `is_unspread` is repeated."""

    def pause_s(response: Any, operation: Any, attempts: int, **_: Any) -> float | None:
        if response is None or attempts >= tries or not is_unspread(ClientError(response[1], operation.name)):
            return None
        return min(2.0 ** (attempts - 3), 16.0)

    return pause_s


def connect(region: str, environ: Mapping[str, str] = os.environ, *, profile: str | None = None) -> Aws:
    """A session with verified credentials and region: the environment's, or those of a named profile. An empty name
    gives the environment's without assuming the deploy role.

    Raises UsageError or MachineError.
    """
    with aws_errors():
        if region not in _regions():
            raise UsageError(
                f"{region} is not a region that AWS offers", hint="set provider.region in serverless.yml, or --region"
            )
        role_arn = environ.get(DEPLOY_ROLE_VARIABLE)
        external_id = environ.get(EXTERNAL_ID_VARIABLE)
        session = _assume_role(role_arn, region, external_id, environ) if role_arn and profile is None else None
        if profile:
            session = boto3.Session(profile_name=profile, region_name=region)
        aws = Aws(region, session=session, environ=environ)
        aws.identity()
        return aws


def _assume_role(role_arn: str, region: str, external_id: str | None, environ: Mapping[str, str]) -> Any:
    """A session of that role, refreshed as needed: shifting traffic may take longer than a chained role's hour."""
    base = botocore.session.Session()
    base.set_config_variable("region", region)
    base.register("needs-retry.sts.AssumeRole", _awaits_spreading(retries(environ)["total_max_attempts"]))
    if base.get_credentials() is None:
        raise NoCredentialsError
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=base.create_client,
        source_credentials=base.get_credentials(),
        role_arn=role_arn,
        extra_args={"RoleSessionName": "hitless-deploy"} | ({"ExternalId": external_id} if external_id else {}),
    )
    session = botocore.session.Session()
    session._credentials = DeferredRefreshableCredentials(method="assume-role", refresh_using=fetcher.fetch_credentials)
    return boto3.Session(botocore_session=session, region_name=region)


def _regions() -> set[str]:
    session = boto3.Session()
    return {
        str(region)
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ec2", partition)
    }


@contextmanager
def aws_errors() -> Iterator[None]:
    """botocore's errors become ours: MachineError (credentials, network), UsageError (region, profile), CloudError."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise explain(error) from error


def error_code(error: BaseException) -> str:
    """AWS's own code of a ClientError (`ValidationError`, `AccessDenied`, …); empty for any other error."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


class Ignoring(AbstractContextManager[object, bool]):
    """Suppresses a ClientError that has one of these AWS error codes."""

    def __init__(self, *codes: str) -> None:
        self._codes = codes

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        return error is not None and error_code(error) in self._codes


def is_denied(error: BaseException) -> bool:
    """Whether AWS refused the call because a permission is missing."""
    return error_code(error) in _DENIED


def is_unspread(error: ClientError) -> bool:
    """Whether AWS may have refused the call only because a change before it has not reached the called service."""
    code, words = _UNSPREAD.get(error.operation_name, ("", ""))
    return bool(code) and error_code(error) == code and words in error.response["Error"].get("Message", "")


def explain(error: BotoCoreError | ClientError) -> HitlessError:
    """Translate the error into a message with a hint."""
    if isinstance(error, ClientError):
        return _explain_answer(error)
    match error:
        case NoCredentialsError() | exceptions.PartialCredentialsError():
            return MachineError("no AWS credentials were found", hint=CREDENTIALS_HINT)
        case exceptions.SSOTokenLoadError() | exceptions.UnauthorizedSSOTokenError() | exceptions.TokenRetrievalError():
            return MachineError("the AWS sign-in has expired", hint="sign in again with `aws sso login`")
        case exceptions.ProfileNotFound():
            return UsageError(str(error), hint="set AWS_PROFILE to a profile of ~/.aws/config, or unset it")
        case exceptions.NoRegionError() | exceptions.InvalidRegionError():
            return UsageError("no valid AWS region is set", hint="set provider.region in serverless.yml")
        case exceptions.ConnectionError() | exceptions.HTTPClientError():
            hint = "check the network, provider.region and AWS_ENDPOINT_URL; then repeat the command: it continues"
            return MachineError(f"AWS cannot be reached: {error}", hint=hint)
        case _:
            return CloudError(str(error), hint="repeat the command: it continues where it stopped")


def _explain_answer(error: ClientError) -> HitlessError:
    code = error_code(error)
    message = str(error.response.get("Error", {}).get("Message", "")) or code
    failed_call = f"{error.operation_name}: {message}"
    details = {"code": code, "operation": error.operation_name}
    if code in _EXPIRED:
        return MachineError("the AWS credentials have expired", hint=CREDENTIALS_HINT, details=details)
    if code in _INVALID:
        return MachineError(f"AWS does not accept the credentials ({code})", hint=CREDENTIALS_HINT, details=details)
    if is_unspread(error):
        hint = "if the role, permission or function is new, repeat in a minute; else check its name and trust policy"
        return CloudError(f"AWS still refuses {failed_call}", hint=hint, details=details)
    if code in _DENIED:
        hint = "`hitless aws plan` lists the missing permissions; use a principal that has them"
        return CloudError(f"AWS denies {failed_call}", hint=hint, details=details)
    if code in _THROTTLED:
        hint = "repeat the command in a minute: it continues where it stopped"
        return CloudError(f"AWS throttles {failed_call}", hint=hint, details=details)
    if code == "OptInRequired":
        hint = "enable the region in the account's settings, or set another provider.region"
        return UsageError(f"the account has not enabled this region ({failed_call})", hint=hint, details=details)
    hint = "fix the cause, then repeat the command: it continues where it stopped"
    return CloudError(failed_call, hint=hint, details=details)
