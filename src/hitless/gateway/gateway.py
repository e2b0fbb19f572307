"""The gateway: one HAProxy under one guardian, brought to a `GatewayState` and kept there.

Invariants: disk is written before HAProxy is told, so a restarted HAProxy has the right state; nothing is reloaded;
clients stay connected when guardian and daemon die, in any order. The engine's lock ensures that only one daemon uses a
folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hitless.clock import Clock
from hitless.documents import replace_file, to_text
from hitless.errors import EngineError, MachineError
from hitless.gateway import guardian
from hitless.gateway.binary import alerts_in, check_configuration
from hitless.gateway.boot import BootFolder
from hitless.gateway.certificate_files import CertificateFiles
from hitless.gateway.counts import STAGE_PREFIX, Counts, GatewayTally, parse_counts, question, read_tally
from hitless.gateway.executor import Executor
from hitless.gateway.keeper import GuardianKeeper
from hitless.gateway.link import GuardianEvent
from hitless.gateway.listeners import address_of
from hitless.gateway.observe import BackendLoad, ServerLoad
from hitless.gateway.render import Layout, tuning_here
from hitless.gateway.replacement import Replacement
from hitless.gateway.runtime import RuntimeSocket, UnreachableError
from hitless.gateway.spooler import BUDGET_BYTES
from hitless.gateway.spooling import SpoolerKeeper
from hitless.gateway.state import GatewayState, SharedTls, TlsListener, shield_of
from hitless.gateway.view import ServerKey

UP_WITHIN_S = 10.0
"""HAProxy responds some 30 ms after its start; after this time it counts as failed."""

DRAIN_S = 30.0
"""Limit of waiting for a pool's requests when its servers are removed: API Gateway's 29 s, and a little."""

SPOOLER_CHECK_S = 0.5

_COUNTS = "counts.json"
_COUNTS_EVERY_S = 1.0


class Gateway:
    """Owner of RUN/gw. All methods belong to one event loop."""

    def __init__(
        self,
        run_dir: Path,
        *,
        clock: Clock,
        haproxy: str,
        stages: Sequence[str],
        pools: int = 64,
        shared: bool = False,
        tls: tuple[TlsListener, ...] = (),
        secure: SharedTls | None = None,
        thumbprint: str = "",
        drain_s: float = DRAIN_S,
        logs: Path | None = None,
        bodies: Path | None = None,
        bodies_bytes: int = BUDGET_BYTES,
        check_every_s: float = 5.0,
    ) -> None:
        """`bodies`: the spooler's folder for bodies that do not fit in memory, at most `bodies_bytes`."""
        self._layout = Layout(run_dir / "gw", logs)
        self._clock = clock
        self._haproxy = haproxy
        self._boot = BootFolder(self._layout, tuning_here())
        self._executor = Executor(RuntimeSocket(self._layout.runtime_socket), clock, str(self._layout.boot))
        self._certificates = CertificateFiles(self._layout, self._executor)
        self._keeper = GuardianKeeper(self._layout, haproxy, clock)
        folder, inner = self._layout.folder, self._layout.hop_socket
        self._spooling = SpoolerKeeper(folder, bodies or folder / "bodies", inner, bodies_bytes, clock)
        self.replacement = Replacement(self._keeper, self._spooling, self._executor, clock)
        self._state = replace(
            GatewayState.initial(stages, pools, shared=shared, tls=tls), secure=secure, thumbprint=thumbprint
        )
        self._drain_s, self._check_every_s = drain_s, check_every_s
        self._lock = asyncio.Lock()
        self._uncertain = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reading: Mapping[str, int] = {}
        self._tally = GatewayTally()
        self._tally_saved_at = float("-inf")
        self._pid: int | None = None
        self.events: asyncio.Queue[str] = asyncio.Queue()
        """One sentence for each event that no command caused."""

    @property
    def state(self) -> GatewayState:
        return self._state

    @property
    def reading(self) -> Mapping[str, int]:
        """Pool → responses that clients are still reading (see `raise_limits`). Pools without any may be missing."""
        return self._reading

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """Stage (or `SHARED`) → host and port of the listener."""
        return {stage: address_of(listener) for stage, listener in self._keeper.sockets.items()}

    @property
    def haproxy_pid(self) -> int | None:
        """The pid of the last known HAProxy."""
        return self._pid

    @property
    def guardian_pid(self) -> int | None:
        """The guardian's pid; None when it is known to be dead."""
        return self._keeper.guardian_pid

    @property
    def spooler_pid(self) -> int | None:
        """The spooler's pid; None when it is dead."""
        return self._spooling.pid

    async def start(self, sockets: Mapping[str, socket.socket], state: GatewayState | None = None) -> None:
        """Start guardian and HAProxy on these listening sockets, with that state from the first request on.

        `sockets`: stage (or `SHARED`) → socket; the gateway owns them from here. Returns when HAProxy responds. Raises
        ConflictError if a gateway is alive in this folder, or EngineError with HAProxy's message if it does not start;
        then nothing is left running.
        """
        async with self._lock:
            wanted = state or self._state
            await asyncio.to_thread(self._boot.prepare)
            await self._keeper.ensure_not_running()
            (self._layout.folder / _COUNTS).unlink(missing_ok=True)
            self._state = wanted
            self._keeper.sockets = {name: sockets[name] for name in wanted.listeners}
            try:
                await asyncio.to_thread(self._boot.write, wanted)
                self._layout.certificate_list.touch(0o600)
                await asyncio.to_thread(self._check_configuration)
                await self._spooling.ensure()
                await self._keeper.start()
                await self._converge(wanted, self._drain_s)
            except BaseException:
                await self.stop(grace_s=0)
                raise
            self._start_tasks()

    async def adopt(self) -> bool:
        """Adopt the gateway that is running in this folder: load `state` from disk and bring HAProxy to it.

        Returns False if neither a guardian nor HAProxy is alive. Raises EngineError if one is alive and cannot be
        adopted, or ConflictError if its boot files are missing. The stages are those of the
        running gateway, not the constructor's.
        """
        state = await asyncio.to_thread(self._boot.load)
        if state is None:
            await self._keeper.ensure_not_running()
        if state is None or not await self._keeper.adopt():
            return False
        self._state = state
        with contextlib.suppress(OSError):
            self._tally = read_tally((self._layout.folder / _COUNTS).read_bytes())
        await self._spooling.ensure()
        await self._converge(state, self._drain_s)
        self._start_tasks()
        return True

    async def apply(self, new: GatewayState, *, drain_s: float | None = None) -> None:
        """Apply a state: first on disk, then at HAProxy in the safe order. When this returns, it is in effect.

        Servers that are removed are drained for at most `drain_s`; then their requests are cut off. Raises EngineError
        if HAProxy rejects the change or does not come back, or MachineError if the disk is full; then disk and HAProxy
        return to the old state, HAProxy as soon as it responds. Before `start` this only sets the initial state.
        """
        async with self._lock:
            if not self._tasks:
                self._state = new
                return
            old, drain_s = self._state, self._drain_s if drain_s is None else drain_s
            if new.listeners != old.listeners or len(new.pools) != len(old.pools):
                raise ValueError("listeners and pools are fixed while the gateway runs")
            await asyncio.to_thread(self._boot.write, new)
            try:
                await self._change(old, new, drain_s)
            except BaseException as error:
                self._boot.write(old)
                self._uncertain.set()
                if isinstance(error, EngineError):
                    with contextlib.suppress(EngineError):
                        await self._converge(old, drain_s)
                raise
            self._state = new

    async def certify(self, name: str, pem: str | None) -> bool:
        """Use this certificate chain and key for new connections. False if they are in use already.

        `name` is a stage with a listener, or a host at the shared one, which may also lose its certificate (None).
        Raises EngineError if HAProxy refuses them or does not respond; then it keeps the earlier ones.
        """
        async with self._lock:
            if not self._tasks:
                await asyncio.to_thread(self._boot.prepare)
            if pem is None:
                return await self._certificates.remove(name, running=bool(self._tasks))
            return await self._certificates.put(name, pem, running=bool(self._tasks))

    async def replace_haproxy(self) -> None:
        """Start another HAProxy; the old one finishes its requests. Raises EngineError; then the old one serves on."""
        async with self._lock:
            await asyncio.to_thread(self._boot.write, self._state)  # by this version's template
            await asyncio.to_thread(self._check_configuration)
            await self.replacement.haproxy()
            await self._converge(self._state, self._drain_s)

    async def drained(self, pool: str, *, deadline_s: float, readers: bool) -> bool:
        """Wait until the pool has no running or queued request, nor a shield that may hand one to it, in two readings
        50 ms apart; False at the deadline.

        With `readers` it also waits until clients have read their responses. Before `start` nothing has a request.
        """

        def reading(backend: str) -> int:
            # Responses of a shield's requests are among those of its pool.
            return 0 if readers else self._reading.get(backend.removeprefix(shield_of("")), 0)

        if self._tasks:
            await self.replacement.earlier_haproxy_ended()
        shields = self._state.shields_before(pool)
        return not self._tasks or await self._executor.drained(pool, deadline_s, shields, reading)

    async def servers_drained(self, pool: str, keys: Collection[str], *, deadline_s: float) -> bool:
        """Wait until these servers (`ServerState.key`) of the pool have no request; False at the deadline."""
        return await self._executor.servers_drained(pool, keys, deadline_s)

    async def loads(self, pools: Collection[str]) -> Mapping[str, BackendLoad]:
        """The current load of each pool, without responses that are still being read; empty while HAProxy is down."""
        try:
            loads = await self._executor.loads(pools)
        except UnreachableError:
            return {}
        return {
            pool: BackendLoad(max(0, load.scur - self._reading.get(pool, 0)), load.qcur) for pool, load in loads.items()
        }

    async def server_loads(self, pools: Collection[str]) -> Mapping[ServerKey, ServerLoad]:
        """The current load of each worker of these pools; empty while HAProxy is down."""
        try:
            return await self._executor.server_loads(pools)
        except UnreachableError:
            return {}

    async def raise_limits(self, reading: Mapping[ServerKey, int], loads: Mapping[ServerKey, ServerLoad]) -> None:
        """Allow each server that many requests beyond its depth: responses that clients are still reading while the
        worker is free. `loads`: their load a moment ago, so that only differences are sent.
        """
        by_pool: Counter[str] = Counter()
        for (pool, _), number in reading.items():
            by_pool[pool] += number
        before, self._reading = self._reading, by_pool
        with contextlib.suppress(UnreachableError):
            await self._executor.raise_limits(self._state, reading, loads, by_pool, before)

    async def counts(self, pools: Collection[str] | None = None) -> Mapping[str, Counts]:
        """Pool → counts over restarts of HAProxy: now of these pools (None: of all). The last ones while it is down."""
        counted = await self._read_counts(pools)
        return {name: each for name, each in counted.items() if not name.startswith(STAGE_PREFIX)}

    async def stage_counts(self) -> Mapping[str, Counts]:
        """Stage → counts of its responses to clients, including 403 and 503 without a pool."""
        counted = await self._read_counts(None)
        names = {STAGE_PREFIX + stage.stage: stage.stage for stage in self._state.stages}
        return {names[name]: each for name, each in counted.items() if name in names}

    async def close(self) -> None:
        """Disconnect and leave everything running: the daemon ends, the gateway stays."""
        await self._end_tasks()
        self._save_tally()
        self._keeper.close()

    async def stop(self, *, grace_s: float = 1.0) -> None:
        """Stop HAProxy (after its requests, at most `grace_s`) and guardian, close the listeners, remove the folder."""
        await self._end_tasks()
        await self._keeper.stop(grace_s)
        await self._spooling.stop()
        await asyncio.to_thread(shutil.rmtree, self._layout.folder, ignore_errors=True)

    async def _change(self, old: GatewayState, new: GatewayState, drain_s: float) -> None:
        if not self._uncertain.is_set():
            try:
                await self._executor.run(self._executor.commands_between(old, new), drain_s)
                return
            except EngineError:
                pass  # HAProxy died, or it restarted with the new files and already has the change: compare
        await self._converge(new, drain_s)

    async def _converge(self, state: GatewayState, drain_s: float) -> bool:
        end = self._clock.monotonic() + UP_WITHIN_S
        while True:
            try:
                self._pid = await self._executor.wait_until_responding(UP_WITHIN_S)
                changed = await self._executor.reconcile(state, drain_s)
            except UnreachableError as error:
                if self._clock.monotonic() >= end:
                    message = f"{error.message}; its log: {self._log_tail()}"
                    raise EngineError(message, hint="run `hitless doctor`") from error
            else:
                self._uncertain.clear()
                return changed

    def _check_configuration(self) -> None:
        descriptors = [listener.fileno() for listener in self._keeper.sockets.values()]
        check_configuration(self._haproxy, self._layout.configuration, descriptors)

    def _start_tasks(self) -> None:
        self._tasks = [asyncio.create_task(work) for work in (self._watch(), self._repair(), self._keep_spooler())]

    async def _end_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_spooler(self) -> None:
        while True:
            await self._clock.sleep(SPOOLER_CHECK_S)
            try:
                if await self._spooling.ensure():
                    self.events.put_nowait("the spooler died and was restarted")
            except (EngineError, OSError, subprocess.SubprocessError) as error:
                self.events.put_nowait(f"cannot start a spooler: {error}")
                await self._clock.sleep(UP_WITHIN_S)

    async def _watch(self) -> None:
        async for event in self._keeper.events():
            self._on_guardian_event(event)

    def _on_guardian_event(self, event: GuardianEvent) -> None:
        if sentence := event.sentence(self._pid, self._log_tail):
            self.events.put_nowait(sentence)
        if event.event == "started":
            self._pid = event.pid
        if event.event in ("started", "guardian_replaced"):
            self._uncertain.set()

    async def _repair(self) -> None:
        """Compare HAProxy with the state and correct differences: at once after a restart, a new guardian or a failed
        change, and else every few seconds, because others may use its socket. Also writes missing boot files again.
        """
        told = ""
        while True:
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`, which loses a cancellation that comes together with the event (bpo-37658).
                async with asyncio.timeout(self._check_every_s):
                    await self._uncertain.wait()
            async with self._lock:
                if not self._boot.is_complete():
                    with contextlib.suppress(MachineError):
                        await asyncio.to_thread(self._boot.write, self._state)
                        self.events.put_nowait("boot files were missing and were written again")
                text, drain_s = "HAProxy's state was corrected", self._drain_s
                try:
                    if not self._uncertain.is_set():
                        lines = await self._executor.foreign_changes(self._state, lambda: self._reading)
                        if not lines:
                            continue
                        text, drain_s = f"somebody else changed HAProxy; corrected by {'; '.join(lines[:3])}", 5.0
                    if await self._converge(self._state, drain_s):
                        self.events.put_nowait(text)
                except EngineError as error:
                    if error.message != told:
                        self.events.put_nowait(error.message)
                    told = error.message
            if self._uncertain.is_set():
                await self._clock.sleep(1.0)

    async def _read_counts(self, pools: Collection[str] | None) -> dict[str, Counts]:
        with contextlib.suppress(UnreachableError, KeyError, ValueError):
            # From the tally before the wait: a later reading that ends first must not look like a restart.
            self._tally = self._tally.after(parse_counts(await self._executor.ask(question(pools))))
        if self._clock.monotonic() - self._tally_saved_at >= _COUNTS_EVERY_S:
            self._save_tally()
        return self._tally.totals()

    def _save_tally(self) -> None:
        self._tally_saved_at = self._clock.monotonic()
        with contextlib.suppress(OSError):
            replace_file(self._layout.folder / _COUNTS, to_text(self._tally))

    def _log_tail(self) -> str:
        try:
            log = (self._layout.folder / guardian.HAPROXY_LOG).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "none"
        return alerts_in(log[-8000:])
