"""Load for the process tests: wrk in the background, its errors as numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

LONGEST_S = 300
MIX = Path(__file__).with_name("mix.lua")


@dataclass(frozen=True)
class Seen:
    """wrk's counts: requests, socket errors by kind, responses that were not 2xx or 3xx."""

    requests: int
    connect: int
    read: int
    write: int
    status: int
    timeout: int

    @property
    def failed(self) -> int:
        return self.connect + self.read + self.write + self.status + self.timeout


class Wrk:
    """`with Wrk(url) as load: …`, then `load.end()`; ends by itself after LONGEST_S, or at once on an error."""

    def __init__(
        self,
        url: str,
        *,
        connections: int = 16,
        slow_one_in: int = 200,
        closing_one_in: int = 10,
        post_one_in: int = 3,
        slow_s: float = 0.3,
    ) -> None:
        shares = {"SLOW_ONE_IN": slow_one_in, "CLOSING_ONE_IN": closing_one_in, "POST_ONE_IN": post_one_in}
        environ = {**os.environ, **{name: str(number) for name, number in shares.items()}, "SLOW_S": str(slow_s)}
        self._process = subprocess.Popen(
            ["wrk", "-t1", f"-c{connections}", f"-d{LONGEST_S}s", "--timeout", "10s", "-s", str(MIX), url],
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )

    def __enter__(self) -> Self:
        return self

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> Seen:
        """End the load (wrk prints its sums on SIGINT) and read its counts."""
        self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate(timeout=120)
        return Seen(**json.loads(output.strip().splitlines()[-1]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self._process.kill()
        self._process.communicate()
