"""Load on one address of the sandbox, sent by the drill's sender and counted request by request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from hitless.drill.load import Load
from hitless.drill.pace import constant, interleave
from hitless.drill.requests import DrillRequest
from hitless.drill.target import parse_target, resolve
from hitless.drill.wire import RECORD, Flag, SenderPlan

CONNECTIONS = 16
TAIL_NS = 200_000_000
"""The sender learns of the end a moment later; requests that it sent until then must count as due."""
SEED = 1
"""Requests come at random, and in the same way on both sides."""


UNSENT = -1


class Driven(Load):
    """Load on one URL. `requests` were due until `finish`; `failed` counts by the request's index, or as `UNSENT`."""

    def __init__(self, url: str, requests: Sequence[DrillRequest], rate_per_s: float) -> None:
        target = parse_target(url)
        self.requests = 0
        self.failed: Counter[int] = Counter()
        self.latencies_us: list[int] = []
        super().__init__(
            SenderPlan(
                host=target.host,
                addresses=resolve(target),
                tls=False,
                requests=tuple(one.to_wire(target.host_header) for one in requests),
                order=interleave([one.weight for one in requests]),
                pieces=constant(rate_per_s),
                seed=SEED,
                connections=CONNECTIONS,
            ),
            on_records=self._add,
        )

    async def finish(self) -> None:
        """Send no more requests; those under way are still counted."""
        self.end(max(1, self.pace.count(self.elapsed_us() * 1000 + TAIL_NS)))
        await self.wait()
        self.requests += self.missing()
        self.failed[UNSENT] += self.missing()
        self.latencies_us.sort()

    def percentile_ms(self, percent: float) -> float | None:
        """Latencies of complete responses, after `finish`."""
        if not self.latencies_us:
            return None
        index = min(len(self.latencies_us) - 1, int(len(self.latencies_us) * percent / 100))
        return round(self.latencies_us[index] / 1000, 2)

    def _add(self, records: bytes) -> None:
        for _, latency_us, _, _, _, index, _, failure, flags in RECORD.iter_unpack(records):
            if flags & Flag.AMENDED:
                self.failed[index] += 1
                continue
            self.requests += 1
            if failure:
                self.failed[index] += 1
            if flags & Flag.COMPLETE:
                self.latencies_us.append(latency_us)


async def drive_both(seconds: float, first: Driven, second: Driven) -> None:
    """Load both over the same time, so that other work of the machine disturbs both alike."""
    try:
        await asyncio.gather(first.start(), second.start())
        await asyncio.sleep(seconds)
        await asyncio.gather(first.finish(), second.finish())
    except BaseException:
        await asyncio.gather(first.stop(), second.stop())
        raise
