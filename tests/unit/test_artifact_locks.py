"""Lock files as requirements, in the forms of docs.astral.sh/uv, python-poetry.org and pipenv.pypa.io."""

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
POETRY_1_8 = """
[[package]]
name = "a"
version = "1.0"
[package.dependencies]
B = ">=1"
c = {version = "*", optional = true, markers = "extra == \\"fast\\""}
slow = {version = "*", optional = true}
win = [{version = "*", markers = "sys_platform == \\"win32\\""}]
[package.extras]
fast = ["C (>=1)"]
all = ["C (>=1)", "slow"]
[[package]]
name = "b"
version = "2.0"
[package.dependencies]
a = "*"
[[package]]
name = "c"
version = "3.0"
[[package]]
name = "win"
version = "4.0"
[[package]]
name = "slow"
version = "5.0"
[[package]]
name = "tests-only"
version = "6.0"
"""
PYPROJECT = """
[tool.poetry.dependencies]
python = "^3.11"
A = {version = "^1", extras = ["fast"]}
slow = {version = "*", optional = true}
[tool.poetry.group.dev.dependencies]
tests-only = "*"
"""
PIPFILE = """{
"_meta": {"sources": [{"name": "index"}]},
"default": {
  "flask": {"version": "==1.0", "hashes": ["sha256:00"], "index": "index"},
  "win": {"version": "==4.0", "markers": "sys_platform == 'win32'"}
},
"develop": {"tests-only": {"version": "==6.0"}}
}"""


def test_requirements_are_read_from_a_uv_lock(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(UV)
    marker = " ; (sys_platform == 'win32')\n"
    assert read_lock(tmp_path) == ("uv.lock", f"a==1.0\nb==2.0\nc==3.0\nhelper==5.0{marker}win==4.0{marker}")


@pytest.mark.parametrize(
    ("main", "dev"), [('groups = ["main"]', 'groups = ["dev"]'), ('category = "main"', 'category = "dev"')]
)
def test_requirements_are_read_from_a_poetry_locks_main_group(tmp_path: Path, main: str, dev: str) -> None:
    (tmp_path / "poetry.lock").write_text(POETRY.format(main=main, dev=dev))
    assert read_lock(tmp_path) == ("poetry.lock", "a==1.0\nwin==4.0 ; sys_platform == 'win32'\n")


def test_a_poetry_lock_without_groups_gives_the_main_dependencies_and_their_dependencies(tmp_path: Path) -> None:
    (tmp_path / "poetry.lock").write_text(POETRY_1_8)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    lines = 'a==1.0\nb==2.0\nc==3.0 ; (python_version >= "3")\nwin==4.0 ; (sys_platform == "win32")\n'
    assert read_lock(tmp_path) == ("poetry.lock", lines)


def test_requirements_are_read_from_a_pipfile_locks_default_packages(tmp_path: Path) -> None:
    (tmp_path / "Pipfile.lock").write_text(PIPFILE)
    assert read_lock(tmp_path) == ("Pipfile.lock", "flask==1.0\nwin==4.0 ; sys_platform == 'win32'\n")
    for elsewhere in ('"git": "https://git.example/flask"', '"path": ".", "editable": true'):
        (tmp_path / "Pipfile.lock").write_text(PIPFILE.replace('"version": "==1.0"', elsewhere))
        with pytest.raises(BuildError, match=r"Pipfile\.lock: flask does not come from a package index"):
            read_lock(tmp_path)


def test_a_lock_that_names_no_groups_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "poetry.lock").write_text(POETRY.format(main="", dev=""))
    assert read_lock(tmp_path) is None
    assert read_requirements(tmp_path).required == ()


def test_requirements_txt_takes_precedence_over_a_lock(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(UV)
    read = read_requirements(tmp_path)
    assert [one.name for one in read.required] == ["a", "b", "c", "helper", "win"]
    assert all(one.pinned for one in read.required)
    assert read.generated.startswith("a==1.0\n")
    (tmp_path / "requirements.txt").write_text("x==1\n")
    assert [one.name for one in read_requirements(tmp_path).required] == ["x"]


def test_a_locked_package_from_outside_the_registry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(UV.replace(INDEX, 'source = { git = "https://git.example/a" }\n', 1))
    with pytest.raises(BuildError, match=r"uv\.lock: a does not come from a package index"):
        read_lock(tmp_path)
    (tmp_path / "uv.lock").write_text("not = [toml")
    with pytest.raises(BuildError, match=r"uv\.lock: cannot be read"):
        read_lock(tmp_path)
