"""The protocol between the coordinator of a drill and its senders.

A sender reads lines on its standard input: the plan as JSON, then `start NANOSECONDS` (monotonic), then `end N` (send
only requests numbered below N). If its input is closed, the coordinator has exited, and the sender stops. It writes
frames on its standard output: one letter, the payload's length, the payload. `R` has records, `N` a note in JSON.

A record describes one request and its result. Exactly one is written for each request that was due, unless the
sender dies. A record with the flag AMENDED revokes one that was written before.
"""

from __future__ import annotations

import struct
from enum import IntFlag, StrEnum

import msgspec

from hitless.drill.pace import Pace, Pieces

# due (µs after the start); latency from then, lag of sending, age of the connection when sent (µs); release, request,
# status, failure, flags
RECORD = struct.Struct("<QIIIIHHBB")
FRAME = struct.Struct("<cI")
RECORDS, NOTE = b"R", b"N"
MAX_U32 = 0xFFFF_FFFF


class FailureKind(StrEnum):
    """The reason why a request counts as failed: the first one that was noticed."""

    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_RESET = "connection_reset"
    UNREACHABLE = "unreachable"  # no route, the network's own time-out
    TLS_ERROR = "tls_error"
    CLOSED_EARLY = "closed_early"  # the connection ended before the first byte of a response
    TRUNCATED = "truncated"  # … after the first byte and before the last
    WRONG_LENGTH = "wrong_length"  # more bytes came than the response announced
    TIMEOUT = "timeout"
    STATUS_5XX = "status_5xx"
    MISMATCH = "mismatch"  # the release in the header is not the one in the body
    PROTOCOL_ERROR = "protocol_error"  # not HTTP
    STREAM_RESET = "stream_reset"  # HTTP/2: the server aborted or refused the request
    NOT_SENT = "not_sent"  # this machine could not send it: not the service's fault, but counted as failed


FAILURES = tuple(FailureKind)
SEVERED = frozenset({FailureKind.CONNECTION_RESET, FailureKind.CLOSED_EARLY, FailureKind.TRUNCATED})
"""What a client sees of a connection whose server dies."""
FAILURE_CODE = {failure: code for code, failure in enumerate(FAILURES, start=1)}  # 0: not failed


class Flag(IntFlag):
    """More facts about a request."""

    NEW_CONNECTION = 1  # sent on its own connection, with `Connection: close`
    REUSED = 2  # sent on a connection that had carried a response before
    SHIELDED = 4  # the live release responded for the candidate
    COMPLETE = 8  # there was a complete response, so the latency is valid
    AMENDED = 16  # revokes the last record of the same connection, because of bytes after its response


class WireRequest(msgspec.Struct, frozen=True):
    """One request as a sender needs it: the head without its connection header, and the body."""

    head: bytes
    body: bytes
    bodiless_response: bool  # HEAD: no body follows, whatever the content-length
    check_release: bool
    fresh_key: bool = False  # each one gets a new Idempotency-Key


class SenderPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A sender's instructions: send request `first` of the common schedule, then every `senders`-th one after it."""

    host: str
    addresses: tuple[tuple[str, int], ...]
    tls: bool
    requests: tuple[WireRequest, ...]
    order: tuple[int, ...]
    pieces: Pieces
    seed: int | None = None
    first: int = 0
    senders: int = 1
    new_connections_percent: float = 20.0
    connections: int = 50
    deadline_s: float = 10.0
    http2: bool = False

    @property
    def pace(self) -> Pace:
        """When each request is due."""
        return Pace(self.pieces, self.seed)

    def share(self, first: int) -> SenderPlan:
        """The plan of one of the senders."""
        return msgspec.structs.replace(self, first=first, connections=max(1, self.connections // self.senders))


class FailureSample(msgspec.Struct, frozen=True):
    """The details of one failure. `request` is the index in the plan."""

    kind: FailureKind
    request: int
    due_s: float
    reused: bool
    detail: str


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sender's message other than records: it is ready, a failure, or (at the end) its connection counts."""

    ready: bool = False
    sample: FailureSample | None = None
    counts: dict[str, int] = {}


def amendments(records: bytes) -> int:
    """How many of these records revoke an earlier one. They are not counted as requests."""
    flags = records[RECORD.size - 1 :: RECORD.size]
    return sum(1 for flag in flags if flag & Flag.AMENDED) if max(flags, default=0) >= Flag.AMENDED else 0


def frame(letter: bytes, payload: bytes) -> bytes:
    """One frame, ready to write."""
    return FRAME.pack(letter, len(payload)) + payload
