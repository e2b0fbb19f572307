"""The faults that a drill injects while the load runs. Each one says when the service has recovered.

Signals go only to processes that the engine's status has just named. A fault that lasts `HELD_S` undoes its change,
however it ends. To add one, add an entry to `FAULTS`.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import select
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hitless.clock import Clock
from hitless.drill.scenarios import SCENARIOS, Scenario
from hitless.drill.shipper import Shipper, stage_of
from hitless.drill.timeline import Window
from hitless.errors import ConflictError, UsageError
from hitless.store.store import Store

HELD_S = 2.0
GONE_WITHIN_S = 5.0
PAIRS = 8
CLIENTS = 200
Status = Mapping[str, Any]
Recovered = Callable[[Status], bool]


@dataclass(frozen=True, slots=True)
class FaultContext:
    """The stage of a fault, and the means to inject it. `wait_for_end` blocks and says whether the process ended."""

    shipper: Shipper
    stage: str
    send: Callable[[int, signal.Signals], None]
    clock: Clock
    window: Window
    elapsed_us: Callable[[], int]
    wait_for_end: Callable[[int], bool]


Hold = Callable[[FaultContext, Status], contextlib.AbstractContextManager[Sequence[int]]]
"""Causes a condition until its end, from the status before; gives the pids of the processes that it killed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A condition that lasts `held_s`, or a `scenario`: a release to ship. `interrupts`: a rollout that the fault
    strikes may end in any way.
    """

    name: str
    hold: Hold = lambda context, before: contextlib.nullcontext(())
    held_s: float = HELD_S
    interrupts: bool = False
    scenario: Scenario | None = None

    async def inject(self, context: FaultContext) -> Recovered:
        """Inject the fault. Returns a check: whether a later status shows that the service has recovered."""
        before = await context.shipper.status()
        with self.hold(context, before) as killed:
            if self.held_s:
                await context.clock.sleep(self.held_s)
        if "kill-daemon" in self.name:
            await context.shipper.up()
        return _whole_again(before, context.stage, killed)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have just ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_for_end(pid: int) -> bool:
    """Block until the process has closed all its connections; False if that cannot be known."""
    try:
        process = os.pidfd_open(pid)
    except (AttributeError, OSError) as error:  # AttributeError: not Linux
        return isinstance(error, ProcessLookupError)
    try:
        return bool(select.select([process], [], [], GONE_WITHIN_S)[0])
    finally:
        os.close(process)


ENGINE = {kind: f"{kind.replace('-', '_')}_pid" for kind in ("guardian", "gateway", "root-zygote", "spooler")}
ENGINE["daemon"] = "pid"
VICTIMS = ("worker", "zygote", *ENGINE)


def _pids(status: Status, stage: str) -> dict[str, list[int]]:
    """The processes that a status names, by kind."""
    functions: Sequence[Mapping[str, Any]] = stage_of(status, stage).get("functions") or ()
    return {
        "worker": [worker["pid"] for function in functions for worker in function["workers"] if worker["pid"]],
        "zygote": [function["zygote_pid"] for function in functions if function.get("zygote_pid")],
        **{kind: [status["engine"][key]] for kind, key in ENGINE.items() if status["engine"].get(key)},
    }


def _whole_again(status: Status, stage: str, killed: Sequence[int] = ()) -> Recovered:
    """The check that as many processes of each kind run as before, none of them a killed one."""
    before = _pids(status, stage)

    def recovered(status: Status) -> bool:
        now = _pids(status, stage)
        whole = all(len(now.get(kind, ())) >= len(pids) for kind, pids in before.items())
        named = {pid for pids in now.values() for pid in pids}
        return whole and not named.intersection(killed) and bool(stage_of(status, stage).get("live"))

    return recovered


def _signals(name: str, *blows: tuple[signal.Signals, str]) -> Fault:
    """Kill or stop the named processes, all at once. Stopped ones continue after `HELD_S`."""

    @contextlib.contextmanager
    def hold(context: FaultContext, before: Status) -> Iterator[Sequence[int]]:
        pids = _pids(before, context.stage)
        if missing := [victim for _, victim in blows if not pids.get(victim)]:
            raise ConflictError(f"stage {context.stage} has no running {missing[0]}", hint="see `hitless status`")
        try:
            for number, victim in blows:
                since_us = context.elapsed_us()
                context.send(pids[victim][0], number)
                if (number, victim) == SIGNALS["kill-gateway"] and context.wait_for_end(pids[victim][0]):
                    context.window.gateway_ends.append((since_us, context.elapsed_us()))
            yield [pids[victim][0] for number, victim in blows if number == signal.SIGKILL]
        finally:
            for victim in stopped:
                context.send(pids[victim][0], signal.SIGCONT)

    stopped = [victim for number, victim in blows if number == signal.SIGSTOP]
    return Fault(name, hold, HELD_S if stopped else 0, interrupts="kill-daemon" in name)


@contextlib.contextmanager
def _no_space(context: FaultContext, status: Status) -> Iterator[Sequence[int]]:
    """The daemon can write to no file, as on a full disk. Its limit is its own, so other programs are not affected."""
    if not hasattr(resource, "prlimit"):
        raise ConflictError("the limits of another process can be changed on Linux only", hint="omit full-disk")
    pid, limit = status["engine"]["pid"], resource.RLIMIT_FSIZE
    earlier = resource.prlimit(pid, limit, (0, resource.getrlimit(limit)[1]))
    try:
        yield ()
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, limit, earlier)


@contextlib.contextmanager
def _locked(context: FaultContext, _: Status) -> Iterator[Sequence[int]]:
    """Another program holds the state file."""
    with contextlib.closing(Store(context.shipper.data_dir / "state.sqlite")) as other, other.transaction():
        yield ()


def _clients(sent: bytes, *, ends: bool = False) -> Hold:
    """Many connections that send this, and then nothing."""

    @contextlib.contextmanager
    def hold(context: FaultContext, status: Status) -> Iterator[Sequence[int]]:
        url = urlsplit(stage_of(status, context.stage)["url"])
        with contextlib.ExitStack() as clients:
            for _ in range(CLIENTS):
                client = clients.enter_context(socket.create_connection((url.hostname, url.port), HELD_S))
                client.sendall(sent)
                if ends:
                    client.shutdown(socket.SHUT_WR)
            yield ()

    return hold


_GET = b"GET / HTTP/1.1\r\nHost: drill\r\n\r\n"
_VERBS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
SIGNALS = {f"{verb}-{victim}": (number, victim) for verb, number in _VERBS.items() for victim in VICTIMS}
FAULTS = {
    fault.name: fault
    for fault in (
        *(_signals(name, blow) for name, blow in SIGNALS.items()),
        _signals("hang", SIGNALS["stop-worker"]),
        Fault("full-disk", _no_space, interrupts=True),
        Fault("locked-state", _locked),
        Fault("slow-clients", _clients(_GET[:20])),
        Fault("half-closed-clients", _clients(_GET, ends=True)),
        Fault("flooding-clients", _clients(_GET * 50)),
        *(Fault(f"ship-{name}", scenario=one) for name, one in SCENARIOS.items() if one.wrapper or one.code),
    )
}
"""docs/drill.md says what each one does."""

LEFT_OUT = {
    "clock jump": "the clock belongs to the whole machine",
    "damaged state file": "the state file is the user's; a test damages a copy",
    "read-only data": "a drill that is killed would leave the folder read-only",
    "full runtime folder": "other programs use its file system; full-disk stops the daemon's own writes there too",
    "receiver of webhooks": "it is a program of its own and serves no stage",
    "log processes": "there are none: the guardian and the workers write the logs",
}
"""What a drill does not do on a user's machine, and why."""


def choose(names: Sequence[str], seed: int | None = None) -> tuple[Fault, ...]:
    """The faults of these names; `A+B` signals two processes at once, `all` is each fault once.

    With a seed, `all` is in random order and has some random pairs. Raises UsageError for an unknown name.
    """
    if names == ["all"]:
        names = [name for name in FAULTS if name != "hang"]
        if seed is not None:
            dice = random.Random(seed)
            pairs = [dice.sample(VICTIMS, 2) for _ in range(PAIRS)]
            names += ["+".join(f"{dice.choice([*_VERBS])}-{victim}" for victim in pair) for pair in pairs]
            dice.shuffle(names)
    found = []
    for name in names:
        blows = {SIGNALS[part][1]: SIGNALS[part] for part in name.split("+") if part in SIGNALS}
        if name not in FAULTS and len(blows) <= name.count("+"):
            hint = f"known: all, {', '.join(FAULTS)}; `+` joins kill- or stop- of two processes"
            raise UsageError(f"--faults: {name!r} is unknown", hint=hint)
        found.append(FAULTS.get(name) or _signals(name, *blows.values()))
    return tuple(found)
