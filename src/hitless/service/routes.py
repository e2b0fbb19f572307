"""Chooses the route of a request by API Gateway's REST rules, as regular expressions and an order. Pure.

API Gateway chooses by the pair of resource and method: of all routes that match both, the one whose segments, from the
left, are more specific wins (literal, then `{param}`, then `{proxy+}`); on one resource a method's own route beats ANY.
It goes back up the tree: POST /jobs/x is served by ANY /{proxy+} if /jobs/{id} has only GET (measured on the real
one: ministackorg/ministack#1423, floci-io/floci#3399). `order_routes` sorts so that the first match is that route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hitless.service.event_sources import DEFAULT_PATH, Route

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
"""API Gateway's methods; ANY stands for all of them."""

ANY = "ANY"

_LAST = 3
"""The rank of the default route: behind literal segments, parameters and greedy ones."""

_LITERAL = re.compile(r"[A-Za-z0-9._:,+~()-]+")
_PARAMETER = re.compile(r"\{([A-Za-z0-9._:-]+)(\+?)\}")


def normal_path(path: str) -> str:
    """The path with a leading slash and no trailing one, as in Serverless Framework: `zones/` is `/zones`."""
    return "/" + path.removeprefix("/").removesuffix("/")


def path_fault(path: str) -> str | None:
    """Why API Gateway refuses this (normal) path, as a sentence's end, or None."""
    if path == DEFAULT_PATH:
        return None
    parts = segments(path)
    names = parameters(path)
    for part in parts:
        if not part:
            return "has an empty segment"
        if not (_LITERAL.fullmatch(part) or _PARAMETER.fullmatch(part)):
            return f"has the segment {part!r}; a segment is letters, digits and ._:,+~()- or one whole {{parameter}}"
    if any(_rank(part) == 2 for part in parts[:-1]):
        return "has a greedy parameter {…+} that is not the last segment"
    if len(set(names)) < len(names):
        return "names a parameter twice"
    return None


def segments(path: str) -> tuple[str, ...]:
    """`/zones/{area}` → ("zones", "{area}"); the root has none."""
    return tuple(path[1:].split("/")) if path != "/" else ()


def parameters(path: str) -> tuple[str, ...]:
    """The parameters' names in order: what the groups of `compile_route` stand for."""
    return tuple(found[1] for part in segments(path) if (found := _PARAMETER.fullmatch(part)))


def is_literal(path: str) -> bool:
    """Without a parameter, so that the path itself can be looked up."""
    return path != DEFAULT_PATH and not parameters(path)


def compile_route(path: str) -> str:
    """The source of an anchored-by-the-caller regular expression, one group a parameter in order.

    Works in Python (`fullmatch`) and PCRE. A group has its parameter's name if that is an identifier; that of
    `{zone-id}` has none, so readers pair `parameters(path)` with the groups instead of asking by name.
    """
    if path == DEFAULT_PATH:
        return "/.*"
    return "/" + "/".join(_pattern(part) for part in segments(path))


def order_routes(routes: Iterable[Route]) -> list[Route]:
    """Most specific first: the first whose method and path match a request is the one that API Gateway takes."""
    return sorted(routes, key=_order)


def find_conflict(routes: Sequence[Route]) -> tuple[int, int, str] | None:
    """The indexes of the first two routes that API Gateway refuses together, and why: one method and path twice, or two
    variable siblings under one parent.
    """
    seen: dict[Route, int] = {}
    variable: dict[tuple[str, ...], tuple[str, int]] = {}
    for index, route in enumerate(routes):
        if (earlier := seen.setdefault(route, index)) != index:
            return earlier, index, f"{route} is routed twice"
        parts = segments(route.path)
        for depth, part in enumerate(parts):
            if _rank(part) == 0:
                continue
            known, owner = variable.setdefault(parts[:depth], (part, index))
            if known != part:
                parent = "/" + "/".join(parts[:depth])
                reason = f"{known} and {part} are both variable parts under {parent}; API Gateway allows one"
                return owner, index, reason
    return None


def _rank(part: str) -> int:
    found = _PARAMETER.fullmatch(part)
    return 0 if found is None else 2 if found[2] else 1


def _order(route: Route) -> tuple[tuple[int, ...], bool, str, str]:
    ranks = (_LAST,) if route.path == DEFAULT_PATH else tuple(map(_rank, segments(route.path)))
    return ranks, route.method == ANY, route.path, route.method


def _pattern(part: str) -> str:
    found = _PARAMETER.fullmatch(part)
    if found is None:
        return re.escape(part)
    body = ".+" if found[2] else "[^/]+"
    return f"(?P<{found[1]}>{body})" if found[1].isidentifier() and found[1].isascii() else f"({body})"
