"""Landlock: the kernel's rules by which a process gives up access to files, for itself and all that it starts.

A process in a domain can neither trace others outside it nor read their memory or environment. Source:
docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5
_MAKE_CHAR, _MAKE_REG, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 8, 1 << 9, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
LIST: Final = _READ_DIR
WRITE_FILES: Final = _WRITE_FILE | _READ_FILE | _READ_DIR | _MAKE_REG | _REMOVE_FILE | _TRUNCATE
"""Of a folder: read, write, create and remove plain files."""
SOCKETS: Final = _READ_FILE | _READ_DIR | _MAKE_SOCK | _REMOVE_FILE
ALL: Final = ((1 << 16) - 1) & ~(_MAKE_CHAR | _MAKE_BLOCK)
SCOPES: Final = 6
"""The version that restricts signals and abstract sockets."""

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_HANDLED: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_FILE_RIGHTS: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def libc() -> ctypes.CDLL:
    """The C library, whose calls set `ctypes.get_errno()`."""
    return ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """The result of a call of the C library. Raises OSError if it failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def version() -> int:
    """The kernel's version of Landlock; 0 if it has none."""
    return max(0, int(libc().syscall(_CREATE, None, 0, 1)))


def restrict(rights: Mapping[str, int]) -> None:
    """Allow only these rights on these paths and below; paths that do not exist are left out. Raises OSError.

    From version 6 on, also no signal and no connection to an abstract socket outside the domain.
    """
    found, syscall = version(), libc().syscall
    if not found:
        raise OSError(0, "the kernel has none")
    handled = _HANDLED[max(number for number in _HANDLED if number <= found)]
    scoped = 3 if found >= SCOPES else 0
    ruleset = checked(syscall(_CREATE, (ctypes.c_uint64 * 3)(handled, 0, scoped), 24 if scoped else 8, 0))
    for path, allowed in rights.items():
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            if not os.path.isdir(path):
                allowed &= _FILE_RIGHTS
            checked(syscall(_ADD, ruleset, 1, ctypes.byref(_PathBeneath(allowed & handled, place)), 0))
            os.close(place)
    checked(syscall(_RESTRICT, ruleset, 0))
    os.close(ruleset)
