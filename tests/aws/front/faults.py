"""Faults between a caller and AWS that a test sets: a throttled call, a broken connection, a caller that dies at a
call.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from starlette.responses import Response, StreamingResponse

from tests.aws.front.unspread import REFUSALS

_JSON_SERVICES: Final = frozenset({"codebuild", "codeconnections", "codedeploy", "codepipeline", "logs", "ssm"})
_REST_JSON_SERVICES: Final = frozenset({"apigateway", "lambda", "xray"})


@dataclass
class Fault:
    """The first `times` calls whose `service:Operation` matches `pattern` fail; without `times`, all of them."""

    kind: Literal["throttle", "cut", "unspread"]
    pattern: str
    times: int | None = None
    struck: int = 0

    def strike(self, operation: str) -> Response | None:
        """The answer in the place of AWS', or None where the call passes."""
        if not fnmatch.fnmatchcase(operation, self.pattern) or self.struck == self.times:
            return None
        self.struck += 1
        if self.kind == "cut":
            return _cut()
        refusal = REFUSALS[operation] if self.kind == "unspread" else (400, "ThrottlingException", "Rate exceeded")
        return _refused(operation.partition(":")[0], *refusal)


@dataclass
class Death:
    """A caller that is killed at the `nth` call of an operation (`service:Operation`), before the call takes effect or
    after it has: then its answer is lost. `calls` are all that were made, as long as this stands.
    """

    operation: str = ""
    nth: int = 0
    after: bool = False
    kill: Callable[[], None] = lambda: None
    struck: bool = False
    calls: list[str] = field(default_factory=list)

    def strike(self, operation: str) -> Response | None:
        """The answer in the place of AWS', or None where the call passes."""
        self.calls.append(operation)
        if self.after or not self._is_due(operation):
            return None
        self._strike()
        return Response(status_code=500)  # nobody reads it

    def strike_after(self, operation: str) -> None:
        """The call has taken effect, and its response was not sent yet."""
        if self.after and self._is_due(operation):
            self._strike()

    def _is_due(self, operation: str) -> bool:
        return operation == self.operation and not self.struck and self.calls.count(operation) == self.nth

    def _strike(self) -> None:
        self.struck = True
        self.kill()


def _refused(service: str, status: int, code: str, message: str) -> Response:
    """The error in the protocol of the service."""
    if service in _JSON_SERVICES:
        body = {"__type": code, "message": message}
        return Response(json.dumps(body), status, media_type="application/x-amz-json-1.1")
    if service in _REST_JSON_SERVICES:
        headers = {"x-amzn-errortype": code}
        return Response(json.dumps({"message": message}), status, headers, media_type="application/json")
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    body_xml = f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"
    return Response(body_xml, status, media_type="text/xml")


def _cut() -> Response:
    """Fewer bytes than announced, after which the server closes the connection."""

    async def nothing() -> AsyncIterator[bytes]:
        yield b"{"
        raise ConnectionResetError("a test cuts the network")

    return StreamingResponse(nothing(), headers={"content-length": "1000"})
