"""Starts or adopts all parts of an engine on one machine in order, runs the background tasks, and stops everything.

Start order: the workers' root zygote; adopt pools that are still running; adopt the gateway, or bind its listeners;
recovery; start a new gateway with the recovered state; background tasks. A stop has the reverse order: close the
listeners, wait for requests, stop the workers, and at last the daemon.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack

from prometheus_client.core import Metric

import hitless
from hitless.clock import Clock, timestamp
from hitless.engine.acme import Acme
from hitless.engine.certificates import Certificates
from hitless.engine.depth import adapt_depth
from hitless.engine.engine import Engine
from hitless.engine.healing import heal_workers, report_gateway_events
from hitless.engine.metrics import exposition
from hitless.engine.previews import Previews
from hitless.engine.readers import watch_readers
from hitless.engine.recent import Recent
from hitless.engine.recovery import finish_leftover_rollouts, recover
from hitless.engine.scaling import Scaler
from hitless.engine.schedules import run_schedules
from hitless.engine.sites import Sites
from hitless.engine.status import read_gateway, status
from hitless.engine.upgrade import Upgrade
from hitless.gateway.gateway import Gateway
from hitless.gateway.state import TlsListener
from hitless.release.status import EngineStatus, Status
from hitless.scaling.decide import ScaleInPace
from hitless.workers.fleet import Fleet

SHUTDOWN_DRAIN_S = 30.0
RESTART_PAUSE_S = 1.0


class Machine:
    """All parts of one data folder's engine."""

    def __init__(
        self,
        engine: Engine,
        fleet: Fleet,
        gateway: Gateway,
        *,
        clock: Clock,
        listen: Callable[[], Mapping[str, socket.socket]],
        leave: Callable[[], None],
        acme: Acme,
        pace: ScaleInPace,
        previews: Previews | None = None,
        sites: Sites | None = None,
        budget: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`listen` binds the stages' addresses, and is called only if no gateway is alive. `leave` ends the daemon."""
        self._engine, self._fleet, self._gateway, self._clock = engine, fleet, gateway, clock
        self._listen, self._leave, self._previews, self.sites = listen, leave, previews, sites
        self._acme = acme
        self._certificates = Certificates(
            lambda *it: gateway.certify(*it), clock, engine.say, lambda *it: engine.warn(*it), acme
        )
        self.upgrade = Upgrade(engine, fleet, gateway)
        self._keep_budget = budget
        self._scaler, self.recent = Scaler(engine, gateway, clock, pace), Recent(engine, clock)
        self._started_at = timestamp(clock.now())
        self._background_tasks: list[asyncio.Task[None]] = []
        self.other_metrics: Callable[[], Iterable[Metric]] = tuple

    async def start(self) -> None:
        """Start or adopt every part. Raises MachineError or EngineError, after stopping the parts that it started."""
        found_root = await self._fleet.start()
        self._engine.pools.living.update(await self._fleet.adopt())
        found = len(self._engine.pools.living)
        # First, because recovery may remove a release, and that must not wait for clients that read slowly.
        reading = self._run_forever(lambda: watch_readers(self._engine, self._gateway, self._clock))
        watching = asyncio.create_task(reading)
        try:
            sockets = None if await self._gateway.adopt() else self._listen()
            self.upgrade.remember_adopted(root=found_root)
            self._engine.say("the engine started" + (f" and adopted {found} running pools" if found else ""))
            if self._previews is not None:
                await self._previews.restore()
            if self.sites is not None:
                await self.sites.restore()
            await recover(self._engine)
            if sockets is not None:
                await self._certificates.load(self._tls_listeners())
                await self._gateway.start(sockets)
        except BaseException:
            watching.cancel()
            if not found:  # adopted pools may still get requests from a gateway that could not be adopted
                await self._fleet.stop()
            raise
        works: list[Callable[[], Awaitable[None]]] = [
            lambda: heal_workers(self._engine, self._fleet),
            lambda: report_gateway_events(self._engine, self._gateway),
            lambda: adapt_depth(self._engine, self._clock),
            self._scaler.run,
            self.recent.watch,
            lambda: finish_leftover_rollouts(self._engine, self._clock),
            lambda: run_schedules(self._engine, self._clock),
            lambda: self._certificates.watch(self._tls_listeners),
            lambda: self._acme.watch(self._tls_listeners, self._certificates.look),
        ]
        if self._previews is not None:
            works.append(self._previews.watch)
        if self.sites is not None:
            works.append(self.sites.watch)
        if self._keep_budget is not None:
            works.append(self._keep_budget)
        self._background_tasks = [watching, *(asyncio.create_task(self._run_forever(work)) for work in works)]

    def _tls_listeners(self) -> tuple[TlsListener, ...]:
        all_ = self._gateway.state.tls + (self.sites.listeners if self.sites is not None else ())
        return tuple(map(self._acme.located, all_))

    async def _run_forever(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a background task again whenever it fails: nothing else does its work."""
        while True:
            try:
                await task()
            except Exception as error:  # noqa: BLE001 - the task must continue after any error
                self._engine.say(f"background task failed; restarting: {type(error).__name__}: {error}")
                await self._clock.sleep(RESTART_PAUSE_S)

    async def status(self) -> Status:
        # first, because a preview may be removed in the meantime
        at_gateway = await read_gateway(self._engine, self._gateway)
        return status(
            self._engine,
            urls=self.urls(),
            previews=[(row, self._previews.url_of(row)) for row in self._previews.rows()] if self._previews else (),
            processes=EngineStatus(
                pid=os.getpid(),
                version=hitless.__version__,
                started_at=self._started_at,
                gateway_pid=self._gateway.haproxy_pid,
                guardian_pid=self._gateway.guardian_pid,
                root_zygote_pid=self._fleet.root_pid,
                compiled=self._fleet.compiled,
                spooler_pid=self._gateway.spooler_pid,
                isolation_missing=await self._fleet.isolation_missing(),
            ),
            reason_of=self._scaler.reason_of,
            rate_of=self.recent.per_second,
            at_gateway=at_gateway,
            troubles=self._certificates.troubles | (self.sites.bare if self.sites is not None else {}),
        )

    async def metrics(self) -> bytes:
        return await exposition(self._engine, self._gateway, self.other_metrics())

    def urls(self) -> dict[str, str]:
        tls = {one.stage for one in self._gateway.state.tls}
        # there is no handshake without a name that has a certificate
        names = {one.stage: one.domain for one in self._gateway.state.tls if one.settings.acme}
        shared = dict(self.sites.urls()) if self.sites is not None else {}
        return shared | {
            stage: client_url(names.get(stage) or host, port, "https" if stage in tls else "http")
            for stage, (host, port) in self._gateway.addresses.items()
            if "_" not in stage
        }

    def reach(self, stage: str) -> tuple[str, int] | None:
        """The engine's own address of a stage whose URL has a domain, which may be another machine's; else None."""
        return self.sites.reach(stage) if self.sites is not None else None

    async def shut_down(self, *, force: bool) -> None:
        """Stop everything; with `force`, without waiting for requests. Takes every step, even if one fails."""
        self._engine.say("the engine is stopping" + (" at once" if force else " after the requests in progress"))
        for task in self._background_tasks:
            task.cancel()
        await asyncio.gather(*self._background_tasks, return_exceptions=True)
        if self._previews is not None:
            await self._previews.stop()
        async with AsyncExitStack() as last_first:
            last_first.callback(self._leave)
            last_first.callback(self._forget_pools)
            last_first.push_async_callback(self._fleet.stop, force=force)
            last_first.push_async_callback(self._gateway.stop, grace_s=0.0 if force else SHUTDOWN_DRAIN_S)
            last_first.push_async_callback(self._engine.end_rollouts, force=force)

    def _forget_pools(self) -> None:
        for row in self._engine.store.pools():
            self._engine.store.remove_pool(row.key)
        self._engine.say("the engine stopped")


def client_url(host: str, port: int, scheme: str = "http") -> str:
    """A URL that a client on this machine can use."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"
