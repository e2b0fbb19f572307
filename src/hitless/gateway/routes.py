"""Map entries for HAProxy: routes, and how a stage's clients are identified. Pure.

A request becomes the key `dev.12|GET|/zones/x` (release, method, path). First `map_str` finds literal routes, by the
method and then by ANY; then `map_reg` tries factored expressions, most specific first, and the first match wins. That
is API Gateway's order (see `hitless.service.routes`): segments from the left, literal before `{param}` before
`{proxy+}`, a method's own route before ANY on the same resource, and back up the tree if the more specific resource
does not have the method.

Rules for the path:
- A trailing slash does not make another resource: `/zones/` is served by `/zones`, and the event's path keeps the slash
  (floci-io/floci#1557, measured on API Gateway). The root is `/` alone. To an HTTP API it is another path.
- The path is compared as it was sent: `%2F` splits no segment, `%7Aones` is not `zones`; API Gateway's REST APIs pass
  the path on still encoded (middleapi/standard-server#93). A parameter takes any bytes except a slash.
- `//` is not folded: a parameter cannot be an empty segment, so only `{proxy+}` accepts it.

An expression has no backslash, because HAProxy's command line removes them. A character in brackets quotes itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from hitless.gateway.state import RouteState
from hitless.service.event_sources import DEFAULT_PATH
from hitless.service.model import Sticky, StickyBy
from hitless.service.routes import ANY, is_literal, segments
from hitless.worker.request import INVOKE

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Requests that may run twice."""

Entry = tuple[str, str]
"""Key and value of a map."""

HTTP_API = "1"
"""The value of an entry for a route of an HTTP API."""

_LONGEST_PATTERN_BYTES = 8000
"""Limit for one line of a map file or a command (both end at tune.bufsize)."""


def literal_entries(routes: Iterable[RouteState]) -> dict[str, str]:
    """Keys for `map_str`: each literal route → pool, a REST API's with and without a trailing slash.

    Beside them `dev.12|NONE|/` for a release and `p03` for a pool with an HTTP API's routes alone: unknown paths and
    failures get that API's responses there.
    """
    entries: dict[str, str] = {}
    known = tuple(routes)
    for route in known:
        if is_literal(route.path):
            slashed = route.path if route.http_api else route.path.rstrip("/") + "/"
            for path in dict.fromkeys((route.path, slashed)):
                entries[f"{route.release_key}|{route.method}|{path}"] = route.pool
    of_rest = [route for route in known if not route.http_api and route.method != INVOKE]
    rest = {name for route in of_rest for name in (route.release_key, route.pool)}
    for route in known:
        if route.http_api and route.release_key not in rest:
            entries[f"{route.release_key}|NONE|/"] = HTTP_API
        if route.http_api and route.pool not in rest:
            entries[route.pool] = HTTP_API
    return entries


def pattern_entries(routes: Iterable[RouteState]) -> dict[str, tuple[Entry, ...]]:
    """Entries for `map_reg` by release, in their required order: by rank, and within a rank one factored expression per
    pool (routes of one rank cannot match the same path, or differ in the method).
    """
    return _ordered((route for route in routes if not is_literal(route.path)), lambda route: route.pool)


def idempotent_entries(routes: Iterable[RouteState]) -> dict[str, tuple[Entry, ...]]:
    """Entries for `map_reg` by release: `1` for a route that may run twice, `0` for another.

    Only releases with an idempotent route are included, with all their routes of unsafe methods, also literal ones: the
    first match must be the route that the request takes.
    """
    unsafe = [route for route in routes if route.method not in SAFE_METHODS]
    releases = {route.release_key for route in unsafe if route.idempotent}
    return _ordered(
        (route for route in unsafe if route.release_key in releases), lambda route: str(int(route.idempotent))
    )


def _ordered(routes: Iterable[RouteState], value: Callable[[RouteState], str]) -> dict[str, tuple[Entry, ...]]:
    def order(route: RouteState) -> tuple[str, _Rank, str, bool, str, str]:
        return route.release_key, _rank(route), value(route), route.http_api, route.method, route.path

    result: dict[str, tuple[Entry, ...]] = {}
    for key, of_release in groupby(sorted(routes, key=order), key=lambda route: route.release_key):
        entries: list[Entry] = []
        for _, group in groupby(of_release, key=lambda route: (_rank(route), value(route), route.http_api)):
            entries += [(_pattern(key, rows), value(rows[0])) for rows in _portions(group)]
        result[key] = tuple(entries)
    return result


def release_of_pattern(pattern: str) -> str:
    """`^dev[.]12[|]…` → `dev.12`, `^dev[|]…` → `dev`; empty for an expression that is not hitless's."""
    found = re.match(r"\^([A-Za-z0-9_-]+)(?:\[\.\]([0-9]+))?\[\|\]", pattern)
    return ".".join(filter(None, found.groups())) if found else ""


_Rank = tuple[tuple[int, ...], bool]


def _rank(route: RouteState) -> _Rank:
    if route.path == DEFAULT_PATH:
        return (3,), True
    return tuple(_kind(part) for part in segments(route.path)), route.method == ANY


def _kind(part: str) -> int:
    return 0 if not part.startswith("{") else 2 if part.endswith("+}") else 1


def _pattern(key: str, routes: Sequence[RouteState]) -> str:
    if routes[0].path == DEFAULT_PATH:
        return f"^{quoted(key)}[|]{_method(ANY)}/"
    rows = [(_method(route.method), *(_segment(part) for part in segments(route.path))) for route in routes]
    return f"^{quoted(key)}[|]{_factored(rows)}{'' if routes[0].http_api else '/?'}$"


def _portions(routes: Iterable[RouteState]) -> Iterator[list[RouteState]]:
    portion: list[RouteState] = []
    size = 0
    for route in routes:
        size += len(route.path) + 16
        if portion and size > _LONGEST_PATTERN_BYTES:
            yield portion
            portion, size = [], len(route.path)
        portion.append(route)
    yield portion


def _method(method: str) -> str:
    return "[A-Z]+[|]" if method == ANY else f"{method}[|]"


def _segment(part: str) -> str:
    return ("/" + quoted(part), "/[^/]+", "/.+")[_kind(part)]


def quoted(text: str) -> str:
    """An expression that matches the text itself, without a backslash."""
    return re.sub(r"[^A-Za-z0-9_:-]", lambda found: "(?![^^])." if found[0] == "^" else f"[{found[0]}]", text)


def _factored(rows: Sequence[tuple[str, ...]]) -> str:
    """One expression for all rows, with common beginnings written once; rows of one rank have one length."""
    heads: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        if row:
            heads.setdefault(row[0], []).append(row[1:])
    branches = [head + _factored(tails) for head, tails in heads.items()]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})" if branches else ""


_LINE_BEGINS = "(?s:.*?[[:cntrl:]])??"
"""The beginning of the first line that matches the rest."""
_COOKIES_BEFORE = "(?:[^[:cntrl:]]*[^!-:<-~])?"
"""Nothing, or other cookies up to a separator: any character that no name and no value may have, such as `; `."""


def sticky_entries(stage: str, sticky: Sticky | None) -> tuple[Entry, ...]:
    """The stage's entry: an expression that finds the client's key in the stage's name, a bar, and the request's
    headers. Empty if clients are identified by address, or not at all.

    `req.hdr(NAME)` takes its name from HAProxy's file, so a new name would need a restart; `map_regm` searches all
    headers, and maps change at run time. HAProxy lower-cases header names; cookie names keep their case. The expression
    has no blank, semicolon or backslash, because files or commands interpret them.
    """
    if sticky is None or sticky.by is StickyBy.ADDRESS:
        return ()
    name, line = quoted(sticky.name), f"^{quoted(stage)}[|]{_LINE_BEGINS}"
    if sticky.by is StickyBy.HEADER:
        return ((f"{line}{name}:[[:blank:]]*([^[:cntrl:]]+)", "\\1"),)
    return ((f"{line}cookie:{_COOKIES_BEFORE}{name}=([!-:<-~]+)", "\\1"),)
