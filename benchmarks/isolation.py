"""The processor time that isolation costs: of deploys and of requests, with all measures and with none, in turns.

`python -m benchmarks.isolation [PAIRS]` prints each pair and the ratios. Both engines run at once on the same machine,
so that its load affects both alike.
"""

from __future__ import annotations

import http.client
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache

from benchmarks.processes import measure
from benchmarks.site import Site, plain_service
from hitless.workers.isolation import MODE_VARIABLE, OFF, REQUIRED

REQUESTS = 1000
SETTLED_S = 1.5
"""The old release's processes have ended by then; their time counts with their parent's."""


def used_s(site: Site, work: Callable[[Site], None]) -> float:
    """Processor seconds of the engine and of commands while it does that work."""

    def reading() -> float:
        commands = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(process.cpu_s for process in measure(roots)) + commands.ru_utime + commands.ru_stime

    roots = site.roots()
    before = reading()
    work(site)
    time.sleep(SETTLED_S)
    return reading() - before


def deploy(site: Site) -> None:
    """Ship a release that differs in a comment."""
    with site.handler.open("a") as file:
        file.write(f"# {time.monotonic_ns()}\n")
    site.hitless("deploy")


@cache
def address(site: Site) -> str:
    """Host and port; asked for once, because a command takes as long as hundreds of requests."""
    return site.url().removeprefix("http://")


def send_requests(site: Site) -> None:
    """Send requests one after another on one connection."""
    connection = http.client.HTTPConnection(address(site))
    for _ in range(REQUESTS):
        connection.request("GET", "/hello")
        connection.getresponse().read()
    connection.close()


def main(pairs: int) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        sites: dict[str, Site] = {}
        for mode in (REQUIRED, OFF):
            os.environ[MODE_VARIABLE] = mode
            sites[mode] = stack.enter_context(plain_service())
            address(sites[mode])
        for work in (deploy, send_requests):
            sums = dict.fromkeys(sites, 0.0)
            for number in range(pairs):
                for mode in sorted(sites, reverse=number % 2 == 0):
                    sums[mode] += (took := used_s(sites[mode], work))
                    print(f"{work.__name__} {number + 1} {mode}: {took:.2f} s", flush=True)
            print(f"{work.__name__}: isolation costs {sums[REQUIRED] / sums[OFF] - 1:+.1%} of processor time")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
