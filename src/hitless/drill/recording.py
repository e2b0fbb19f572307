"""Requests out of a recording: an HTTP archive (HAR 1.2) as browsers and proxies export it.

Taken are the requests to the host that most of them went to; equal ones count as one with their number as its weight.
The host itself is not taken over, for a drill has a target of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

LEFT_OUT = frozenset({"host", "content-length", "accept-encoding", "te", "proxy-connection"})
SUFFIX = ".har"


class BadRecording(Exception):
    """Why the text is no HTTP archive."""


def requests_of(text: str, *, most_weight: int, not_taken: frozenset[str]) -> list[dict[str, Any]]:
    """The archive's requests, as documents of the form that a line of a requests file has. Raises BadRecording.

    `not_taken`: headers (in lower case) that are left out besides the host's and those of the connection.
    """
    entries = list(_entries(text))
    if not entries:
        return []
    hosts = Counter(urlsplit(str(request["url"])).netloc for request, _ in entries)
    host = hosts.most_common(1)[0][0]
    weights: Counter[str] = Counter()
    for request, status in entries:
        if urlsplit(str(request["url"])).netloc == host:
            document = _document(request, status, LEFT_OUT | not_taken)
            weights[json.dumps(document, sort_keys=True)] += 1
    return [{**json.loads(one), "weight": min(count, most_weight)} for one, count in weights.items()]


def _entries(text: str) -> Iterable[tuple[Mapping[str, Any], int]]:
    """Each request that was answered, with its answer's status."""
    try:
        entries = json.loads(text)["log"]["entries"]
        for number, entry in enumerate(entries, start=1):
            request, status = entry["request"], int((entry.get("response") or {}).get("status") or 0)
            if not isinstance(request["url"], str) or not isinstance(request["method"], str):
                raise BadRecording(f"entry {number}: the request has no URL, or no method, as a text")
            if status:
                yield request, status
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadRecording(f"not an HTTP archive ({type(error).__name__}: {error})") from error


def _document(request: Mapping[str, Any], status: int, left_out: frozenset[str]) -> dict[str, Any]:
    url = urlsplit(request["url"])
    document: dict[str, Any] = {
        "method": request["method"].upper(),
        "path": (url.path or "/") + (f"?{url.query}" if url.query else ""),
        "headers": {
            str(one["name"]): str(one["value"])
            for one in request.get("headers") or ()
            if not str(one["name"]).startswith(":") and str(one["name"]).lower() not in left_out
        },
    }
    body = (request.get("postData") or {}).get("text")
    if body:
        document["body"] = str(body)
    if 200 <= status < 500:
        document["status"] = status
    return document
