"""What goes wrong between a caller and AWS, told by a test: a throttled call, a connection that breaks off."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal

from starlette.responses import Response, StreamingResponse

_JSON_SERVICES: Final = frozenset({"codebuild", "codeconnections", "codedeploy", "codepipeline", "logs", "ssm"})


@dataclass
class Fault:
    """Calls whose `service:Operation` matches `pattern` fail; the first `times` of them, all without it."""

    kind: Literal["throttle", "cut"]
    pattern: str
    times: int | None = None
    struck: int = 0

    def strike(self, operation: str) -> Response | None:
        """The answer in the place of AWS', or None where the call passes."""
        if not fnmatch.fnmatchcase(operation, self.pattern) or self.struck == self.times:
            return None
        self.struck += 1
        return _throttled(operation.partition(":")[0]) if self.kind == "throttle" else _cut()


def _throttled(service: str) -> Response:
    """In the protocol of the service; REST-JSON reads the header alone."""
    if service in _JSON_SERVICES:
        body = {"__type": "ThrottlingException", "message": "Rate exceeded"}
        return Response(json.dumps(body), 400, media_type="application/x-amz-json-1.1")
    error = "<Error><Type>Sender</Type><Code>ThrottlingException</Code><Message>Rate exceeded</Message></Error>"
    return Response(
        f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>",
        400,
        headers={"x-amzn-errortype": "ThrottlingException", "content-type": "text/xml"},
    )


def _cut() -> Response:
    """Fewer bytes than were promised: the server closes the connection."""

    async def nothing() -> AsyncIterator[bytes]:
        yield b"{"
        raise ConnectionResetError("a test cuts the network")

    return StreamingResponse(nothing(), headers={"content-length": "1000"})
