"""Starts the senders, gives them the schedule, collects their records, and counts the requests that they did not send.

If a sender dies, its share is counted as not sent. No sender outlives this process, because each one exits when its
input is closed. Ctrl-C at the terminal does not reach the senders, which have a session of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable

from hitless.documents import decode, to_text
from hitless.drill.pace import share_of
from hitless.drill.wire import FRAME, RECORD, RECORDS, FailureSample, Note, SenderPlan, amendments
from hitless.errors import MachineError

READY_DEADLINE_S = 30.0
MAX_SAMPLES = 100
RATE_OF_ONE_SENDER = 4_000
RATE_OF_ONE_HTTP2_SENDER = 400  # its framing is pure Python


def senders_for(rate_per_s: float, cpus: int, *, http2: bool = False) -> int:
    """One process per 4,000 requests a second; at most two per CPU."""
    of_one = RATE_OF_ONE_HTTP2_SENDER if http2 else RATE_OF_ONE_SENDER
    return max(1, min(-(-int(rate_per_s) // of_one), 2 * max(1, cpus)))


class SenderProcess:
    """One process, and how many requests it has accounted for."""

    def __init__(self, process: asyncio.subprocess.Process, first: int) -> None:
        self.process = process
        self.first = first
        self.records = 0
        self.ready = asyncio.Event()

    def tell(self, line: bytes) -> None:
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():
            self.process.stdin.write(line)


class Load:
    """The senders of one drill."""

    def __init__(self, plan: SenderPlan, *, on_records: Callable[[bytes], None]) -> None:
        self._plan = plan
        self._on_records = on_records
        self.senders: list[SenderProcess] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._end: int | None = None
        self.pace = plan.pace
        self.start_ns = 0
        self.counts: Counter[str] = Counter()
        self.samples: list[FailureSample] = []

    async def start(self) -> None:
        """Start the processes; the first request is due a moment after all are ready. Raises MachineError."""
        count = self._plan.senders
        for first in range(count):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hitless.processes.sender",
                "http2:Http2Client" if self._plan.http2 else "http1:Http1Client",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            sender = SenderProcess(process, first)
            self.senders.append(sender)
            self._tasks.append(asyncio.create_task(self._read(sender)))
            sender.tell(to_text(self._plan.share(first)).encode() + b"\n")
        ready = asyncio.gather(*(sender.ready.wait() for sender in self.senders))
        try:
            await asyncio.wait_for(ready, READY_DEADLINE_S)
        except TimeoutError:
            await self.stop()
            raise MachineError(
                "a sending process was not ready in time",
                hint="see its output above; is the machine busy?",
            ) from None
        if any(sender.process.returncode is not None for sender in self.senders):
            await self.stop()
            raise MachineError("a sending process ended before it began", hint="see its output above")
        self.start_ns = time.monotonic_ns() + 50_000_000
        for sender in self.senders:
            sender.tell(b"start %d\n" % self.start_ns)

    def elapsed_us(self) -> int:
        """Microseconds since the first request was due."""
        return (time.monotonic_ns() - self.start_ns) // 1000

    def end(self, n: int) -> None:
        """Send no request from number n on."""
        self._end = n
        for sender in self.senders:
            sender.tell(b"end %d\n" % n)

    async def wait(self) -> None:
        """Wait until the last request is accounted for (or its sender is dead)."""
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """Kill the processes; requests under way are not accounted for."""
        for sender in self.senders:
            if sender.process.returncode is None:
                sender.process.kill()
        await self.wait()

    def missing(self) -> int:
        """How many requests were due but have no record."""
        assert self._end is not None
        return sum(share_of(one.first, self._plan.senders, self._end) - one.records for one in self.senders)

    async def _read(self, sender: SenderProcess) -> None:
        assert sender.process.stdout is not None
        with contextlib.suppress(
            asyncio.IncompleteReadError
        ):  # end of the stream, perhaps within a frame if the sender died
            while True:
                letter, length = FRAME.unpack(await sender.process.stdout.readexactly(FRAME.size))
                payload = await sender.process.stdout.readexactly(length)
                if letter == RECORDS:
                    sender.records += len(payload) // RECORD.size - amendments(payload)
                    self._on_records(payload)
                else:
                    note = decode(payload, Note, "a sender")
                    if note.ready:
                        sender.ready.set()
                    if note.sample and len(self.samples) < MAX_SAMPLES:
                        self.samples.append(note.sample)
                    self.counts.update(note.counts)
        await sender.process.wait()
        sender.ready.set()
        assert sender.process.stdin is not None
        sender.process.stdin.close()
