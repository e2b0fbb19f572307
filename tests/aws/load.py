"""Load of many kinds of requests at once, each with its expected responses, which can change while it runs."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

from tests.support import eventually

TIMEOUT_S: Final = 60
_PAUSE_S: Final = 0.02


@dataclass(frozen=True, order=True)
class Ask:
    """A request. `key` is the API key that it sends, empty for none."""

    method: str
    path: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}" + (f" with key {self.key[:1]}…" if self.key else "")


Right = frozenset[tuple[int, str, str]]
"""Answers that are right: status, and of a 200 the function and the letter of its bytes."""


class Load:
    """Sends the requests set by `change` in turn, from a few threads. `failures` has each unexpected response."""

    def __init__(self, url: str, *, threads: int = 2) -> None:
        self._url = urlsplit(url)
        self._lock = threading.Lock()
        self._turn = 0
        self._asks: tuple[tuple[Ask, Right], ...] = ()
        self._in_hand: dict[int, int] = {}
        self._since_change: Counter[Ask] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(at,), daemon=True) for at in range(threads)]
        self.answered: Counter[Ask] = Counter()
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()

    def change(self, asks: Mapping[Ask, Right]) -> None:
        """Sends these requests from now on. Returns when no earlier request is still in flight."""
        with self._lock:
            self._turn += 1
            turn = self._turn
            self._asks = tuple(sorted(asks.items(), key=lambda item: item[0]))
            self._since_change.clear()
        eventually(lambda: self._is_all_of(turn), deadline_s=TIMEOUT_S, what="answers that were on their way")

    def complete_rounds(self, times: int = 3) -> None:
        """Waits until each request was answered this often since the change."""
        eventually(lambda: self._rounds_completed(times), deadline_s=TIMEOUT_S, what="an answer to each request")

    def _is_all_of(self, turn: int) -> bool:
        with self._lock:
            return all(at >= turn for at in self._in_hand.values())

    def _rounds_completed(self, times: int) -> bool:
        with self._lock:
            return all(self._since_change[ask] >= times for ask, _ in self._asks)

    def _run(self, at: int) -> None:
        sent = at
        while not self._stop.is_set():
            with self._lock:
                asks, turn = self._asks, self._turn
                self._in_hand[at] = turn
            if asks:
                ask, right = asks[sent % len(asks)]
                sent += 1
                given = self._answer(ask)
                with self._lock:
                    self._count(ask, right, given, turn)
            with self._lock:
                del self._in_hand[at]
            time.sleep(_PAUSE_S)

    def _count(self, ask: Ask, right: Right, given: tuple[int, str, str] | str, turn: int) -> None:
        self.answered[ask] += 1
        if turn == self._turn:
            self._since_change[ask] += 1
        if given not in right:
            self.failures.append(f"{ask}: {given} instead of {sorted(right)}")

    def _answer(self, ask: Ask) -> tuple[int, str, str] | str:
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=TIMEOUT_S)
        headers = {"Authorization": "let me", **({"x-api-key": ask.key} if ask.key else {})}
        try:
            connection.request(ask.method, f"{self._url.path}/{ask.path}", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                return answer.status, "", ""
            said = json.loads(body)
            return 200, str(said["function"]), str(said["letter"])
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()
