"""The retry guard: at most once, though the gateway tries again whatever the method.

The gateway retries a request whose worker died, with the same id. A worker that is given such an id refuses it (502)
when the function had timed out on it, or when it is unsafe to run twice and had begun elsewhere. An id that nobody had
begun is new to everyone, and runs.
"""

from __future__ import annotations

from typing import Final

from hitless.worker.layout import TIMED_OUT, StatsPage
from hitless.worker.request import Request

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class RetryGuard:
    """One worker's view of what the pool has begun and lost."""

    def __init__(self, page: StatsPage) -> None:
        self._page = page
        self._counts = (0, 0)
        self._lost: dict[bytes, int] = {}

    def refuses(self, entry: bytes, request: Request) -> bool:
        """Whether the request with this entry (`layout.entry_of`) must be answered 502 without being run."""
        counts = self._page.ring_counts()
        if counts != self._counts:
            self._counts, self._lost = counts, self._page.lost()
        flag = self._lost.get(entry, 0)
        if flag == TIMED_OUT:
            return True
        if is_safe(request):
            return False
        return flag != 0 or self._page.holds_id(entry)


def is_safe(request: Request) -> bool:
    """May run twice: by its method, or because its client says so with an `Idempotency-Key`."""
    if request.method in SAFE_METHODS:
        return True
    return any(len(name) == 15 and name.lower() == b"idempotency-key" for name, _ in request.headers)
