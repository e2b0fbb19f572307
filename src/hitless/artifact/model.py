"""Artifacts and the platforms that they are built for, as data.

An artifact is identified by the SHA-256 of its zip's bytes and by nothing else: two builds that give the same bytes
give the same artifact.
"""

from __future__ import annotations

import platform
import sys
import sysconfig
from collections.abc import Mapping

import msgspec

from hitless.errors import BuildError
from hitless.service.model import PROGRAM_RUNTIMES

UNPACKED_LIMIT_BYTES = 262_144_000
"""Lambda's limit for the unpacked code of a function (Lambda quotas, "Deployment package")."""

DIRECT_UPLOAD_LIMIT_BYTES = 52_428_800
"""Lambda accepts a larger zip only from a bucket."""


class Artifact(msgspec.Struct, frozen=True):
    """One function package. `local`: built for this machine because the declared platform differs; never promoted."""

    digest: str
    zip_bytes: int
    unpacked_bytes: int
    local: bool
    runtime: str
    architecture: str


class BuiltArtifacts(msgspec.Struct, frozen=True):
    """The artifacts of all functions: for this machine, and for the declared platform, which a promotion needs."""

    by_function: Mapping[str, Artifact]
    portable: Mapping[str, Artifact]
    warnings: tuple[str, ...]


_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}
_FIRST_MINOR_ON_AL2023 = 12
_AL2_GLIBC, _AL2023_GLIBC = (2, 17), (2, 34)
"""Lambda's Python images: to 3.11 on Amazon Linux 2 (glibc 2.26; the nearest older wheel tag is manylinux2014), from
3.12 on Amazon Linux 2023 (glibc 2.34)."""


class Platform(msgspec.Struct, frozen=True):
    """A platform that packages are installed for. `host` is empty for a declared one, else describes this machine."""

    runtime: str
    architecture: str
    host: str = ""

    @property
    def is_program(self) -> bool:
        """Whether functions are programs of a custom runtime, which bring all that they need."""
        return self.runtime in PROGRAM_RUNTIMES

    @property
    def is_node(self) -> bool:
        return self.runtime.startswith("nodejs")

    @property
    def minor(self) -> int:
        """The runtime's minor version: 11 for python3.11."""
        head, _, minor = self.runtime.partition(".")
        if head not in ("python2", "python3") or not minor.isdecimal():
            raise BuildError(f"runtime {self.runtime!r} is not a Python of Lambda", hint="use python3.11 or newer")
        return int(minor)

    @property
    def glibc(self) -> tuple[int, int]:
        """The newest C library that wheels of a declared platform may need."""
        return _AL2_GLIBC if self.minor < _FIRST_MINOR_ON_AL2023 else _AL2023_GLIBC

    def uv_options(self) -> list[str]:
        """uv's options for this platform; none for this machine, which uv detects itself."""
        if self.host:
            return []
        machine = "aarch64" if self.architecture == "arm64" else self.architecture
        tag = f"{machine}-manylinux_{self.glibc[0]}_{self.glibc[1]}"
        return ["--python-version", f"3.{self.minor}", "--python-platform", tag]

    def __str__(self) -> str:
        declared = f"{self.runtime} on {self.architecture}"
        return f"this machine ({declared}, {self.host})" if self.host else declared


class Host(msgspec.Struct, frozen=True):
    """The properties of this machine that packages depend on. `glibc` is None if the C library is another one."""

    implementation: str
    minor: int
    system: str
    architecture: str
    glibc: tuple[int, int] | None

    @classmethod
    def here(cls) -> Host:
        """The machine and interpreter that run this code."""
        machine = platform.machine().lower()
        library, version = platform.libc_ver()
        numbers = version.split(".")
        glibc = (int(numbers[0]), int(numbers[1])) if library == "glibc" and len(numbers) > 1 else None
        return cls(
            sys.implementation.name,
            sys.version_info.minor,
            platform.system(),
            _ARCHITECTURES.get(machine, machine),
            glibc,
        )

    @property
    def platform(self) -> Platform:
        """This machine as a platform to install for."""
        return Platform(f"python3.{self.minor}", self.architecture, f"{self.implementation}-{sysconfig.get_platform()}")

    def differences(self, declared: Platform) -> list[str]:
        """How this machine differs from the declared platform, in words; empty if its packages run here."""
        found: list[str] = []
        if declared.is_program or declared.is_node:
            if self.system != "Linux":
                found.append(f"the system is {self.system}, Lambda's is Linux")
            if self.architecture != declared.architecture:
                found.append(f"the architecture is {self.architecture}, declared is {declared.architecture}")
            return found
        if (self.implementation, self.minor) != ("cpython", declared.minor):
            found.append(f"Python is {self.implementation} 3.{self.minor}, declared is {declared.runtime}")
        if self.system != "Linux":
            found.append(f"the system is {self.system}, Lambda's is Linux")
        elif self.glibc is None:
            found.append("the C library is not glibc, Lambda's is")
        elif self.glibc < declared.glibc:
            found.append("glibc is {}.{}, Lambda's is {}.{}".format(*self.glibc, *declared.glibc))
        if self.architecture != declared.architecture:
            found.append(f"the architecture is {self.architecture}, declared is {declared.architecture}")
        return found
