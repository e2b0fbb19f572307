"""Declared platforms against this machine."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hitless.artifact.model import Host, Platform
from hitless.errors import BuildError

pytestmark = pytest.mark.unit

HOST = Host("cpython", 11, "Linux", "x86_64", (2, 36))
DECLARED = Platform("python3.11", "x86_64")


def test_the_same_platform_has_no_differences() -> None:
    assert HOST.differences(DECLARED) == []


@pytest.mark.parametrize(
    ("host", "declared", "named"),
    [
        (HOST, Platform("python3.12", "x86_64"), ["Python is cpython 3.11, declared is python3.12"]),
        (HOST, Platform("python3.11", "arm64"), ["the architecture is x86_64, declared is arm64"]),
        (replace(HOST, implementation="pypy"), DECLARED, ["Python is pypy 3.11, declared is python3.11"]),
        (replace(HOST, system="Darwin", glibc=None), DECLARED, ["the system is Darwin, Lambda's is Linux"]),
        (replace(HOST, glibc=None), DECLARED, ["the C library is not glibc, Lambda's is"]),
        (replace(HOST, minor=12, glibc=(2, 31)), Platform("python3.12", "x86_64"), ["glibc is 2.31, Lambda's is 2.34"]),
        (
            HOST,
            Platform("python3.13", "arm64"),
            ["Python is cpython 3.11, declared is python3.13", "the architecture is x86_64, declared is arm64"],
        ),
    ],
)
def test_each_difference_between_platforms_is_described(host: Host, declared: Platform, named: list[str]) -> None:
    assert host.differences(declared) == named


def test_uv_gets_the_wheel_tags_of_lambdas_image() -> None:
    assert DECLARED.uv_options() == ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_17"]
    newer = Platform("python3.12", "arm64")
    assert newer.uv_options() == ["--python-version", "3.12", "--python-platform", "aarch64-manylinux_2_34"]


def test_uv_detects_this_machine_itself() -> None:
    assert HOST.platform.uv_options() == []
    assert HOST.platform.host.startswith("cpython-")


@pytest.mark.parametrize("runtime", ["ruby3.3", "python3.x", ""])
def test_a_runtime_other_than_python_is_an_error(runtime: str) -> None:
    with pytest.raises(BuildError, match="runtime"):
        HOST.differences(Platform(runtime, "x86_64"))
