"""The HTTP server that takes the place of CodeDeploy and Lambda while a hook runs.

Each hook has its own server on a loopback address. A caller needs the random key in its path, and a status needs the
random execution id; signatures are not checked. The two calls, in AWS's terms:

- `codedeploy:PutLifecycleEventHookExecutionStatus`, JSON 1.1 (API reference of CodeDeploy, 2014-10-06)
- `lambda:Invoke`, synchronous (API reference of Lambda, 2015-03-31)
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hitless.workers.invoke import InvokeResult

TARGET = "CodeDeploy_20141006.PutLifecycleEventHookExecutionStatus"
ANSWERS = ("Succeeded", "Failed")
MOST_ANSWER_BYTES = 16 * 1024
MOST_EVENT_BYTES = 6 * 1024 * 1024
"""Lambda's limit for a synchronous payload."""

MOST_INVOCATIONS = 4
"""Invocations at a time; further ones wait."""

MOST_LOG_BYTES = 4096
"""The length of a log's tail, as Lambda returns it."""

JSON_1_1 = "application/x-amz-json-1.1"

Invoke = Callable[[str, Any], Awaitable[InvokeResult | None]]
"""(function's full name, event) → its result; None if the candidate has no such function."""


@dataclass(slots=True)
class Execution:
    """One run of a hook: the ids that its status must name, and the status."""

    deployment_id: str = field(default_factory=lambda: f"d-{secrets.token_hex(8).upper()}")
    execution_id: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    answer: str | None = None

    @property
    def event(self) -> dict[str, str]:
        return {"DeploymentId": self.deployment_id, "LifecycleEventHookExecutionId": self.execution_id}

    def put(self, body: dict[str, Any]) -> tuple[str, str] | None:
        """Set the status. Returns CodeDeploy's error and a message if it is refused."""
        if not secrets.compare_digest(_text(body, "deploymentId"), self.deployment_id):
            return "DeploymentDoesNotExistException", "there is no such deployment"
        if not secrets.compare_digest(_text(body, "lifecycleEventHookExecutionId"), self.execution_id):
            return (
                "InvalidLifecycleEventHookExecutionIdException",
                "there is no such execution of a lifecycle event hook",
            )
        if body.get("status") not in ANSWERS:
            return "InvalidLifecycleEventHookExecutionStatusException", f"status is one of {', '.join(ANSWERS)}"
        if self.answer is not None:
            return "LifecycleEventAlreadyCompletedException", f"the hook has answered already: {self.answer}"
        self.answer = body["status"]
        return None


@asynccontextmanager
async def serve_hook(execution: Execution, invoke: Invoke) -> AsyncIterator[str]:
    """Serve one hook. Yields the URL of both services; the server ends with the block."""
    key = secrets.token_urlsafe(24)
    endpoint = _Endpoint(execution, invoke, asyncio.Semaphore(MOST_INVOCATIONS))
    app = Starlette(
        routes=[
            Route(f"/{key}/2015-03-31/functions/{{name}}/invocations", endpoint.invoke, methods=["POST"]),
            Route(f"/{key}/", endpoint.put_status, methods=["POST"]),
            Route(f"/{key}", endpoint.put_status, methods=["POST"]),
        ]
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        async with served(app, listener, timeout_graceful_shutdown=1):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/{key}"


@asynccontextmanager
async def served(app: Starlette, listener: socket.socket, **options: Any) -> AsyncIterator[None]:
    """Serve the application on that socket until the block ends. uvicorn handles no signals here."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", **options)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    serving = asyncio.create_task(server.main_loop())
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        await server.shutdown(sockets=[listener])


@dataclass(frozen=True, slots=True)
class _Endpoint:
    execution: Execution
    call: Invoke
    room: asyncio.Semaphore

    async def put_status(self, request: Request) -> Response:
        body = await _body(request, MOST_ANSWER_BYTES)
        if request.headers.get("x-amz-target") != TARGET:
            return _refusal("UnknownOperationException", "only PutLifecycleEventHookExecutionStatus is served here")
        if not isinstance(body, dict):
            return _refusal("SerializationException", "the body is no JSON object of at most 16 kB")
        if error := self.execution.put(body):
            return _refusal(*error)
        return JSONResponse({"lifecycleEventHookExecutionId": self.execution.execution_id}, media_type=JSON_1_1)

    async def invoke(self, request: Request) -> Response:
        kind = request.headers.get("x-amz-invocation-type", "RequestResponse")
        if kind != "RequestResponse":
            return _lambda_error(400, "InvalidParameterValueException", f"{kind} is not done here: RequestResponse is")
        event = await _body(request, MOST_EVENT_BYTES)
        if event is _UNREADABLE:
            return _lambda_error(400, "InvalidRequestContentException", "the event is no JSON of at most 6 MB")
        async with self.room:
            result = await self.call(function_name(request.path_params["name"]), event)
        if result is None:
            return _lambda_error(404, "ResourceNotFoundException", "the candidate has no such function")
        headers = {"X-Amz-Executed-Version": "$LATEST"}
        if result.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        if request.headers.get("x-amz-log-type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(result.log.encode()[-MOST_LOG_BYTES:]).decode()
        return JSONResponse(result.payload, headers=headers)


def function_name(named: str) -> str:
    """The function's name, from any of Lambda's forms: `name`, `name:qualifier`, `123456789012:function:name`, an ARN.

    The qualifier is ignored: there is only the candidate.
    """
    return named.rpartition("function:")[2].partition(":")[0]


_UNREADABLE = object()


async def _body(request: Request, most_bytes: int) -> Any:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            return _UNREADABLE
    try:
        return json.loads(body or b"{}")
    except ValueError:
        return _UNREADABLE


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) and value.isascii() else ""


def _refusal(kind: str, message: str) -> Response:
    return JSONResponse({"__type": kind, "message": message}, 400, {"x-amzn-ErrorType": kind}, JSON_1_1)


def _lambda_error(status: int, kind: str, message: str) -> Response:
    return JSONResponse({"Type": "User", "Message": message}, status, {"x-amzn-ErrorType": kind})
