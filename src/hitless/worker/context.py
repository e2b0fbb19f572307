"""The context object that Lambda's Python runtime passes to a handler."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

from hitless.worker.environment import ACCOUNT_ID
from hitless.worker.spec import PoolSpec


class CognitoIdentity:
    """Always empty: hitless has no mobile SDK clients."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self) -> None:
        self.cognito_identity_id: Any = None
        self.cognito_identity_pool_id: Any = None


class LambdaContext:
    """The object documented under "Lambda context object in Python"; `memory_limit_in_mb` is a string there, too.

    Handlers may assign anything to its attributes. A compiled class would refuse another type than the declared one.
    """

    __slots__ = (
        "_deadline_ns",
        "aws_request_id",
        "client_context",
        "function_name",
        "function_version",
        "identity",
        "invoked_function_arn",
        "log_group_name",
        "log_stream_name",
        "memory_limit_in_mb",
        "tenant_id",
    )

    def __init__(self, function: ContextFactory, request_id: str, deadline_ns: int) -> None:
        self.aws_request_id: Any = request_id
        self._deadline_ns = deadline_ns
        self.function_name: Any = function.name
        self.function_version: Any = function.version
        self.invoked_function_arn: Any = function.arn
        self.memory_limit_in_mb: Any = function.memory_mb
        self.log_group_name: Any = function.log_group
        self.log_stream_name: Any = function.log_stream
        self.client_context: Any = None
        self.identity: Any = CognitoIdentity()
        self.tenant_id: Any = None

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function's timeout; 0 after it."""
        return max((self._deadline_ns - time.monotonic_ns()) // 1_000_000, 0)

    def log(self, msg: object) -> None:
        """Write to the function's log."""
        sys.stdout.write(str(msg))


class ContextFactory:
    """Makes the contexts of one worker; computes the constant fields once."""

    def __init__(self, spec: PoolSpec) -> None:
        self.name: Final = spec.function_name
        self.version: Final = str(spec.release)
        self.memory_mb: Final = str(spec.memory_mb)
        self.arn: Final = f"arn:aws:lambda:{spec.region}:{ACCOUNT_ID}:function:{self.name}:{self.version}"
        self.log_group: Final = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "")
        self.log_stream: Final = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        self._timeout_ns: Final = spec.timeout_s * 1_000_000_000

    def context(self, request_id: str, began_ns: int) -> LambdaContext:
        """The context of a request that began at that monotonic instant."""
        return LambdaContext(self, request_id, began_ns + self._timeout_ns)
