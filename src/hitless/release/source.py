"""The files of a release under the names that their author knows: `app/api.py`, not the path of an artifact's tree."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TREE = re.compile(r"[^\s\"']*/trees/[0-9a-f]{64}/")
_FRAME = re.compile(r"File \"([^\"/][^\"]*)\",? [Ll]ine (\d+)")
_NODE_FRAME = re.compile(r"(?:^|[\s(])((?!node_modules/)[\w.-][^\s():]*\.[cm]?js):(\d+)", re.MULTILINE)


def in_source(text: str) -> str:
    """The text with the files of artifacts' trees relative to the service's folder."""
    return _TREE.sub("", text)


def last_place(lines: Iterable[str]) -> str:
    """` (app/api.py:3)`: the last place of the service's own code in a traceback; empty if there is none."""
    text = in_source("\n".join(lines))
    found = _FRAME.findall(text)[-1:] or _NODE_FRAME.findall(text)[:1]  # Node.js has the innermost frame first
    return f" ({found[0][0]}:{found[0][1]})" if found else ""
