"""A filter of system calls: those that no handler needs, and in which most holes of the kernel were found, fail.

Numbers are of the kernel's `asm/unistd_64.h` and `asm-generic/unistd.h`; the program is classic BPF (seccomp(2)). The
kernel remembers which calls always pass, so that they cost nothing from Linux 5.11 on.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from hitless.worker.landlock import checked, libc

_EVERYWHERE: Final = (*range(425, 434), 438, 442, 443)  # io_uring, open_tree to fspick, pidfd_getfd, mount_setattr, …
_CALLS: Final = {
    # architecture, seccomp; ptrace, mount, umount2, pivot_root, swapon, swapoff, reboot, init_module, finit_module,
    # delete_module, kexec_load, kexec_file_load, process_vm_readv, process_vm_writev, bpf, perf_event_open, keyctl,
    # add_key, request_key, userfaultfd, unshare, setns, open_by_handle_at, acct, quotactl, kcmp
    "x86_64": (0xC000003E, 317, 101, 165, 166, 155, 167, 168, 169, 175, 313, 176, 246, 320, 310, 311, 321, 298, 250,
               248, 249, 323, 272, 308, 304, 163, 179, 312),
    "aarch64": (0xC00000B7, 277, 117, 40, 39, 41, 224, 225, 142, 105, 273, 106, 104, 294, 270, 271, 280, 241, 219,
                217, 218, 282, 97, 268, 265, 89, 60, 272),
}  # fmt: skip
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN, _PASS, _EPERM = 0x20, 0x15, 0x35, 0x06, 0x7FFF0000, 0x00050001
_X32: Final = 0x40000000


def deny_calls() -> None:
    """Let these calls, and those of other architectures, fail with EPERM. Needs `no_new_privs`. Raises OSError."""
    machine = os.uname().machine
    if machine not in _CALLS:
        raise OSError(0, f"it does not know {machine}")
    architecture, seccomp, *denied = _CALLS[machine]
    rules = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _EPERM), (_LOAD, 0, 0, 0)]
    rules += [(_IF_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _EPERM)]
    for number in (*denied, *_EVERYWHERE):
        rules += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM)]
    rules.append((_RETURN, 0, 0, _PASS))
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    described = struct.pack("HP", len(rules), ctypes.addressof(program))
    checked(libc().syscall(seccomp, 1, 4, described))  # a filter, without the mitigations that cost time
