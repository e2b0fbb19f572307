"""package.patterns as Serverless Framework reads them."""

from __future__ import annotations

import pytest

from hitless.artifact.selection import PackagePatterns
from hitless.errors import BuildError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("src/*.py", ["src/a.py", "src/.hidden.py"], ["src/b/a.py", "a.py", "src/a.pyx"]),
        ("src/**", ["src/a.py", "src/b/c.py", "src"], ["srcs/a.py", "lib/src/a.py"]),
        ("**/*.md", ["README.md", "docs/a/b.md"], ["README.mdx"]),
        ("**", ["a", "a/b/c"], []),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/b/c"]),
        ("a**/b", ["ax/b"], ["a/x/b"]),
        ("file?.txt", ["file1.txt"], ["file.txt", "file12.txt", "file/.txt"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "/x"]),
        ("[!a-c]x", ["ax", "!x"], ["dx"]),
        ("[^a-c]x", ["dx"], ["ax"]),
        ("{a,b}/*.py", ["a/x.py", "b/x.py"], ["c/x.py"]),
        ("x{1,2{3,4}}", ["x1", "x23", "x24"], ["x2"]),
        ("{alone}", ["{alone}"], ["alone"]),
        ("@(a|b).py", ["a.py", "b.py"], ["ab.py", ".py"]),
        ("a?(b).py", ["a.py", "ab.py"], ["abb.py"]),
        ("+(ab).py", ["ab.py", "abab.py"], [".py"]),
        ("*(ab).py", [".py", "abab.py"], ["a.py"]),
        ("a(b).py", ["a(b).py", "ab.py"], ["a.py"]),
        ("(a|b).py", ["a.py", "b.py", "(a|b).py"], ["ab.py"]),
        ("{1..3}.txt", ["1.txt", "3.txt"], ["4.txt", "13.txt"]),
        ("**.py", ["a.py", ".py", "src/a.py", "src/.hidden.py"], ["a.pyx"]),
        ("src/**.py", ["src/a.py"], ["src/b/a.py"]),
        ("[ab]", ["a", "b", "[ab]"], ["ab"]),
        ("*/**", ["a/b", "a/b/c"], ["a"]),
        ("{src,app}/**", ["src", "app/a.py"], ["lib/a.py"]),
        (r"\*.py", ["*.py"], ["a.py"]),
        ("./src/a.py", ["src/a.py"], ["a.py"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a[b", ["a[b"], ["ab"]),
    ],
)
def test_a_glob_matches_the_same_names_as_micromatch_4_0_8(glob: str, matching: list[str], other: list[str]) -> None:
    patterns = PackagePatterns(["!**", glob])
    assert [name for name in matching if not patterns.selects(name)] == []
    assert [name for name in other if patterns.selects(name)] == []


def test_everything_is_selected_unless_excluded_and_tests_are_not_excluded() -> None:
    patterns = PackagePatterns([])
    assert all(patterns.selects(name) for name in ("src/a.py", "tests/test_a.py", "requirements.txt", ".hidden"))


@pytest.mark.parametrize(
    "name", [".gitignore", "a/.DS_Store", "npm-debug.log", "yarn-error.log", "a/b.pyc", ".env", ".env.local", "a/.env"]
)
def test_default_exclusions_can_be_included_by_name(name: str) -> None:
    assert not PackagePatterns([]).selects(name)
    assert PackagePatterns([name]).selects(name)


def test_the_last_matching_pattern_decides() -> None:
    keep_one = PackagePatterns(["!data/**", "data/keep.json"])
    assert keep_one.selects("data/keep.json")
    assert not keep_one.selects("data/other.json")
    assert not PackagePatterns(["data/keep.json", "!data/**"]).selects("data/keep.json")


@pytest.mark.parametrize("folder", [".venv", "node_modules", "__pycache__", ".pytest_cache", ".serverless"])
def test_tool_folders_are_walked_only_if_a_pattern_names_them(folder: str) -> None:
    assert not PackagePatterns(["**/*.py", f"!{folder}/**"]).looks_into(folder)
    assert PackagePatterns([f"{folder}/keep/**"]).looks_into(folder)


@pytest.mark.parametrize("folder", [".git", ".hitless"])
def test_repository_and_data_folder_are_never_walked(folder: str) -> None:
    assert not PackagePatterns([f"{folder}/**"]).looks_into(folder)


@pytest.mark.parametrize("pattern", ["../shared/**", "/etc/passwd", "!../x", "src/../../x", "", "!"])
def test_a_pattern_that_points_outside_is_an_error(pattern: str) -> None:
    with pytest.raises(BuildError, match=r"package\.patterns"):
        PackagePatterns([pattern])


@pytest.mark.parametrize("pattern", ["src/!(a).py", "@(a", "[z-a]x"])
def test_an_invalid_glob_is_an_error(pattern: str) -> None:
    with pytest.raises(BuildError) as refused:
        PackagePatterns([pattern])
    assert repr(pattern) in refused.value.message


def test_an_exclusion_that_names_a_folder_only_is_recognised() -> None:
    patterns = PackagePatterns(["!tests", "!docs/", "!./notes", "!src/**"])
    assert patterns.names_folder("tests") == "!tests"
    assert patterns.names_folder("docs") == "!docs/"
    assert patterns.names_folder("notes") == "!./notes"
    assert patterns.names_folder("src") is None
