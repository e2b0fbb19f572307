"""The checks of a custom runtime's program before a release: present, executable, of the declared architecture."""

from __future__ import annotations

import struct

import pytest

from hitless.artifact.archive import ZipMember
from hitless.artifact.programs import check_program
from hitless.errors import BuildError
from hitless.service.model import Function

pytestmark = pytest.mark.unit

API = Function("api", "bootstrap", runtime="provided.al2023")


def elf(machine: int) -> bytes:
    """The first bytes of a 64-bit little-endian ELF program, man 5 elf."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, machine, 1)


def test_scripts_and_programs_of_the_declared_architecture_pass() -> None:
    for head in (b"#!/bin/sh\n", elf(62)):
        check_program(API, ZipMember("bootstrap", head, executable=True), [])


@pytest.mark.parametrize(
    ("program", "differences", "reason"),
    [
        (None, [], "bootstrap is missing: provided.al2023 starts a program of this name"),
        (ZipMember("bootstrap", elf(62)), [], "bootstrap is not executable"),
        (ZipMember("bootstrap", elf(183), executable=True), [], "is built for arm64, declared is x86_64"),
        (ZipMember("bootstrap", elf(243), executable=True), [], "is built for machine 243 of ELF"),
        (ZipMember("bootstrap", b"MZ\x90", executable=True), [], "neither a program for Linux"),
        (ZipMember("bootstrap", b"", executable=True), [], "neither a program for Linux"),
        (ZipMember("bootstrap", elf(62), executable=True), ["the system is Darwin"], "cannot run here: the system"),
    ],
)
def test_a_program_that_cannot_run_is_refused(program: ZipMember | None, differences: list[str], reason: str) -> None:
    with pytest.raises(BuildError, match=reason):
        check_program(API, program, differences)
