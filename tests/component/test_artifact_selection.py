"""The walk of a service's folder on a real file system."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hitless.artifact.selection import PackagePatterns, Walk
from hitless.errors import BuildError
from tests.component.artifact_support import NOBODY, open_to_all, without_privileges, write_files

pytestmark = pytest.mark.component


@pytest.fixture
def world_readable() -> Iterator[Path]:
    with open_to_all() as folder:
        yield folder


def walked(folder: Path, *patterns: str) -> list[str]:
    return [file.name for file in Walk(folder, PackagePatterns(patterns)).files()]


def refusal(folder: Path, *patterns: str) -> BuildError:
    with pytest.raises(BuildError) as refused:
        walked(folder, *patterns)
    return refused.value


def test_files_are_sorted_and_tool_folders_excluded(tmp_path: Path) -> None:
    names = ["b.py", "a/z.py", "a.py", ".git/config", ".venv/x.py", "node_modules/x.js", "a/__pycache__/z.pyc"]
    write_files(tmp_path, dict.fromkeys([*names, "tests/test_a.py", "env/pyvenv.cfg", "env/lib.py"], ""))
    assert walked(tmp_path) == ["a.py", "a/z.py", "b.py", "tests/test_a.py"]


def test_a_folder_is_excluded_even_if_it_is_reached_by_a_link(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.py": "", "data/state": ""})
    (tmp_path / "link").symlink_to("data")
    walk = Walk(tmp_path, PackagePatterns(["data/**"]), frozenset({os.path.realpath(tmp_path / "data")}))
    assert [file.name for file in walk.files()] == ["a.py"]


def test_links_inside_the_folder_are_followed_and_keep_the_files_executable_bit(tmp_path: Path) -> None:
    write_files(tmp_path, {"real/a.py": "x", "tool": "#!"})
    (tmp_path / "tool").chmod(0o700)
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "real" / "a.py")
    files = {file.name: file for file in Walk(tmp_path, PackagePatterns([])).files()}
    assert sorted(files) == ["absolute", "folder/a.py", "real/a.py", "tool"]
    assert [name for name, file in files.items() if file.executable] == ["tool"]


def test_the_service_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    write_files(tmp_path / "real", {"a.py": ""})
    (tmp_path / "real" / "b.py").symlink_to("a.py")
    (tmp_path / "link").symlink_to("real")
    assert walked(tmp_path / "link") == ["a.py", "b.py"]


@pytest.mark.parametrize("target", ["../outside/secret", "../outside", "/etc/hostname"])
def test_a_selected_link_to_the_outside_is_an_error(tmp_path: Path, target: str) -> None:
    write_files(tmp_path, {"outside/secret": "", "service/a.py": ""})
    (tmp_path / "service" / "link").symlink_to(target)
    error = refusal(tmp_path / "service")
    assert error.message.startswith("link")
    assert "points outside the service's folder" in error.message
    assert walked(tmp_path / "service", "!link", "!link/**") == ["a.py"]


def test_a_sibling_folder_with_a_longer_name_is_outside(tmp_path: Path) -> None:
    write_files(tmp_path, {"service-2/secret": "", "service/a.py": ""})
    (tmp_path / "service" / "link").symlink_to("../service-2/secret")
    assert "points outside" in refusal(tmp_path / "service").message


def test_a_selected_link_to_a_missing_file_is_left_out_with_a_notice(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.py": ""})
    (tmp_path / "gone").symlink_to("nothing")
    (tmp_path / "outside").symlink_to("/nothing/outside")
    walk = Walk(tmp_path, PackagePatterns(("!outside",)))
    assert [file.name for file in walk.files()] == ["a.py"]
    assert walk.notices == ["gone: the link's target does not exist; it is left out"]
    assert walked(tmp_path) == ["a.py"]


def test_a_link_that_loops_is_an_error_only_if_it_is_selected(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.py": ""})
    (tmp_path / "self").symlink_to("self")
    assert "self" in refusal(tmp_path).message
    assert walked(tmp_path, "!self") == ["a.py"]


def test_a_link_to_a_parent_folder_is_an_error_without_a_loop(tmp_path: Path) -> None:
    write_files(tmp_path, {"a/b/c.py": ""})
    (tmp_path / "a" / "b" / "up").symlink_to("..")
    assert refusal(tmp_path).message == "a/b/up: the link points to a folder above it"
    assert walked(tmp_path, "!a/b/up/**") == ["a/b/c.py"]


def test_pipes_sockets_and_devices_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"a.py": ""})
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    os.mkfifo("pipe")
    assert refusal(tmp_path).message == "pipe: is a named pipe, not a file"
    with socket.socket(socket.AF_UNIX) as held:
        held.bind("sock")
        assert refusal(tmp_path, "!pipe").message == "sock: is a socket, not a file"
    (tmp_path / "dev").symlink_to("/dev/null")
    assert "dev" in refusal(tmp_path, "!pipe", "!sock").message
    assert walked(tmp_path, "!pipe", "!sock", "!dev") == ["a.py"]


def test_a_file_name_that_is_not_utf8_is_refused_and_non_ascii_letters_are_kept(tmp_path: Path) -> None:
    write_files(tmp_path, {"é.py": ""})
    assert walked(tmp_path) == ["é.py"]
    try:
        (tmp_path / os.fsdecode(b"bad\xff.py")).write_text("")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert "not UTF-8" in refusal(tmp_path).message


def test_an_unreadable_folder_is_an_error_that_names_it(world_readable: Path) -> None:
    write_files(world_readable, {"a.py": "", "closed/b.py": ""})
    (world_readable / "closed").chmod(0)
    with without_privileges():
        assert refusal(world_readable).message.startswith("closed/: the folder cannot be read")
        assert walked(world_readable, "!closed/**") == ["a.py"]
    (world_readable / "closed").chmod(0o755)


def test_an_exclusion_without_effect_is_a_notice(tmp_path: Path) -> None:
    write_files(tmp_path, {"docs/a.md": ""})
    walk = Walk(tmp_path, PackagePatterns(["!docs"]))
    assert [file.name for file in walk.files()] == ["docs/a.md"]
    assert "'!docs/**'" in walk.notices[0]


def test_the_user_nobody_is_unprivileged() -> None:
    with without_privileges():
        assert os.geteuid() != 0
    assert NOBODY > 0
