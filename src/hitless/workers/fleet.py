"""All worker processes of one engine, as the daemon drives them.

They run without it: the daemon may die at any instant, and a new Fleet finds everything by locks and probes. It waits
on connections to the zygotes, which end when they die, and pings each zygote now and then, because a stopped (SIGSTOP)
or hanging one does not end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hitless.clock import Clock
from hitless.errors import ConflictError, EngineError, HitlessError
from hitless.worker.layout import StatsPage
from hitless.worker.paths import GenerationPaths, folder_name
from hitless.worker.spec import PoolSpec
from hitless.workers.channel import Channel, ZygoteMessage, responds
from hitless.workers.generation import (
    check_length,
    end_generation,
    generation_is_alive,
    generations_of,
    read_spec,
    zygote_identity,
    zygote_is_alive,
)
from hitless.workers.isolation import MODE_VARIABLE, REQUIRED, missing_measures
from hitless.workers.launch import Launched, bring_up
from hitless.workers.libraries import base_python
from hitless.workers.pool import Pool, PoolEvent, addresses, door_of
from hitless.workers.root import RootZygote
from hitless.workers.shares import Shares

PING_S = 5.0
"""The time between two pings. A reply may take as long; after two missing ones in a row the zygote is replaced."""
_REPLACED_WITHIN_S = 30.0
_RETRY_PAUSES_S = (0.0, 0.1, 1.0, 5.0)


class Fleet:
    """Starts, finds, reads and stops pools. One per engine daemon; its methods may run concurrently."""

    def __init__(
        self,
        run_dir: Path,
        *,
        clock: Clock,
        python: str | None = None,
        ping_s: float = PING_S,
        shares: Shares | None = None,
    ) -> None:
        """`shares`: new processes get their service's share of the processors."""
        self._folder = run_dir / "w"
        self._clock = clock
        self._python = python or base_python()
        self._root = RootZygote(self._folder, self._python, self._root_died)
        if shares is not None:
            self._root.share_of = shares.of
        self._ping_s = ping_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watchers: dict[tuple[str, int], tuple[asyncio.Task[None], Channel]] = {}
        self._asked = 0
        self._isolation_missing: list[str] | None = None
        self._answers: dict[int, asyncio.Future[str | None]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.pools: dict[str, Pool] = {}
        """The living pools by key, each in its current generation."""
        self.events: asyncio.Queue[PoolEvent] = asyncio.Queue()

    async def start(self) -> bool:
        """Start a root zygote unless one is alive; returns whether one was. Raises EngineError, and MachineError if
        isolation is incomplete.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.environ.get(MODE_VARIABLE) == REQUIRED:
            await self.isolation_missing()
        found = await self._root.start()
        self._tasks["pings"] = asyncio.create_task(self._ping_all())
        return found

    async def isolation_missing(self) -> list[str]:
        """The measures of isolation that this machine does not allow. Raises MachineError if all are required."""
        if self._isolation_missing is None:
            self._isolation_missing = await asyncio.to_thread(missing_measures, os.environ)
        return self._isolation_missing

    @property
    def root_pid(self) -> int:
        """The root zygote's pid, 0 if there is none."""
        return self._root.pid if self._root.alive else 0

    async def replace_root(self) -> None:
        """Start another root zygote; the pools keep running. Raises EngineError; the next start of a pool retries."""
        await self._root.stop(all_descendants=False)
        await self._restart_root()

    @property
    def compiled(self) -> bool:
        """Whether new workers run compiled modules."""
        return self._root.compiled

    async def start_pool(self, spec: PoolSpec, *, size: int | None = None, ready_timeout_s: float) -> Pool:
        """Start a pool with `size` workers (default: its maximum); returns when all are ready.

        Raises CandidateFailedError, ConflictError, EngineError.
        """
        async with self._locks[spec.key]:
            folder = self._folder / folder_name(spec.key)
            paths = GenerationPaths(folder, 1)
            if spec.key in self.pools or any(map(generation_is_alive, generations_of(folder))):
                raise ConflictError(f"pool {spec.key} is already running")
            check_length(paths, spec)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                folder.mkdir(mode=0o700)
                paths.spec.write_text(spec.to_json())
                StatsPage.create(paths.page, spec.workers)
                size = spec.workers if size is None else min(size, spec.workers)
                return await self._bring_up(spec, paths, size=size, fresh=spec.fresh, timeout_s=ready_timeout_s)
            except OSError as error:
                hint = f"check that the runtime folder {self._folder.parent} is writable and has free space"
                raise EngineError(f"cannot prepare pool {spec.key}: {error}", hint=hint) from error
            finally:
                if spec.key not in self.pools:
                    shutil.rmtree(folder, ignore_errors=True)

    async def scale(self, key: str, size: int, *, ready_timeout_s: float = 10.0) -> Pool:
        """Set the pool's number of workers; returns when they are ready. Surplus ones finish the requests they have
        received.

        The gateway must not send requests to the surplus workers any more. The returned pool may be smaller than wanted
        if the system allows no more processes. Raises EngineError; then the pool keeps its size.
        """
        async with self._locks[key]:
            pool = self._pool(key)
            before = pool.size
            try:
                trouble = await self._request_size(pool, size, ready_timeout_s)
            except TimeoutError:
                self._send_size(pool, before)
                raise EngineError(
                    f"{pool.spec.title}: {size} workers were not ready within {ready_timeout_s:g} s"
                ) from None
            if trouble is not None:
                sentence = f"{pool.spec.title}: stays at {pool.size} workers; the system allows no more: {trouble}"
                self.events.put_nowait(PoolEvent(key, sentence))
            return self.present(key)

    def present(self, key: str) -> Pool:
        """The pool at its current size, which its zygote may have changed. Raises EngineError if it is not running."""
        pool = self._pool(key)
        if len(pool.workers) != pool.size:
            paths = GenerationPaths(self._folder / folder_name(key), pool.generation)
            pool = self.pools[key] = replace(pool, workers=addresses(paths, pool.size))
        return pool

    async def _request_size(self, pool: Pool, size: int, ready_timeout_s: float) -> str | None:
        task, _ = self._watchers.get((pool.key, pool.generation), (None, None))
        if task is None or task.done():
            raise EngineError(f"{pool.spec.title} has no zygote to change its size")
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        number = self._send_size(pool, size)
        self._answers[number] = answer
        try:
            async with asyncio.timeout(ready_timeout_s):
                both: set[asyncio.Future[Any]] = {answer, task}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._answers[number]
        if not answer.done():
            raise EngineError(f"{pool.spec.title}: its zygote died while its size was changed")
        return answer.result()

    def _send_size(self, pool: Pool, size: int) -> int:
        self._asked += 1
        channel = self._watchers[pool.key, pool.generation][1]
        channel.send({"op": "scale", "size": size, "number": self._asked})
        return self._asked

    async def replace_zygote(self, key: str) -> Pool:
        """Start a new zygote and workers, on new sockets, beside the pool's present ones, which keep serving.

        Raises as start_pool does; then the pool stays as it was.
        """
        async with self._locks[key]:
            pool = self._pool(key)
            paths = GenerationPaths(self._folder / folder_name(key), pool.generation + 1)
            if any(number % 2 == paths.generation % 2 for number in pool.old_generations):
                raise ConflictError(f"generation {paths.generation - 2} of {key} must be stopped first")
            shutil.rmtree(paths.folder, ignore_errors=True)
            return await self._bring_up(
                pool.spec, paths, size=pool.size, fresh=pool.fresh, timeout_s=_REPLACED_WITHIN_S
            )

    async def stop_old_generation(self, key: str, generation: int, *, grace_s: float) -> None:
        """Stop the workers that replace_zygote left running. Idempotent."""
        async with self._locks[key]:
            pool = self.pools.get(key)
            if pool is not None and generation == pool.generation:
                raise ConflictError(f"generation {generation} of {key} is the current one")
            await self._end([GenerationPaths(self._folder / folder_name(key), generation)], key, grace_s)
            if pool is not None:
                rest = tuple(number for number in pool.old_generations if number != generation)
                self.pools[key] = replace(pool, old_generations=rest)

    async def stop_pool(self, key: str, *, grace_s: float) -> None:
        """Stop a pool: workers finish the requests they have received, then SIGKILL. Idempotent. EngineError."""
        async with self._locks[key]:
            folder = self._folder / folder_name(key)
            await self._end(generations_of(folder), key, grace_s)
            shutil.rmtree(folder, ignore_errors=True)
            self.pools.pop(key, None)
        self._locks.pop(key, None)

    async def adopt(self) -> dict[str, Pool]:
        """Find the running pools, end half-started ones and remove dead ones. Returns the living by key."""
        folders = [found for found in self._folder.iterdir() if found.is_dir()]
        await asyncio.gather(*(self._adopt_pool(folder) for folder in folders))
        return dict(self.pools)

    async def stop(self, *, force: bool = False) -> None:
        """Stop all pools and the root zygote. Requests in progress finish unless `force` is set."""
        self._cancel_tasks()
        keys = {folder: read_spec(folder) for folder in self._folder.iterdir() if folder.is_dir()}
        endings = [
            self.stop_pool(spec.key, grace_s=0.0 if force else spec.timeout_s + 1.0) if spec else self._remove(folder)
            for folder, spec in keys.items()
        ]
        failures = await asyncio.gather(*endings, return_exceptions=True)
        await self._root.stop()
        await self._stop_watching(list(self._watchers))
        if failure := next(filter(None, failures), None):
            raise failure
        shutil.rmtree(self._folder, ignore_errors=True)

    async def detach(self) -> None:
        """Disconnect and leave everything running."""
        self._cancel_tasks()
        await self._stop_watching(list(self._watchers))
        await self._root.disconnect()
        self.pools.clear()

    def _cancel_tasks(self) -> None:
        while self._tasks:
            self._tasks.popitem()[1].cancel()

    async def _ping_all(self) -> None:
        while True:
            await self._clock.sleep(self._ping_s)
            await asyncio.gather(*map(self._ping, list(self.pools.values())), return_exceptions=True)

    async def _ping(self, pool: Pool) -> None:
        """Kill a zygote that does not respond; its death then has it replaced."""
        paths = GenerationPaths(self._folder / folder_name(pool.key), pool.generation)
        for _ in range(2):
            if await responds(paths.control, self._ping_s):
                return
        identity = zygote_identity(paths)
        if identity is not None and identity[0].signal(signal.SIGKILL):
            self._report_zygote(pool, "does not respond and was killed")

    def _pool(self, key: str) -> Pool:
        if key not in self.pools:
            raise EngineError(f"pool {key} is not running")
        return self.pools[key]

    async def _bring_up(
        self, spec: PoolSpec, paths: GenerationPaths, *, size: int, fresh: bool, timeout_s: float
    ) -> Pool:
        async def launch() -> Launched:
            return await bring_up(
                self._root, spec, paths, size=size, fresh=fresh, timeout_s=timeout_s, clock=self._clock
            )

        if not self._root.alive:
            await self._restart_root()
        try:
            launched = await launch()
        except EngineError:
            if self._root.alive:
                raise
            await self._restart_root()  # the root zygote died in the meantime
            launched = await launch()
        return self._register(spec, paths, launched.channel, launched.zygote.pid, launched.fresh)

    def _register(
        self, spec: PoolSpec, paths: GenerationPaths, channel: Channel | None, zygote_pid: int, fresh: bool
    ) -> Pool:
        known = self.pools.get(spec.key)
        old = (*known.old_generations, known.generation) if known else ()
        page = known.page if known else StatsPage(paths.page, writable=False)
        workers, door = addresses(paths, page.size(paths.generation)), door_of(paths)
        pool = Pool(spec, paths.generation, workers, zygote_pid, fresh, old, door=door, page=page)
        self.pools[spec.key] = pool
        if channel is not None:
            self._watchers[spec.key, paths.generation] = asyncio.create_task(self._watch(pool, channel)), channel
        else:
            self._zygote_died(pool)
        return pool

    async def _watch(self, pool: Pool, channel: Channel) -> None:
        while (message := await channel.receive(ZygoteMessage)) is not None:
            if message.kind == "scaled":
                answer = self._answers.get(message.number)
                if answer is not None and not answer.done():
                    answer.set_result(message.trouble)
            elif message.sentence is not None:
                self.events.put_nowait(PoolEvent(pool.key, message.sentence))
        self._zygote_died(pool)

    def _zygote_died(self, pool: Pool) -> None:
        self._report_zygote(pool, "died; its workers keep serving", died=True)

    def _report_zygote(self, pool: Pool, what: str, *, died: bool = False) -> None:
        sentence = f"{pool.spec.title}: its zygote (pid {pool.zygote_pid}) {what}"
        self.events.put_nowait(PoolEvent(pool.key, sentence, died))

    async def _end(self, generations: Iterable[GenerationPaths], key: str, grace_s: float) -> None:
        found = list(generations)
        await self._stop_watching([(key, paths.generation) for paths in found])
        await asyncio.gather(*(end_generation(paths, grace_s=grace_s, clock=self._clock) for paths in found))

    async def _stop_watching(self, watched: list[tuple[str, int]]) -> None:
        found = [self._watchers.pop(name) for name in watched if name in self._watchers]
        for task, _ in found:
            task.cancel()
        await asyncio.gather(*(task for task, _ in found), return_exceptions=True)
        await asyncio.gather(*(channel.close() for _, channel in found))

    async def _adopt_pool(self, folder: Path) -> None:
        spec = read_spec(folder)
        if spec is None or spec.key in self.pools:
            return await self._remove(folder) if spec is None else None
        async with self._locks[spec.key]:
            living = []
            for paths in generations_of(folder):
                if paths.accepted.exists() and generation_is_alive(paths):
                    living.append(paths)
                else:
                    await end_generation(paths, grace_s=0, clock=self._clock)
            try:
                for paths in living:
                    await self._adopt_generation(spec, paths)
            except (OSError, ValueError):  # of another version, which this one cannot run
                await self._end(living, spec.key, 0)
                living = []
            if not living:
                shutil.rmtree(folder, ignore_errors=True)
        return None

    async def _adopt_generation(self, spec: PoolSpec, paths: GenerationPaths) -> None:
        identity = zygote_identity(paths)
        channel = None
        if zygote_is_alive(paths):
            with suppress(OSError):
                channel = await Channel.connect(paths.control)
        self._register(spec, paths, channel, identity[0].pid if identity else 0, bool(identity and identity[1]))

    async def _remove(self, folder: Path) -> None:
        for paths in generations_of(folder):
            await end_generation(paths, grace_s=0, clock=self._clock)
        shutil.rmtree(folder, ignore_errors=True)

    def _root_died(self) -> None:
        self._tasks["healing"] = asyncio.create_task(self._restart_root_and_report())

    async def _restart_root_and_report(self) -> None:
        with suppress(HitlessError):  # the next start of a pool retries and reports the error
            await self._restart_root()
        if not self._root.alive:
            return
        sentence = f"the root zygote died and was restarted (pid {self._root.pid}); no pool was affected"
        self.events.put_nowait(PoolEvent("", sentence))

    async def _restart_root(self) -> None:
        async with self._locks[""]:
            for pause_s in _RETRY_PAUSES_S:
                if self._root.alive:
                    return
                await self._clock.sleep(pause_s)
                root = RootZygote(self._folder, self._python, self._root_died)
                try:
                    await root.start()
                except HitlessError:
                    if pause_s == _RETRY_PAUSES_S[-1]:
                        raise
                else:
                    await self._root.disconnect()
                    self._root = root
