"""What tells clients apart at the gateway: one expression a stage, in a map of its own. Pure.

HAProxy's `req.hdr(NAME)` takes its name from the file alone, so that a new name would need a restart. `map_regm` looks
for an expression in all the request's headers and gives back what its group holds, and maps change while HAProxy runs.
The map is empty where clients are told apart by their address, or not at all.
"""

from __future__ import annotations

from hitless.gateway.routes import Entry, quoted
from hitless.service.model import Sticky, StickyBy

_LINE_BEGINS = "(?:^|[[:cntrl:]])"
_COOKIES_BEFORE = "(?:[^[:cntrl:]]*[^!-:<-~])?"
"""None, or others up to what separates cookies: anything that no name and no value may hold, such as `; `."""


def sticky_map(stage: str) -> str:
    """The file name of a stage's map."""
    return f"sticky_{stage}.map"


def sticky_entries(sticky: Sticky | None) -> tuple[Entry, ...]:
    """The map's one entry. Header names are lower case in HAProxy whatever the client sent; names of cookies are as
    they are. No blank, semicolon or backslash stands in the expression: they mean something to files or commands.
    """
    if sticky is None or sticky.by is StickyBy.ADDRESS:
        return ()
    name = quoted(sticky.name)
    if sticky.by is StickyBy.HEADER:
        return ((f"{_LINE_BEGINS}{name}:[[:blank:]]*([^[:cntrl:]]+)", "\\1"),)
    return ((f"{_LINE_BEGINS}cookie:{_COOKIES_BEFORE}{name}=([!-:<-~]+)", "\\1"),)
