"""Records the result of each request in a sender, and makes idempotency keys that are never used twice."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from hitless.drill.response import Response
from hitless.drill.wire import FAILURE_CODE, MAX_U32, RECORD, FailureKind, FailureSample, Flag, Note

MAX_SAMPLES = 5  # per kind of failure


class RecordSink(Protocol):
    """Where records and notes go."""

    def record(self, record: bytes) -> None: ...
    def note(self, note: Note) -> None: ...


@dataclass(slots=True)
class SentRequest:
    """One request under way: its number, its index in the plan, and its instants (monotonic nanoseconds)."""

    n: int = -1
    index: int = 0
    due_ns: int = 0
    sent_ns: int = 0
    dialled_ns: int = 0  # its connection
    done_ns: int = 0


class Recorder:
    """Writes records and a few samples of each kind of failure. `start_ns` is the origin of all instants."""

    def __init__(self, output: RecordSink, start_ns: int) -> None:
        self._output = output
        self._start_ns = start_ns
        self._samples: Counter[str] = Counter()

    def record(
        self, sent: SentRequest, response: Response, failure: FailureKind | None, *, own: bool, reused: bool,
        complete: bool, amended: bool = False,
    ) -> None:  # fmt: skip
        """Write the record of a request, or one that revokes it (`amended`). `own`: it had its own connection."""
        release = response.release
        flags = (
            own * Flag.NEW_CONNECTION.value
            | reused * Flag.REUSED.value
            | response.shielded * Flag.SHIELDED.value
            | complete * Flag.COMPLETE.value
            | amended * Flag.AMENDED.value
        )
        self._output.record(
            RECORD.pack(
                (sent.due_ns - self._start_ns) // 1000,
                min(MAX_U32, (sent.done_ns - sent.due_ns) // 1000),
                min(MAX_U32, (sent.sent_ns - sent.due_ns) // 1000),
                min(MAX_U32, max(0, sent.sent_ns - sent.dialled_ns) // 1000),
                int(release) if release.isdigit() and len(release) < 10 else 0,
                sent.index,
                response.status,
                FAILURE_CODE[failure] if failure else 0,
                flags,
            )
        )

    def sample(self, sent: SentRequest, failure: FailureKind, detail: str, *, reused: bool) -> None:
        """Describe a failure for people; only the first few of a kind."""
        self._samples[failure] += 1
        if self._samples[failure] <= MAX_SAMPLES:
            due_s = (sent.due_ns - self._start_ns) / 1e9
            sample = FailureSample(failure, sent.index, due_s, reused, detail[:200])
            self._output.note(Note(sample=sample))


def idempotency_keys() -> Iterator[bytes]:
    """Idempotency keys, each a new one: 16 random hexadecimal digits for the process, and a number."""
    prefix = os.urandom(8).hex().encode()
    return (b"drill-%s-%d" % (prefix, number) for number in itertools.count(1))
