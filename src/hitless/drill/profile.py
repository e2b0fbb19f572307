"""How the rate changes during a drill, as a person writes it: `ramp:50:3000`, `step:50:3000@10-40`."""

from __future__ import annotations

import re

from hitless.drill.pace import MAX_RATE_PER_S, Piece, Pieces
from hitless.errors import UsageError

EXAMPLES = "ramp:50:3000 (over the whole drill), ramp:50:3000@5-25, step:50:3000@10, step:50:3000@10-40"
_NUMBER = r"\d+(?:\.\d{1,6})?"
_FORM = re.compile(
    rf"(?P<kind>ramp|step):(?P<low>{_NUMBER}):(?P<high>{_NUMBER})(?:@(?P<start>{_NUMBER})(?:-(?P<end>{_NUMBER}))?)?",
    re.ASCII,
)


def parse_profile(text: str, duration_s: float) -> Pieces:
    """The pieces of a drill of that length. Raises UsageError.

    `ramp:A:B@S-E`: A requests a second until S seconds, then evenly changing, B from E on; without instants from the
    start to the end. `step:A:B@S`: A until S, then B at once; with `-E`, A again from E on.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise _bad(text, "is not a profile")
    low, high = float(form["low"]), float(form["high"])
    for rate in (low, high):
        if not 0 < rate <= MAX_RATE_PER_S:
            raise _bad(text, f"{rate:g} requests a second are not above 0 and at most {MAX_RATE_PER_S}")
    start_s = float(form["start"]) if form["start"] else None
    end_s = float(form["end"]) if form["end"] else None
    if start_s is not None and not start_s < duration_s:
        raise _bad(text, f"begins at {start_s:g} s, and the drill lasts {duration_s:g} s")
    if end_s is not None and not (start_s or 0.0) < end_s <= duration_s:
        raise _bad(text, f"ends at {end_s:g} s, which is not between its start and the drill's end, {duration_s:g} s")
    if form["kind"] == "ramp":
        return _ramp(low, high, start_s or 0.0, duration_s if end_s is None else end_s)
    if start_s is None:
        raise _bad(text, "does not say when the rate changes")
    return _step(low, high, start_s, end_s)


def _ramp(low: float, high: float, start_s: float, end_s: float) -> Pieces:
    slope = Piece(start_s, low, high, end_s - start_s)
    return (Piece(0.0, low, low), slope) if start_s else (slope,)


def _step(low: float, high: float, start_s: float, end_s: float | None) -> Pieces:
    before, after = Piece(0.0, low, low), Piece(start_s, high, high)
    pieces = (before, after) if start_s else (after,)
    return pieces if end_s is None else (*pieces, Piece(end_s, low, low))


def _bad(text: str, why: str) -> UsageError:
    return UsageError(f"--profile {text}: {why}", hint=f"write one such as {EXAMPLES}")
