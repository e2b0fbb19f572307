"""The environment variable that has the trace id of the request in hand."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

TRACE_VARIABLE: Final = "_X_AMZN_TRACE_ID"
LONGEST_TRACE_BYTES: Final = 1024
"""Bytes of a value that fit the buffer. A longer one, which only a client can send, is set by `os.environ`."""

_TRACE_KEY: Final = TRACE_VARIABLE.encode()
_TRACE_START: Final = _TRACE_KEY + b"="


class TraceVariable:
    """Sets the trace id's variable for Python code, C code and child processes, as Lambda's runtime does.

    `os.environ[…] = …` would leak: glibc keeps every value that was ever set, 113 bytes a request, and searches them
    each time. So one buffer of ours is in the environment, and each request overwrites it.
    """

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(len(_TRACE_START) + LONGEST_TRACE_BYTES + 1)
        self._putenv = ctypes.CDLL(None).putenv
        self._putenv.argtypes = [ctypes.c_void_p]
        self._python: dict[bytes, bytes] = _table_of_environ()
        self._last: bytes | None = None

    def set(self, value: str) -> None:
        """Set the variable, whatever the handler did to it."""
        encoded = value.encode()
        if len(encoded) > LONGEST_TRACE_BYTES:
            os.environ[TRACE_VARIABLE] = value
            return
        self._buffer.value = _TRACE_START + encoded
        if self._last is None or self._python.get(_TRACE_KEY) is not self._last:  # the handler has set or removed it
            self._putenv(ctypes.addressof(self._buffer))
        self._python[_TRACE_KEY] = self._last = encoded


def _table_of_environ() -> dict[bytes, bytes]:
    """The table behind `os.environ`. Setting an item of `os.environ` would leak."""
    environ: Any = os.environ
    table: dict[bytes, bytes] = environ._data
    return table
