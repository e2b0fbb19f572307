"""Remembers the heads of requests, because clients send the same header lines again and again.

Parsing takes ten times as long as finding a text in a dictionary. Invariants: every head in here was accepted by the
parser, in one complete request; a request is taken by it only if it is one complete request too, and differs from that
one in nothing but the id, the target and the body. Everything else goes to the parser.
"""

from __future__ import annotations

from typing import Final

from hitless.worker.request import Head, Request, RequestReader

_LONGEST_BYTES: Final = 4096
"""Longer data is not looked up."""
_MOST: Final = 200
_PATIENCE: Final = 50
"""After so many unknown heads in a row, only one in so many is looked up: each of this traffic may be different."""
_ID: Final = b"x-hl-id"
_ID_LINE: Final = "\r\nx-hl-id: "
_ID_CHARS: Final = 36
_SHAPES: Final = bytes(48 if chr(byte) in "0123456789abcdef" else byte if byte == 45 else 63 for byte in range(256))
_UUID_SHAPE: Final = b"00000000-0000-0000-0000-000000000000"
_END: Final = "\r\n\r\n"


class Heads:
    """The heads that one worker has seen."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Head, str]] = {}
        """With the target of the request."""
        self._heads: dict[str, Head] = {}
        self._key = self._head_key = self._target = ""
        self._unknown = self._body_at = 0

    def feed(self, reader: RequestReader, data: bytes) -> None:
        """Give received data to a connection's reader: without parsing if it is a request with a known head."""
        begun, self._unknown = reader.middle, self._unknown + 1
        if begun or len(data) > _LONGEST_BYTES or (self._unknown > _PATIENCE and self._unknown % _PATIENCE):
            reader.feed(data)
            return
        known = self._find(data)
        if known is not None:
            reader.ready.append(known)
            self._unknown = 0
        elif reader.feed(data) and not reader.middle and len(reader.ready) == 1:
            self._keep(reader.ready[0], len(data))

    def _find(self, data: bytes) -> Request | None:
        """The request that the data is, if its head is known. If not, `_key` is what to keep it by, or empty."""
        self._key = ""
        text = data.decode("latin-1")
        id_at = text.find(_ID_LINE) + len(_ID_LINE)
        id_end = id_at + _ID_CHARS
        request_id = data[id_at:id_end]
        if id_at < len(_ID_LINE) or request_id.translate(_SHAPES) != _UUID_SHAPE:
            return None
        body_at = len(text) if text.endswith(_END) else text.find(_END, id_end) + len(_END)
        key = text[:id_at] + text[id_end:body_at]
        known = self._known.get(key)
        if known is None:
            known = self._find_other_target(text, key, id_at, id_end, body_at)
        if known is None or body_at + known[0].body_bytes != len(data):
            return None
        head, target = known
        request = Request(head.method, target, head.headers, data[body_at:] if head.body_bytes else b"")
        internal = head.internal.copy()
        internal[_ID] = request_id
        request.head, request.internal = head, internal
        return request

    def _find_other_target(self, text: str, key: str, id_at: int, id_end: int, body_at: int) -> tuple[Head, str] | None:
        """The head with the target in this text, whose characters are those that the parser accepts."""
        target_at = text.find(" ") + 1
        target_end = text.find(" ", target_at)
        target = text[target_at:target_end]
        if not (0 < target_at < target_end < id_at and target[:1] == "/" and target.isascii() and target.isprintable()):
            return None
        self._key, self._target, self._body_at = key, target, body_at
        self._head_key = text[:target_at] + text[target_end:id_at] + text[id_end:body_at]
        head = self._heads.get(self._head_key)
        return None if head is None else self._know(head)

    def _know(self, head: Head) -> tuple[Head, str]:
        if len(self._known) >= _MOST:
            self._known.clear()
        known = self._known[self._key] = head, self._target
        return known

    def _keep(self, request: Request, data_bytes: int) -> None:
        """Keep the head of a request that `_find` did not find; the parser has read its data as this one request.

        Not if the body is encoded, or if the parser also took bytes after it.
        """
        whole = self._body_at + len(request.body) == data_bytes
        if whole and self._key.lower().count("x-hl-id") == 1 and request.keep_alive:
            if len(self._heads) >= _MOST:
                self._heads.clear()
            self._heads[self._head_key] = head = Head(request)
            self._know(head)
