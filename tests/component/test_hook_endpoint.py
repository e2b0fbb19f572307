"""The server that a hook reaches while it runs: it needs the key in the path, and limits bodies and concurrent
calls.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from hitless.rollout.hook_endpoint import (
    JSON_1_1,
    MOST_ANSWER_BYTES,
    MOST_EVENT_BYTES,
    MOST_INVOCATIONS,
    TARGET,
    Execution,
    serve_hook,
)
from hitless.workers.invoke import InvokeResult

pytestmark = pytest.mark.component


class Served:
    """One hook's server, and the invocations of the candidate through it."""

    def __init__(
        self, url: str, client: httpx.AsyncClient, execution: Execution, invoked: list[Any], full: asyncio.Event
    ) -> None:
        self.url, self.client, self.execution, self.invoked, self.full = url, client, execution, invoked, full

    async def answer(self, url: str, **more: str) -> httpx.Response:
        event = self.execution.event
        named = {"deploymentId": event["DeploymentId"], "status": "Succeeded", **more}
        body = {**named, "lifecycleEventHookExecutionId": event["LifecycleEventHookExecutionId"]}
        return await self.client.post(url, content=json.dumps(body), headers={"x-amz-target": TARGET})

    async def invoke(self, url: str, event: Any) -> httpx.Response:
        return await self.client.post(f"{url}/2015-03-31/functions/shop/invocations", content=json.dumps(event))


def served(scenario: Callable[[Served], Awaitable[None]], *, held: asyncio.Event | None = None) -> None:
    """Run a scenario; invocations answer when `held` is set."""

    async def play() -> None:
        execution, invoked, full = Execution(), list[Any](), asyncio.Event()

        async def invoke(name: str, event: Any) -> InvokeResult:
            invoked.append(event)
            if len(invoked) == MOST_INVOCATIONS:
                full.set()
            if held is not None:
                await held.wait()
            return InvokeResult({"name": name}, False, "", 1.0)

        async with serve_hook(execution, invoke) as url, httpx.AsyncClient(trust_env=False, timeout=30) as client:
            await scenario(Served(url, client, execution, invoked, full))

    asyncio.run(play())


def test_a_call_to_the_hook_endpoint_without_its_key_gets_404() -> None:
    async def scenario(hook: Served) -> None:
        root = hook.url.rpartition("/")[0]
        for base in (root, f"{root}/guessed", hook.url[:-1]):
            assert (await hook.answer(base)).status_code == 404
            assert (await hook.invoke(base, {})).status_code == 404
        assert (hook.execution.answer, hook.invoked) == (None, [])
        said = await hook.answer(hook.url)
        assert (said.status_code, said.headers["content-type"]) == (200, JSON_1_1)
        assert hook.execution.answer == "Succeeded"

    served(scenario)


def test_bodies_beyond_the_size_limits_are_refused() -> None:
    async def scenario(hook: Served) -> None:
        refused = await hook.answer(hook.url, padding="x" * MOST_ANSWER_BYTES)
        assert (refused.status_code, refused.json()["__type"]) == (400, "SerializationException")
        assert hook.execution.answer is None
        large = await hook.invoke(hook.url, "x" * MOST_EVENT_BYTES)
        assert (large.status_code, hook.invoked) == (400, [])
        assert large.headers["x-amzn-errortype"] == "InvalidRequestContentException"
        within = "x" * (MOST_EVENT_BYTES - 2)
        assert (await hook.invoke(hook.url, within)).json() == {"name": "shop"}
        assert hook.invoked == [within]

    served(scenario)


def test_invocations_beyond_the_concurrency_limit_wait() -> None:
    held = asyncio.Event()

    async def scenario(hook: Served) -> None:
        asked = [asyncio.create_task(hook.invoke(hook.url, number)) for number in range(MOST_INVOCATIONS + 2)]
        async with asyncio.timeout(20):
            await hook.full.wait()
        # An absence: another request goes its whole way meanwhile, and still no more have begun.
        assert (await hook.invoke(f"{hook.url}x", 0)).status_code == 404
        assert len(hook.invoked) == MOST_INVOCATIONS
        held.set()
        assert {(await one).status_code for one in asked} == {200}
        assert sorted(hook.invoked) == list(range(MOST_INVOCATIONS + 2))

    served(scenario, held=held)
