"""The pipelines of an engine: one for each service, made when a request first names it or its state is found.

The services share the numbers of runs, the working folder and the places of builds. Their runs do not wait for each
other.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from hitless.engine.engine import Engine
from hitless.engine.folders import service_of
from hitless.errors import HitlessError, UsageError
from hitless.pipeline.pipeline import Pipeline
from hitless.pipeline.workshop import SERVICES, Workshop
from hitless.store.runs import RunRecords


class Pipelines:
    """Starts, finds, stops and removes pipelines. An engine of one service has one, with the empty name."""

    def __init__(
        self,
        engine: Engine,
        workshop: Workshop,
        make: Callable[[str], Pipeline],
        *,
        shared: bool,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        """`make` builds a service's pipeline; `close` ends background work that they share."""
        self._engine, self._workshop, self._make, self._close = engine, workshop, make, close
        self.records = RunRecords(engine.store)
        self._shared, self._locks = shared, defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._started: dict[str, Pipeline] = {}

    async def start(self) -> None:
        """Start the pipeline of each known service."""
        await asyncio.to_thread(self._workshop.clean_all)
        for service in sorted(self._recorded()) if self._shared else [""]:
            try:
                await self.of(service)
            except HitlessError as error:
                if not self._shared:
                    raise
                self._engine.say(f"the pipeline of {service} could not start: {error.message}")  # the others do

    async def stop(self) -> None:
        """Stop the runs in progress; the next start resumes them or marks them as interrupted."""
        for pipeline in tuple(self._started.values()):  # a request may start another one meanwhile
            await pipeline.stop()
        await self._close()

    async def of(self, service: str) -> Pipeline:
        """The service's pipeline. UsageError if the engine has no such service."""
        service = service if self._shared else ""
        async with self._locks[service]:
            if service not in self._started:
                self._check_known(service)
                pipeline = self._make(service)
                await pipeline.start()
                self._started[service] = pipeline
        return self._started[service]

    async def of_stage(self, stage: str) -> Pipeline:
        """The pipeline of a stage, by its name at the engine. UsageError."""
        return await self.of(service_of(stage))

    async def of_run(self, run: int) -> Pipeline:
        """The pipeline of a run. UsageError if there is no such run."""
        found = self.records.run(run)
        if found is None:
            raise UsageError(f"there is no run {run}", hint="`hitless pipeline runs` lists them")
        return await self.of(found.service)

    async def remove(self, service: str) -> None:
        """End the service's pipeline and remove its state."""
        if self._shared and service in self._recorded() | self._started.keys():
            pipeline = await self.of(service)
            async with self._locks[service]:
                await pipeline.remove()
                self._started.pop(service, None)

    def _check_known(self, service: str) -> None:
        if not self._shared or service in self._recorded():
            return
        if not service:
            hint = "name a service's folder with --service-dir, or a stage such as --stage users_prod"
            raise UsageError("several services share this engine", hint=hint)
        if service not in {service_of(stage) for stage in self._engine.stages}:
            hint = "`hitless up` or `hitless pipeline url` in the service's folder adds it"
            raise UsageError(f"this engine has no service {service}", hint=hint)

    def _recorded(self) -> set[str]:
        """The services that have a repository or runs."""
        folder = self._workshop.data / SERVICES
        found = {one.name for one in folder.iterdir()} if folder.is_dir() else set()
        return found | self.records.services()
