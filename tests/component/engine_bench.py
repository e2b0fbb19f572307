"""An engine over fakes for workers and gateway, on a real state file, and deaths of its daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

from hitless.engine.engine import Engine
from hitless.engine.retention import Retention
from hitless.gateway.state import GatewayState
from hitless.release.result import Result
from hitless.rollout.pools import ReleasePools
from hitless.rollout.rollout import Rollout
from hitless.store.secrets import SecretStore
from hitless.store.store import Store
from tests.fakes import FakeArtifacts, FakeClock, FakeGateway, FakeHooks, FakeWorkers, release_document


class Bench:
    """An engine over fakes; `again()` is a daemon that starts after the first has died, with the same fakes."""

    def __init__(
        self,
        folder: Path,
        *,
        world: Bench | None = None,
        pools: int = 6,
        store: type[Store] = Store,
        stages: tuple[str, ...] = ("dev", "prod"),
    ) -> None:
        self.folder = folder
        self.diary: list[str] = world.diary if world else []
        self.store = store(folder / "state.sqlite")
        self.workers: FakeWorkers = world.workers if world else FakeWorkers(self.diary)
        self.gateway: FakeGateway = (
            world.gateway if world else FakeGateway(self.diary, GatewayState.initial(list(stages), pools))
        )
        self.artifacts = FakeArtifacts()
        self.clock: FakeClock = world.clock if world else FakeClock()
        self.hooks = FakeHooks(self.diary)
        workers, gateway, artifacts = cast(Any, self.workers), cast(Any, self.gateway), cast(Any, self.artifacts)
        self.engine = Engine(
            service="shop",
            stages=stages,
            store=self.store,
            pools=ReleasePools(workers, gateway, artifacts, self.store, folder / "logs"),
            retention=Retention(self.store, artifacts, folder / "logs", self.clock),
            hooks=cast(Any, self.hooks),
            clock=self.clock,
            secrets=SecretStore(folder),
        )

    def again(self) -> Bench:
        self.store.close()
        successor = Bench(self.folder, world=self, store=type(self.store))
        successor.engine.pools.living.update(cast(Any, self.workers.running))
        return successor

    async def deploy(self, *functions: str, force: bool = False, stage: str = "dev", **document: Any) -> dict[str, Any]:
        started = await self.engine.deploy(stage, release_document(*functions, **document), strategy=None, force=force)
        return await self.end(started)

    async def end(self, started: Rollout | Result) -> dict[str, Any]:
        async for line in self.engine.follow(started):
            if "result" in line:
                await self.engine.wait_until_idle()
                return cast(dict[str, Any], line["result"])
        raise AssertionError("a rollout without a result")


async def until(true: Callable[[], bool]) -> None:
    """Let other tasks run until the condition is true; the story's timeout is the deadline."""
    while not true():  # noqa: ASYNC110 - the fakes have no events to wait for
        await asyncio.sleep(0)


def run(tmp_path: Path, story: Callable[[Bench], Coroutine[Any, Any, None]], **options: Any) -> Bench:
    bench = Bench(tmp_path, **options)

    async def told() -> None:
        async with asyncio.timeout(60):
            await story(bench)

    asyncio.run(told())
    return bench


class Dies(BaseException):
    """The daemon dies at a chosen instant."""


def crash_when(bench: Bench, instant: str) -> Callable[[GatewayState], None]:
    begun = len(bench.diary)

    def look(state: GatewayState) -> None:
        if instant in bench.diary[begun:]:
            raise Dies

    return look
