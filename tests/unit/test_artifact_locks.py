"""Lock files as requirements, in the forms of docs.astral.sh/uv and python-poetry.org."""

from __future__ import annotations

from pathlib import Path

import pytest

from hitless.artifact.locks import read_lock
from hitless.artifact.requirements import read_requirements
from hitless.errors import BuildError

pytestmark = pytest.mark.unit

INDEX = 'source = { registry = "wheels" }\n'
UV = f"""
version = 1
[[package]]
name = "service"
version = "0.1.0"
source = {{ virtual = "." }}
dependencies = [{{ name = "a", extra = ["fast"] }}, {{ name = "win", marker = "sys_platform == 'win32'" }}]
[package.dev-dependencies]
dev = [{{ name = "tests-only" }}]
[[package]]
name = "a"
version = "1.0"
{INDEX}dependencies = [{{ name = "b" }}]
[package.optional-dependencies]
fast = [{{ name = "c" }}]
slow = [{{ name = "tests-only" }}]
[[package]]
name = "b"
version = "2.0"
{INDEX}dependencies = [{{ name = "a" }}]
[[package]]
name = "c"
version = "3.0"
{INDEX}
[[package]]
name = "win"
version = "4.0"
{INDEX}dependencies = [{{ name = "b" }}, {{ name = "helper" }}]
[[package]]
name = "helper"
version = "5.0"
{INDEX}
[[package]]
name = "tests-only"
version = "6.0"
{INDEX}
"""
POETRY = """
[[package]]
name = "a"
version = "1.0"
optional = false
{main}
[[package]]
name = "win"
version = "4.0"
optional = false
{main}
markers = "sys_platform == 'win32'"
[[package]]
name = "b"
version = "2.0"
optional = true
{main}
[[package]]
name = "tests-only"
version = "6.0"
optional = false
{dev}
"""


def test_a_uv_lock_lists_what_the_service_needs(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(UV)
    marker = " ; (sys_platform == 'win32')\n"
    assert read_lock(tmp_path) == ("uv.lock", f"a==1.0\nb==2.0\nc==3.0\nhelper==5.0{marker}win==4.0{marker}")


@pytest.mark.parametrize(
    ("main", "dev"), [('groups = ["main"]', 'groups = ["dev"]'), ('category = "main"', 'category = "dev"')]
)
def test_a_poetry_lock_lists_its_main_group(tmp_path: Path, main: str, dev: str) -> None:
    (tmp_path / "poetry.lock").write_text(POETRY.format(main=main, dev=dev))
    assert read_lock(tmp_path) == ("poetry.lock", "a==1.0\nwin==4.0 ; sys_platform == 'win32'\n")


def test_a_lock_that_names_no_groups_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "poetry.lock").write_text(POETRY.format(main="", dev=""))
    assert read_lock(tmp_path) is None
    assert read_requirements(tmp_path).required == ()


def test_requirements_txt_comes_before_a_lock(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(UV)
    read = read_requirements(tmp_path)
    assert [one.name for one in read.required] == ["a", "b", "c", "helper", "win"]
    assert all(one.pinned for one in read.required)
    assert read.generated.startswith("a==1.0\n")
    (tmp_path / "requirements.txt").write_text("x==1\n")
    assert [one.name for one in read_requirements(tmp_path).required] == ["x"]


def test_a_package_from_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(UV.replace(INDEX, 'source = { git = "https://git.example/a" }\n', 1))
    with pytest.raises(BuildError, match=r"uv\.lock: a does not come from a package index"):
        read_lock(tmp_path)
    (tmp_path / "uv.lock").write_text("not = [toml")
    with pytest.raises(BuildError, match=r"uv\.lock: cannot be read"):
        read_lock(tmp_path)
