"""The stats page: one memory-mapped file per pool, shared by its workers, its zygotes and the daemon.

Reading and writing take no system call, so a worker can count each request and the daemon can read it often.
Invariants: every field has one writer (a slot belongs to one worker process, and to its zygote for the fields that say
so; a ring belongs to one zygote); readers accept a torn reading, which is one tick old at worst.

A pool has twice as many slots as it may have workers, because a replaced zygote's workers keep serving while the next
generation starts: generation `g` uses the half `g % 2`. Both halves and both rings are in one page, so the retry guard
of a new worker also sees which requests an old one had begun.
"""

from __future__ import annotations

import mmap
import os
import sys
from enum import IntEnum
from pathlib import Path
from typing import Final

MAGIC: Final = b"HLPAGE01"
HEADER_BYTES: Final = 4096
ID_BYTES: Final = 64
_BYTE_ORDER: Final = sys.byteorder
_PADDING: Final = bytes(ID_BYTES)
RING_ENTRIES: Final = 256
RING_BYTES: Final = RING_ENTRIES * ID_BYTES
SLOT_BYTES: Final = 4096
LONGEST_ID: Final = 56
"""Bytes of a request id that fit an entry; the byte at STRIKES_AT has a lost request's strikes."""
STRIKES_AT: Final = 63

STRIKES_OUT: Final = 3
"""The number of lost runs after which a request is not run again. The gateway retries more often (`retries`): the try
after them gets a 502 without being run, because a gateway without a retry left can only close the connection.
"""
LOST: Final = 1
"""Strikes for a request whose worker was killed from outside: if it is safe to repeat, it will probably succeed."""
FATAL: Final = STRIKES_OUT
"""Strikes for a request that ended its worker (timeout, exit, crash): it would end the next worker, too."""

HELD_ABOVE_BYTES: Final = 12_000
"""A larger response may exceed the gateway's buffers; it counts as in progress until its client has read it."""

_WORKERS_AT: Final = 1  # u64 indices in the header
_RING_COUNT_AT: Final = 2  # and 3: one counter per ring
_SIZE_AT: Final = 4  # and 5: the size of the generation in that half plus one; 0 if it was never set


class SlotField(IntEnum):
    """u64 fields of a slot. RESTARTS and TIMEOUTS are the zygote's, and all of them while the slot has no process."""

    STATE = 0
    PID = 1
    STARTED = 2  # the process's start time, see process.start_time
    BUSY_SINCE = 3  # monotonic ns, 0 when idle
    START_LOGGED = 4  # the request in hand has its START line in the log file
    REQUESTS = 5
    CLASS_1XX = 6  # … up to CLASS_5XX = 10
    CLASS_2XX = 7
    CLASS_3XX = 8
    CLASS_4XX = 9
    CLASS_5XX = 10
    ERRORS = 11  # handler raised, or its result was malformed
    REFUSED = 12  # by the retry guard
    RESTARTS = 13
    TIMEOUTS = 14
    LATENCY_SUM_US = 15
    GENERATION = 16
    LARGE = 17  # responses of more than HELD_ABOVE_BYTES


class WorkerState(IntEnum):
    """The state of a slot's process. EMPTY: there is none, and none is wanted."""

    EMPTY = 0
    STARTING = 1
    READY = 2
    BACKING_OFF = 3
    GONE = 4


BUCKETS_AT: Final = 32
SUB_BITS: Final = 4
BUCKETS: Final = SLOT_BYTES // 8 - BUCKETS_AT - 32


def bucket_of(microseconds: int) -> int:
    """The log-linear bucket of a latency: exact below 16 µs, then 16 buckets an octave (a width of at most 6.25 %)."""
    shift = microseconds.bit_length() - SUB_BITS - 1
    if shift <= 0:
        return microseconds
    return min((shift << SUB_BITS) + (microseconds >> shift), BUCKETS - 1)


def bucket_bounds(index: int) -> tuple[int, int]:
    """The first and last latency in µs that `bucket_of` puts into this bucket."""
    shift = (index >> SUB_BITS) - 1
    if shift <= 0:
        return index, index
    low = ((index & 15) + 16) << shift
    return low, low + (1 << shift) - 1


def page_bytes(workers: int) -> int:
    """Size of the page of a pool with at most that many workers."""
    ids = -(-2 * workers * ID_BYTES // 4096) * 4096
    return HEADER_BYTES + 2 * RING_BYTES + ids + 2 * workers * SLOT_BYTES


class StatsPage:
    """One pool's page, mapped. Raises ValueError if the file is not a page of this version."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        with path.open("r+b" if writable else "rb") as file:
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self.map = mmap.mmap(file.fileno(), 0, access=access)
        self._header = memoryview(self.map)[:HEADER_BYTES].cast("Q")
        if self.map[:8] != MAGIC or len(self.map) != page_bytes(int(self._header[_WORKERS_AT])):
            self._header.release()
            self.map.close()
            raise ValueError(f"{path} is not a stats page of this version")
        self.workers = int(self._header[_WORKERS_AT])
        self._ids_at = HEADER_BYTES + 2 * RING_BYTES
        ids_end = self._ids_at + 2 * self.workers * ID_BYTES
        self._beginnings = memoryview(self.map)[self._ids_at : ids_end].cast("Q")[:: ID_BYTES // 8]
        self._slots_at = page_bytes(self.workers) - 2 * self.workers * SLOT_BYTES
        self._slots = memoryview(self.map)[self._slots_at :].cast("Q")

    @staticmethod
    def create(path: Path, workers: int) -> None:
        """Write an empty page (0600) for a pool of at most that many workers.

        Raises OSError if there is no room for it: a write to a mapped page without room would end the process by
        SIGBUS.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(fd, page_bytes(workers))
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(fd, 0, page_bytes(workers))
            os.pwrite(fd, MAGIC + workers.to_bytes(8, "little"), 0)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Unmap; every view must have been released."""
        self._header.release()
        self._slots.release()
        self._beginnings.release()
        self.map.close()

    def size(self, generation: int) -> int:
        """How many workers that generation wants now, as its zygote set it."""
        return min((int(self._header[_SIZE_AT + generation % 2]) or self.workers + 1) - 1, self.workers)

    def set_size(self, generation: int, size: int) -> None:
        self._header[_SIZE_AT + generation % 2] = size + 1

    def column(self, field: SlotField) -> list[int]:
        """One field of every slot, of both halves; cheap enough for many reads a second."""
        return self._slots[int(field) :: SLOT_BYTES // 8].tolist()

    def slot_index(self, generation: int, worker: int) -> int:
        """The slot of worker `worker` of that generation."""
        return generation % 2 * self.workers + worker

    def slot(self, index: int) -> memoryview[int]:
        """The u64 fields of a slot, see SlotField; the latency buckets begin at BUCKETS_AT."""
        start = self._slots_at + index * SLOT_BYTES
        with memoryview(self.map) as whole, whole[start : start + SLOT_BYTES] as part:
            return part.cast("Q")

    def write_id(self, index: int, entry: bytes) -> None:
        """Put a request's entry (see `entry_of`) into a slot's place in the id table."""
        start = self._ids_at + index * ID_BYTES
        self.map[start : start + ID_BYTES] = entry

    def read_id(self, index: int) -> bytes:
        """The entry of the slot's current or last request."""
        start = self._ids_at + index * ID_BYTES
        return bytes(self.map[start : start + ID_BYTES])

    def holds_id(self, entry: bytes) -> bool:
        """Whether the request is any slot's current or last one."""
        # A search in the bytes takes 1,100 instructions a slot, a comparison of the first eight bytes 60.
        begins: list[int] = self._beginnings.tolist()
        first = int.from_bytes(entry[:8], _BYTE_ORDER)
        return first in begins and any(self.read_id(index) == entry for index in range(len(begins)))

    def ring_counts(self) -> tuple[int, int]:
        """How many ids were added to each ring so far; a change means that there are new ones."""
        return self._header[_RING_COUNT_AT], self._header[_RING_COUNT_AT + 1]

    def ring_add(self, generation: int, entry: bytes, strikes: int) -> None:
        """Record a lost request. The entry is complete before the count includes it."""
        ring = generation % 2
        count = int(self._header[_RING_COUNT_AT + ring])
        start = HEADER_BYTES + ring * RING_BYTES + count % RING_ENTRIES * ID_BYTES
        self.map[start : start + ID_BYTES] = entry[:STRIKES_AT] + bytes([strikes])
        self._header[_RING_COUNT_AT + ring] = count + 1

    def lost_requests(self) -> dict[bytes, int]:
        """Every id in the rings, as `entry_of` writes it, with the sum of its strikes."""
        found: dict[bytes, int] = {}
        for ring, count in enumerate(self.ring_counts()):
            for place in range(min(count, RING_ENTRIES)):
                start = HEADER_BYTES + ring * RING_BYTES + place * ID_BYTES
                entry = bytes(self.map[start : start + ID_BYTES])
                key = entry[:STRIKES_AT] + b"\0"
                found[key] = found.get(key, 0) + entry[STRIKES_AT]
        return found


def entry_of(request_id: bytes) -> bytes:
    """A request id as the page keeps it: at most LONGEST_ID bytes, padded to ID_BYTES."""
    return (request_id[:LONGEST_ID] + _PADDING)[:ID_BYTES]


def id_of(entry: bytes) -> str:
    """The request id that `entry_of` wrote."""
    return entry[:LONGEST_ID].rstrip(b"\0").decode("latin-1")
