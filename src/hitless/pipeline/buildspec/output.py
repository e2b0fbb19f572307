"""The output of a build: secrets masked as `***`, as CodeBuild does; bounded; without terminal control characters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

SHORTEST = 3
"""Masking shorter values would only make the log unreadable."""
LONGEST_LINE_BYTES = 64 * 1024
_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text without colours, and with a mark for each control character except tabs and ends of lines."""
    return _CONTROLS.sub(lambda found: "" if len(found[0]) > 1 else "\ufffd", re.sub(r"\r\n?", "\n", text))


class Mask:
    """Masks secrets in output that comes in pieces; returns whole lines, or long parts of them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        parts = {line.strip() for secret in secrets for line in secret.splitlines()}
        words = sorted((part.encode() for part in parts if len(part) >= SHORTEST), key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, words))) if words else None
        self._longest = len(words[0]) if words else 0
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The part of the output so far that can be shown."""
        text = self._rest + data
        cut = text.rfind(b"\n") + 1
        if not cut and len(text) > LONGEST_LINE_BYTES + self._longest:
            text = self.text(text)  # a complete secret is masked before the rest is held back
            cut = len(text) - self._longest
        self._rest = text[cut:]
        return self.text(text[:cut])

    def end(self) -> bytes:
        """The rest of the output."""
        rest, self._rest = self._rest, b""
        return self.text(rest)

    def text(self, text: bytes) -> bytes:
        return self._pattern.sub(b"***", text) if self._pattern else text


class BuildOutput:
    """Masked output up to a limit. What comes after it is dropped, and the output says so once."""

    def __init__(self, mask: Mask, write: Callable[[bytes], object], limit_bytes: int) -> None:
        self._mask, self._write, self._left = mask, write, limit_bytes

    def feed(self, data: bytes) -> None:
        self._give(self._mask.feed(data))

    def end(self, reason: str | None) -> None:
        self._give(self._mask.end())
        if reason:
            self._write(f"\n[Container] {reason}\n".encode())

    def _give(self, text: bytes) -> None:
        if self._left <= 0 or not text:
            return
        self._write(text[: self._left])
        self._left -= len(text)
        if self._left <= 0:
            self._write(b"\n[Container] the output reached its limit; the rest is not kept\n")
