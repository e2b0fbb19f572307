"""What the coordinator of a drill and its senders say to each other.

To a sender, on its standard input, lines: the plan as JSON, then `start NANOSECONDS` (monotonic), then `end N` (send no
request from n = N on). Its input's end means that the coordinator is gone: it stops. From a sender, on its standard
output, frames: one letter, the payload's length, the payload. `R` is a run of records, `N` a note in JSON.

A record is the whole of what is known about one request. Exactly one is written for each request that was due, unless
the sender dies; one with the flag AMENDED takes an answer back that was written before.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import asdict, dataclass
from enum import IntFlag, StrEnum
from typing import Any

# due (µs after the start), latency from then (µs), lag of sending (µs), release, request, status, failure, flags
RECORD = struct.Struct("<QIIIHHBB")
FRAME = struct.Struct("<cI")
RECORDS, NOTE = b"R", b"N"
MAX_U32 = 0xFFFF_FFFF


class Failure(StrEnum):
    """Why a request counts as failed. The first that applies, in the order of what was noticed."""

    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_RESET = "connection_reset"
    UNREACHABLE = "unreachable"  # no route, the network's own time-out
    TLS_ERROR = "tls_error"
    CLOSED_EARLY = "closed_early"  # the connection ended before the first byte of an answer
    TRUNCATED = "truncated"  # … after the first byte and before the last
    WRONG_LENGTH = "wrong_length"  # more came than the answer said
    TIMEOUT = "timeout"
    STATUS_5XX = "status_5xx"
    MISMATCH = "mismatch"  # the release in the header is not the one in the body
    PROTOCOL_ERROR = "protocol_error"  # not HTTP
    STREAM_RESET = "stream_reset"  # HTTP/2: the server gave the request up, or refused it
    NOT_SENT = "not_sent"  # this machine could not send it: the generator's fault, and failed all the same


FAILURES = tuple(Failure)
FAILURE_CODE = {failure: code for code, failure in enumerate(FAILURES, start=1)}  # 0: not failed


class Flag(IntFlag):
    """What else is known about a request."""

    NEW_CONNECTION = 1  # sent on a connection of its own, with `Connection: close`
    REUSED = 2  # sent on a connection that had carried an answer before
    SHIELDED = 4  # the live release answered for the candidate
    COMPLETE = 8  # a whole HTTP answer came, so the latency means something
    AMENDED = 16  # takes back the last record of the same connection: what came after its answer condemns it


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One request as a sender needs it: the head without its connection header, and the body."""

    head: bytes
    body: bytes
    bodiless_answer: bool  # HEAD: the answer's length is not that of a body that follows
    check_release: bool
    fresh_key: bool = False  # each one gets an Idempotency-Key of its own


@dataclass(frozen=True, slots=True)
class SenderPlan:
    """All that one sender needs. It sends the requests first, first + stride, … of the common schedule."""

    host: str
    addresses: tuple[tuple[str, int], ...]
    tls: bool
    requests: tuple[WireRequest, ...]
    order: tuple[int, ...]
    pace: dict[str, Any]  # of `Pace.to_json`
    first: int
    stride: int
    new_connections_percent: float
    connections: int
    deadline_s: float
    http2: bool = False

    def to_line(self) -> bytes:
        """The plan as one line of JSON."""
        document = asdict(self)
        for request in document["requests"]:
            request["head"] = base64.b64encode(request["head"]).decode()
            request["body"] = base64.b64encode(request["body"]).decode()
        return json.dumps(document).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> SenderPlan:
        """The inverse of `to_line`."""
        document: dict[str, Any] = json.loads(line)
        requests = tuple(
            WireRequest(**{**one, "head": base64.b64decode(one["head"]), "body": base64.b64decode(one["body"])})
            for one in document["requests"]
        )
        addresses = tuple((str(ip), int(port)) for ip, port in document["addresses"])
        return cls(**{**document, "requests": requests, "addresses": addresses, "order": tuple(document["order"])})


def frame(letter: bytes, payload: bytes) -> bytes:
    """One frame, ready to write."""
    return FRAME.pack(letter, len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into frames, however it was chopped up on the way."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The frames that are complete now, as (letter, payload)."""
        self._pending += data
        frames: list[tuple[bytes, bytes]] = []
        at = 0
        while len(self._pending) - at >= FRAME.size:
            letter, length = FRAME.unpack_from(self._pending, at)
            end = at + FRAME.size + length
            if len(self._pending) < end:
                break
            frames.append((letter, bytes(self._pending[at + FRAME.size : end])))
            at = end
        del self._pending[:at]
        return frames
