"""What can be said of a start that took too long: what the process wrote last, where it was, and whether the machine
had the time for it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

BUSY_LOAD_PER_CPU = 2.0
"""Where twice as many want a processor as there are, what takes three seconds alone takes six."""
LONGEST_LINE = 120
_DUMP = re.compile(r"(Current thread|Thread) 0x[0-9a-f]+ ")
_PLACE = re.compile(r'\s*File "(?P<file>.+)", line (?P<line>\d+) in ')


def last_seen(lines: Sequence[str]) -> str:
    """Of a zygote's output that ends with faulthandler's dump: `it was at app.py line 2, after it wrote «…»`."""
    dump = next((number for number, line in enumerate(lines) if _DUMP.match(line)), len(lines))
    current = next((number for number, line in enumerate(lines) if line.startswith("Current thread ")), len(lines))
    place = next(filter(None, map(_PLACE.match, lines[current:])), None)
    wrote = next((line.strip() for line in reversed(lines[:dump]) if line.strip()), "")
    wrote = "".join(letter if letter.isprintable() else " " for letter in wrote)
    at = f"it was at {place['file']} line {place['line']}" if place else ""
    after = f"it wrote «{wrote[:LONGEST_LINE]}»" if wrote else ""
    return ", after ".join(filter(None, (at, after)))


def busy(load_average: float, cpus: int) -> str:
    """The sentence where the machine is to blame as well; else nothing."""
    if load_average < BUSY_LOAD_PER_CPU * cpus:
        return ""
    return f"the machine has more to do than it can (load {load_average:.1f} on {cpus} processors)"


def not_ready(title: str, timeout_s: float, lines: Sequence[str], load_average: float, cpus: int) -> str:
    """The whole in a line."""
    parts = (f"{title} was not ready within {timeout_s:g} s", last_seen(lines), busy(load_average, cpus))
    return "; ".join((*filter(None, parts), "the stage's ready_timeout_s gives it longer"))
