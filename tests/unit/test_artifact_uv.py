"""Errors for uv's messages. The samples were written by uv 0.13."""

from __future__ import annotations

import pytest

from hitless.artifact.model import Platform
from hitless.artifact.requirements import parse_requirements
from hitless.artifact.uv import Uv, refusal
from hitless.errors import BuildError, MachineError

pytestmark = pytest.mark.unit

REQUIREMENTS = parse_requirements(
    "requirements.txt", {"requirements.txt": "other==1.0\nmissing-name==1.0\n"}.__getitem__
)
PLATFORM = Platform("python3.13", "arm64")

NOT_FOUND = """Using CPython 3.11.7 interpreter at: /usr/bin/python
error: No solution found when resolving dependencies
  cause: Because missing-name was not found in the package registry and you require missing-name==1.0, we can conclude \
that your requirements are unsatisfiable.
"""
NO_VERSION = """error: No solution found when resolving dependencies
  cause: Because there is no version of missing-name==1.0 and you require missing-name==1.0, we can conclude that your \
requirements are unsatisfiable.
"""
NO_WHEEL = """error: No solution found when resolving dependencies
  cause: Because missing-name==1.0 has no usable wheels and you require missing-name==1.0, we can conclude that your \
requirements are unsatisfiable.

hint: Wheels are required for `missing-name` because building from source is disabled for all packages
"""
NO_NETWORK = """error: Request failed after 3 retries in 4.6s
  cause: Failed to fetch: http://user:secret@127.0.0.1:9/index/missing-name/
  cause: error sending request for url (http://user:se@cret@127.0.0.1:9/index/missing-name/)
  cause: tcp connect error
"""
HASH = """error: Failed to download `missing-name==1.0`
  cause: Hash mismatch for `missing-name==1.0`
"""
DISK = """error: Failed to install: other-1.0-py3-none-any.whl
  cause: failed to write to file: No space left on device (os error 28)
"""


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (NOT_FOUND, "check the spelling"),
        (NO_VERSION, "a version that exists"),
        (NO_WHEEL, "a version with a wheel for python3.13 on arm64"),
        (HASH, "differs from the locked file"),
    ],
)
def test_a_failure_names_the_requirement_the_reason_and_the_fix(said: str, hint: str) -> None:
    error = refusal(said, REQUIREMENTS, PLATFORM, {})
    assert isinstance(error, BuildError)
    assert error.message.startswith("requirements.txt:2 (missing-name): cannot be installed for python3.13 on arm64: ")
    assert "Using CPython" not in error.message
    assert hint in error.hint


def test_an_unreachable_index_is_an_error_without_passwords() -> None:
    error = refusal(NO_NETWORK, REQUIREMENTS, PLATFORM, {})
    assert "the package index cannot be reached" in error.message
    assert "missing-name" in error.message
    assert "secret" not in str(error.to_json())
    assert "cret@" not in str(error.to_json())


def test_passwords_from_uvs_own_variables_are_not_shown() -> None:
    error = refusal("error: bad answer to hunter2", REQUIREMENTS, PLATFORM, {"UV_INDEX_MINE_PASSWORD": "hunter2"})
    assert "hunter2" not in str(error.to_json())


def test_a_full_disk_is_the_machines_fault() -> None:
    assert isinstance(refusal(DISK, REQUIREMENTS, PLATFORM, {}), MachineError)


def test_a_failure_without_output_says_so() -> None:
    assert "uv gave no reason" in refusal("", REQUIREMENTS, PLATFORM, {}).message


def test_pips_settings_are_used_if_uv_has_none() -> None:
    pip = {"PIP_INDEX_URL": "https://pip.example.org/python", "PIP_FIND_LINKS": "/a /b"}
    assert Uv(pip).settings() == {"UV_DEFAULT_INDEX": "https://pip.example.org/python", "UV_FIND_LINKS": "/a,/b"}
    own = {**pip, "UV_INDEX_URL": "https://uv.example.org/python"}
    assert "UV_DEFAULT_INDEX" not in Uv(own).settings()
