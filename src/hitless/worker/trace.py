"""The environment variable that names the trace of the request in hand, as Lambda's runtime sets it.

`os.environ[…] = …` would leak: glibc keeps every value that was ever set, 113 bytes a request, and looks through them
each time. So one buffer of ours stands in the environment, and each request writes over it.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

NAME: Final = "_X_AMZN_TRACE_ID"
LONGEST: Final = 1024
"""Bytes of a value that fit the buffer. A longer one, which only a client can send, goes the leaking way."""

_KEY: Final = NAME.encode()
_START: Final = _KEY + b"="


class TraceVariable:
    """Sets the variable for Python code, C code and child processes alike."""

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(len(_START) + LONGEST + 1)
        self._putenv = ctypes.CDLL(None).putenv
        self._putenv.argtypes = [ctypes.c_void_p]
        self._python: dict[bytes, bytes] = _table_of_environ()
        self._last: bytes | None = None

    def set(self, value: str) -> None:
        """The environment has this value from now on, whatever the handler did to it."""
        encoded = value.encode("utf-8", "surrogateescape")
        if len(encoded) > LONGEST:
            os.environ[NAME] = value
            return
        self._buffer.value = _START + encoded
        if self._last is None or self._python.get(_KEY) is not self._last:  # somebody else has set or removed it
            self._putenv(ctypes.addressof(self._buffer))
        self._python[_KEY] = self._last = encoded


def _table_of_environ() -> dict[bytes, bytes]:
    """What `os.environ` shows: setting an item of it is what leaks."""
    environ: Any = os.environ
    table: dict[bytes, bytes] = environ._data
    return table
