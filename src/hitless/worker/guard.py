"""The retry guard: no request runs twice unless that is safe, although the gateway retries requests of any method.

The gateway retries a request whose worker died, with the same id. A worker that gets such an id refuses it (502) if the
request ended a worker (timeout, exit, crash), if it was lost too often, or if it is unsafe to repeat and had begun
elsewhere. An id that no worker had begun is new and runs.
"""

from __future__ import annotations

import time
from typing import Final

from hitless.worker.layout import STRIKES_OUT, StatsPage
from hitless.worker.request import Request

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
VERDICT_WITHIN_S: Final = 0.1
"""A zygote records a dead worker within a millisecond or two; a zygote that is dead itself never does."""
VERDICT_EVERY_S: Final = 0.0005


class RetryGuard:
    """One worker's view of the requests that the pool has begun and lost."""

    def __init__(self, page: StatsPage) -> None:
        self._page = page
        self._counts = (0, 0)
        self._lost: dict[bytes, int] = {}

    def refuses(self, entry: bytes, request: Request) -> bool:
        """Whether the request with this entry (`layout.entry_of`) must get a 502 without being run."""
        strikes = self._strikes(entry)
        begun = strikes > 0 or self._page.holds_id(entry)
        if not begun or not is_safe(request):
            return begun
        # The gateway is faster than the zygote: wait until the zygote has recorded why the other worker died.
        end = time.monotonic() + VERDICT_WITHIN_S
        while strikes == 0 and time.monotonic() < end:
            time.sleep(VERDICT_EVERY_S)
            strikes = self._strikes(entry)
        return strikes >= STRIKES_OUT

    def _strikes(self, entry: bytes) -> int:
        counts = self._page.ring_counts()
        if counts != self._counts:
            self._counts, self._lost = counts, self._page.lost_requests()
        return self._lost.get(entry, 0) if self._lost else 0


def is_safe(request: Request) -> bool:
    """Whether the request may run twice: by its method, or because its client sent an `Idempotency-Key`.

    False if the gateway has another release that can respond instead.
    """
    if b"x-hl-once" in request.internal:
        return False
    if request.method in SAFE_METHODS:
        return True
    return any(len(name) == 15 and name.lower() == b"idempotency-key" for name, _ in request.headers)
