"""The HTTP front before the emulator: `AWS_ENDPOINT_URL` points to it in the tests and in `scripts/demo --aws`.

What it does, and nothing else: it passes each AWS call on to ministack and records it (service, action, resources,
role); gives templates stand-ins for what ministack refuses; answers CodeDeploy and the GitHub connection itself; and
serves API requests with a real split by alias weight. The product knows none of this.

It runs on a thread of its own with one event loop; everything that it keeps is written by that loop alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from tests.aws.front.apigateway import ApiRequests
from tests.aws.front.autoscaling import Autoscaling
from tests.aws.front.backend import Backend
from tests.aws.front.calls import ACCOUNT, Call, Operation, Request, call_of, implied_calls, operation_of
from tests.aws.front.codedeploy import CodeDeploy
from tests.aws.front.connections import Connections
from tests.aws.front.faults import Death, Fault
from tests.aws.front.indexes import too_many_indexes
from tests.aws.front.intrinsics import Resolver
from tests.aws.front.mappings import update_mapping
from tests.aws.front.stacks import (
    BODY_LIMIT_BYTES,
    TEMPLATE_OPERATIONS,
    StackCalls,
    form_of,
    object_of,
    parameters_of,
    template_of,
)
from tests.aws.front.taken import taken_stages
from tests.support import eventually

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"})
DENIED = {"content-type": "application/json", "x-amzn-errortype": "AccessDeniedException"}
_TELLS_OF_AN_END = frozenset({"DescribeStacks", "DescribeStackEvents"})
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Front:
    """`clock_factor`: how much faster CodeDeploy's minutes pass; the product is not told."""

    def __init__(self, port: int, emulator_url: str, *, clock_factor: float = 60.0) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.emulator_url = emulator_url
        self.calls: list[Call] = []
        self.backend = Backend(emulator_url)
        self.stacks = StackCalls()
        self.codedeploy = CodeDeploy(self.backend, clock_factor=clock_factor)
        self.autoscaling = Autoscaling(self.backend)
        self.connections = Connections(self.backend)
        self.api = ApiRequests(self.backend)
        self.faults: list[Fault] = []
        self.death: Death | None = None
        self._roles: dict[str, str] = {}
        config = uvicorn.Config(
            self._application(),
            host="127.0.0.1",
            port=port,
            log_level="error",
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="front", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Front:
        self._thread.start()
        eventually(lambda: self._server.started, deadline_s=20, what="the front")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(20)

    def reset(self) -> None:
        """Removes the recorded calls and ends every deployment; the emulator has its own reset."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._forget(), self._loop).result(20)

    def actions(self) -> list[str]:
        """The calls so far, in order, as IAM actions."""
        return [call.action for call in self.calls]

    async def _forget(self) -> None:
        await self.codedeploy.forget()
        self.api.forget()
        self.autoscaling.forget()
        self.connections.forget()
        self.stacks.forget()
        self.calls.clear()
        self.faults.clear()
        self.death = None
        self._roles.clear()

    def _application(self) -> Starlette:
        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette):  # type: ignore[no-untyped-def]
            self._loop = asyncio.get_running_loop()
            async with self.backend:
                pumping = asyncio.create_task(self.api.publish_metrics())
                yield
                await self.codedeploy.forget()
                pumping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await pumping

        routes = [
            Route("/restapis/{api}/{stage}/_user_request_", self.api.answer, methods=_METHODS),
            Route("/restapis/{api}/{stage}/_user_request_/{path:path}", self.api.answer, methods=_METHODS),
            Route("/{path:path}", self._aws, methods=_METHODS),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    async def _aws(self, incoming: HttpRequest) -> Response:
        request = Request(
            method=incoming.method,
            path=incoming.scope["raw_path"].decode().partition("?")[0],
            query=incoming.scope["query_string"].decode(),
            headers=dict(incoming.headers),
            body=await incoming.body(),
        )
        operation = operation_of(request)
        if request.scope:
            self.backend.regions.add(request.scope[1])
        name = f"{operation.service}:{operation.name}" if operation else ""
        strikes = [fault.strike for fault in self.faults] + ([self.death.strike] if self.death is not None else [])
        for strike in strikes if operation else ():
            if (instead := strike(name)) is not None:
                return instead
        answer = await self._answer(request, operation)
        if operation:
            self._record(request, operation, answer)
            if self.death is not None:
                self.death.strike_after(name)
        return answer

    def _record(self, request: Request, operation: Operation, answer: Response) -> None:
        key, region, _ = request.scope or ("", "us-east-1", "")
        principal = self._roles.get(key, key)
        if operation.name == "AssumeRole" and answer.status_code == 200:
            self._remember_session(bytes(answer.body), operation.parameters["RoleArn"])
        call = call_of(request, operation, principal=principal, status=answer.status_code)
        deployment = self.codedeploy.deployments.get(operation.parameters.get("deploymentId", ""))
        if call.service == "codedeploy" and deployment is not None:
            group = f"{deployment.application}/{deployment.group['deploymentGroupName']}"
            resource = f"arn:aws:codedeploy:{region}:{ACCOUNT}:deploymentgroup:{group}"
            call = dataclasses.replace(call, resources=(resource,))
        self.calls.append(call)
        self.calls.extend(implied_calls(operation, region, principal))

    def _remember_session(self, body: bytes, role: str) -> None:
        for element in ET.fromstring(body).iter():
            if element.tag.endswith("AccessKeyId"):
                self._roles[element.text or ""] = role

    async def _answer(self, request: Request, operation: Operation | None) -> Response:
        if operation and operation.service == "codedeploy":
            return await self.codedeploy.answer(request, operation)
        if operation and operation.service == "application-autoscaling":
            return await self.autoscaling.answer(request, operation)
        if operation and operation.name == "Invoke" and not await self.api.may_be_handed_over(request, operation):
            return Response('{"Message":"not authorized to perform: lambda:InvokeFunction"}', 403, headers=DENIED)
        if operation and operation.name == "UpdateBasePathMapping":
            return await update_mapping(self.backend, request)
        if operation and operation.service in ("codeconnections", "codestar-connections", "codepipeline"):
            return await self.connections.answer(request, operation)
        if operation and (operation.service, operation.name) == ("monitoring", "DescribeAlarms") and request.scope:
            await self.codedeploy.alarms.settle(request.scope[1])
        body = request.body
        if operation and operation.service == "cloudformation" and operation.name in TEMPLATE_OPERATIONS:
            sent = await self._with_stand_ins(request, form_of(request.body))
            if isinstance(sent, Response):
                return sent
            body = sent
        answer = await self._pass_on(request, body)
        if operation and operation.name in _TELLS_OF_AN_END and b"_COMPLETE" in bytes(answer.body):
            await self.api.look()  # before whoever waits for that changes the API's draft again
        if operation and operation.service == "cloudformation" and answer.status_code == 200:
            shown = self.stacks.coming_out(operation.name, bytes(answer.body))
            answer = Response(shown, answer.status_code, headers={"content-type": "text/xml"})
        return answer

    async def _with_stand_ins(self, request: Request, form: dict[str, str]) -> bytes | Response:
        """The request as the emulator gets it, or a refusal. A template over the limit of a body goes by S3."""
        region = request.scope[1] if request.scope else "us-east-1"
        original = form.get("TemplateBody", "")
        if "TemplateURL" in form:
            found = await self.backend.http.get(self.emulator_url + object_of(form["TemplateURL"]))
            original = found.text if found.status_code == 200 else ""
        if not original or len(form.get("TemplateBody", "").encode()) > BODY_LIMIT_BYTES:
            return request.body  # the emulator says what is wrong, as AWS does
        name = form.get("StackName", "")
        given = parameters_of(form, await self.backend.stack_parameters(name, region) if name else {})

        def resolver(template: Mapping[str, Any]) -> Resolver:
            return Resolver(template, given, {}, {}, region=region, stack=name)

        if name and (refusal := await too_many_indexes(self.backend, template_of(original), name, region)):
            return refusal
        taken = {}
        if name and form.get("ChangeSetType") != "IMPORT":
            taken = await taken_stages(self.backend, template_of(original), name, region)
        template = self.stacks.rewritten(original, resolver if name else None, taken)
        if template is None:
            return request.body
        form.pop("TemplateBody", None)
        form["TemplateURL"] = await self.backend.keep_template(template, region)
        return urllib.parse.urlencode(form).encode()

    async def _pass_on(self, request: Request, body: bytes) -> Response:
        url = self.emulator_url + request.path + (f"?{request.query}" if request.query else "")
        outgoing = self.backend.http.build_request(
            request.method, url, content=body, headers=_kept(list(request.headers.items()))
        )
        received = await self.backend.http.send(outgoing, stream=True)
        content = b"".join([chunk async for chunk in received.aiter_raw()])
        answer = Response(content, received.status_code)
        answer.raw_headers[:] = [
            (name.lower().encode(), value.encode()) for name, value in _kept(received.headers.multi_items())
        ]
        length = received.headers.get("content-length") if request.method == "HEAD" else str(len(content))
        if length is not None:
            answer.raw_headers.append((b"content-length", length.encode()))
        return answer


def _kept(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]


def api_url(front_url: str, api_id: str, stage: str) -> str:
    """Where the front serves a stage of a REST API."""
    return f"{front_url}/restapis/{api_id}/{urllib.parse.quote(stage)}/_user_request_"
