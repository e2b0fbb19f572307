"""Requirements as pip and uv read them, and those that are not allowed in an artifact."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hitless.artifact.requirements import Requirements, parse_requirements
from hitless.errors import BuildError

pytestmark = pytest.mark.unit


def parsed(text: str, others: Mapping[str, str] | None = None) -> Requirements:
    texts = {"requirements.txt": text, **(others or {})}
    return parse_requirements("requirements.txt", texts.__getitem__)


@pytest.mark.parametrize(
    "line",
    [
        "Foo==1.0",
        "foo == 1.0",
        "foo===1.0",
        "foo[extra,other]==1.0",
        "foo==1.0 ; python_version >= '3.11'",
        "foo>=0.9,==1.0",
        "foo (==1.0)",
        "foo==1.0  # why",
        "foo==1.0 --hash=sha256:00",
        "foo==1.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11",
        "foo @ https://example.org/foo-1.0.zip#sha256=00",
        "foo @ https://example.org/foo-1.0.zip --hash=sha256:00",
    ],
)
def test_a_requirement_for_one_version_is_pinned(line: str) -> None:
    assert [(one.name, one.pinned) for one in parsed(line).required] == [("foo", True)]


@pytest.mark.parametrize(
    "line",
    ["a==1", "A.b_-C==01.2.0", "a..b==1", "a-==1", "-a==1", "a==1.", "a==1..2", "ä==1", "a==1rc1", "a==٣", "a b==1"],
)
def test_an_exact_requirement_reads_as_the_packaging_library_reads_it(line: str) -> None:
    try:
        theirs = [(canonicalize_name(Requirement(line).name), True)]
    except InvalidRequirement:
        theirs = []
    try:
        ours = [(one.name, one.pinned) for one in parsed(line).required]
    except BuildError:
        ours = []
    assert ours == theirs


@pytest.mark.parametrize(
    "line", ["foo", "foo>=1", "foo==1.*", "foo~=1.0", "foo; python_version > '3'", "foo @ https://example.org/foo.zip"]
)
def test_a_requirement_for_several_versions_is_not_pinned(line: str) -> None:
    assert parsed(line).unpinned(["foo"]) == ["foo"]


def test_a_file_in_which_only_some_requirements_have_hashes_is_refused() -> None:
    """pypa/pip#3137: "Option-based requirements (--hash=sha256:...) turn on --require-hashes mode implicitly"."""
    with pytest.raises(
        BuildError, match=r"requirements\.txt:2: bar has no hash, but other requirements have one"
    ) as bare:
        parsed("foo==1.0 --hash=sha256:00\nbar==1.0\n")
    assert "--generate-hashes" in bare.value.hint
    assert parsed("foo==1.0 --hash=sha256:00\nbar==1.0 \\\n  --hash=sha256:11\n").checked_by_hash
    assert parsed("foo==1.0\n-c pins.txt\n", {"pins.txt": "foo==1.0 --hash=sha256:00\n"}).checked_by_hash
    assert not parsed("foo @ https://example.org/foo.zip#sha256=00\nbar==1.0\n").checked_by_hash


def test_an_unlisted_dependency_is_not_pinned() -> None:
    assert parsed("Foo_Bar==1.0\n").unpinned(["foo.bar", "brought_in"]) == ["brought-in"]


def test_a_constraint_pins_its_package() -> None:
    requirements = parsed("foo\n-c pins.txt\n", {"pins.txt": "foo==1.0\nbar==2.0\nbaz>=1\n"})
    assert requirements.unpinned(["foo", "bar"]) == []
    assert requirements.unpinned(["baz"]) == ["baz"]
    assert [one.name for one in requirements.required] == ["foo"]


@pytest.mark.parametrize("option", ["-r more.txt", "-rmore.txt", "--requirement more.txt", "--requirement=more.txt"])
def test_included_requirements_files_are_read(option: str) -> None:
    requirements = parsed(option, {"more.txt": "foo==1.0"})
    assert [(one.name, one.at) for one in requirements.required] == [("foo", "more.txt:1")]
    assert dict(requirements.texts) == {"requirements.txt": option, "more.txt": "foo==1.0"}


def test_included_paths_are_relative_and_loops_end() -> None:
    others = {"sub/a.txt": "-r b.txt", "sub/b.txt": "-r a.txt\nfoo==1.0"}
    assert [one.at for one in parsed("-r sub/a.txt", others).required] == ["sub/b.txt:2"]


def test_a_file_may_be_both_a_constraints_and_a_requirements_file() -> None:
    requirements = parsed("-c pins.txt\n-r pins.txt", {"pins.txt": "foo==1.0"})
    assert [one.name for one in requirements.required] == ["foo"]


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "--editable=./lib",
        "-e git+https://example.org/x.git#egg=x",
        "git+https://user:secret@example.org/x.git",
        "foo @ git+https://user:secret@example.org/x.git",
        "./wheels/foo-1.0-py3-none-any.whl",
        "wheels/foo-1.0-py3-none-any.whl",
        "/srv/foo.tar.gz",
        "file:///srv/foo.whl",
        "foo @ file:///srv/foo.whl",
        ".",
        "https://user:secret@example.org/foo.zip",
        "-r https://user:secret@example.org/requirements.txt",
    ],
)
def test_an_unreproducible_requirement_is_an_error_without_secrets(line: str) -> None:
    with pytest.raises(BuildError) as refused:
        parsed(f"# first\n{line}\n")
    assert refused.value.message.startswith("requirements.txt:2: ")
    assert "secret" not in refused.value.message + refused.value.hint


def test_an_invalid_line_is_an_error_with_its_number() -> None:
    with pytest.raises(BuildError, match=r"requirements\.txt:3: is not a requirement"):
        parsed("foo==1.0\n\n!bad\n")


def test_index_options_are_left_to_uv_and_links_are_recorded() -> None:
    text = (
        "--index-url https://user:secret@example.org/index\n--find-links wheels\n-f https://example.org/w\nfoo==1.0\n"
    )
    requirements = parsed(f"-r sub/r.txt\n{text}", {"sub/r.txt": "-f ./wheels"})
    assert requirements.links == ("sub/wheels", "wheels", "https://example.org/w")
    assert [one.name for one in requirements.required] == ["foo"]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://user:secret@example.org/index", ["requirements.txt"]),
        ("https://user:${TOKEN}@example.org/index", []),
        ("https://example.org/index", []),
    ],
)
def test_a_password_in_plain_text_is_found(url: str, found: list[str]) -> None:
    assert parsed(f"--extra-index-url {url}\n").with_passwords() == found


def test_an_empty_file_has_no_requirements() -> None:
    assert parsed("# nothing\n\n").required == ()
    assert Requirements().unpinned([]) == []


@pytest.mark.parametrize("name", ['"x"', "'x'", "\\x", "${HOME}/x", "file:/x", "x#y"])
def test_an_ambiguous_file_name_is_an_error(name: str) -> None:
    """The file that is checked must be the one that uv opens."""
    for option in ("-r", "-c", "--requirement"):
        with pytest.raises(BuildError, match=r"^requirements\.txt:1: "):
            parsed(f"{option} {name}", {name: "foo==1.0\n"})
