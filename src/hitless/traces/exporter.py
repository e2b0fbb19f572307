"""Sends spans to a collector by OTLP/HTTP as JSON, on the daemon's loop, from records that exist anyway.

No rollout and no request waits for it. The queue is bounded: spans beyond it, or that the collector refuses, are
dropped and counted. https://opentelemetry.io/docs/specs/otlp/#otlphttp-response: 429, 502, 503, 504 and a lost
connection are tried again, after `Retry-After` or exponential back-off with jitter; nothing else is.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import chain
from random import Random

from prometheus_client.core import CounterMetricFamily, Metric

import hitless
from hitless.clock import Clock
from hitless.rollout.record import Say
from hitless.traces.otlp import SERVER, Recorded, TraceSettings, encode

EVERY_S, LAST_TIMEOUT_S = 1.0, 1.0
MOST_REQUESTS, MOST_QUEUED = 2048, 2560
"""Spans in the queue, and in an export, beyond which none of requests are added, and none at all."""
LONGEST_PAUSE_S, LONGEST_RETRY_AFTER_S = 60.0, 600.0

Source = Callable[[], Iterable[Recorded]]


class Exporter:
    """The queue and its sender. Each of `sources` returns the spans that are new since its last call."""

    def __init__(self, settings: TraceSettings, say: Say, clock: Clock, random: Random, *sources: Source) -> None:
        self._settings, self._say, self._clock, self._random, self._sources = settings, say, clock, random, sources
        self._tls = ssl.create_default_context() if settings.url.scheme == "https" else None
        self._queue = list[Recorded]()
        self.exported = self.dropped = self._failures = 0
        self._not_before_s, self.timeout_s = float("-inf"), 10.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Export each second during the block, and once more at its end."""
        task = asyncio.create_task(self._run())
        yield
        task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_TIMEOUT_S):
                await self.step()

    async def _run(self) -> None:
        while True:
            await self.step()
            await self._clock.sleep(EVERY_S)

    async def step(self) -> None:
        """Collect what is new, then send the queue unless the collector failed a moment ago."""
        try:
            for one in chain.from_iterable(source() for source in self._sources):
                fits = len(self._queue) < (MOST_REQUESTS if one[1].kind == SERVER else MOST_QUEUED)
                self._queue.extend([one] * fits)
                self.dropped += not fits
            if self._queue and self._clock.monotonic() >= self._not_before_s:
                await self._send()
        except Exception as error:  # noqa: BLE001 - whatever a collector does, the daemon goes on
            self._failed(type(error).__name__)

    def metrics(self) -> Iterator[Metric]:
        yield CounterMetricFamily("hitless_spans_exported", "Spans that the collector accepted.", self.exported)
        yield CounterMetricFamily("hitless_spans_dropped", "Spans that the collector did not get.", self.dropped)

    async def _send(self) -> None:
        """Send the queue, and empty it unless it is to be sent again."""
        async with asyncio.timeout(self.timeout_s):
            status, retry_after = await self._post(encode(self._queue, self._settings.attributes))
        sent = len(self._queue) if 200 <= status < 300 else 0
        if status not in (429, 502, 503, 504):
            self.exported, self.dropped = self.exported + sent, self.dropped + len(self._queue) - sent
            self._queue.clear()
        if not sent:
            self._failed(f"HTTP {status}", retry_after)
        elif self._failures:
            self._say(f"traces reach {self._settings.url.hostname} again; {self.dropped} spans were lost", None)
            self._failures = 0

    def _failed(self, why: str, retry_after: str = "") -> None:
        """Wait before the next export. The first failure in a row is an event."""
        self._failures += 1
        if self._failures == 1:
            self._say(f"traces do not reach {self._settings.url.hostname} ({why}); only spans are lost", None)
        pause_s = min(LONGEST_PAUSE_S, 2.0 ** min(self._failures, 10)) * self._random.uniform(0.5, 1)
        if retry_after.isdecimal():
            pause_s = min(float(retry_after), LONGEST_RETRY_AFTER_S)
        self._not_before_s = self._clock.monotonic() + pause_s

    async def _post(self, body: bytes) -> tuple[int, str]:
        """Status and `Retry-After` of one request. Redirects are not followed: the headers may be secret."""
        url, port = self._settings.url, self._settings.url.port or (443 if self._tls else 80)
        head = f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\nuser-agent: hitless/{hitless.__version__}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self._settings.headers.items())
        reader, writer = await asyncio.open_connection(url.hostname, port, ssl=self._tls)
        try:
            writer.write(f"{head}\r\n".encode() + body)
            first, _, headers = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
        finally:
            writer.transport.abort()
        return int(first.split()[1]), http.client.parse_headers(io.BytesIO(headers)).get("retry-after", "")
