"""The store: unpacking, verifying, pruning."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from hitless.artifact import archive, trees
from hitless.artifact.archive import ZipMember
from hitless.artifact.build import build
from hitless.artifact.model import Artifact
from hitless.artifact.store import ArtifactStore
from hitless.errors import EngineError, HitlessError, UsageError
from tests.component.artifact_support import HERE, FakeInstaller, a_service, files_below, write_files, zip_names

pytestmark = pytest.mark.component

ABSENT = f"sha256:{'0' * 64}"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "data" / "artifacts")


def an_artifact(store: ArtifactStore, text: str = "1", *, requirements: str | None = "dep==1.0\n") -> Artifact:
    folder = store.root.parent.parent / "service"
    service = a_service(folder, {"text.txt": text}, requirements=requirements)
    result = build(service, store, say=lambda _: None, installer=FakeInstaller(), host=HERE)
    return result.by_function["api"]


def put(store: ArtifactStore, *members: ZipMember) -> str:
    """A zip of any content in the store."""
    with store.working() as workspace:
        archive.write(workspace.folder / "a.zip", members)
        return store.add(workspace.folder / "a.zip", None, 0)


def test_an_unpacked_tree_has_the_zips_files_read_only(store: ArtifactStore) -> None:
    digest = put(store, ZipMember("src/a.txt", b"a"), ZipMember("tool", b"#!", executable=True))
    tree = store.unpack(digest)
    assert files_below(tree) == ["src/a.txt", "tool"]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [tree, *tree.rglob("*")]}
    assert modes == {tree: 0o555, tree / "src": 0o555, tree / "src/a.txt": 0o444, tree / "tool": 0o555}
    assert tree.stat().st_uid == os.geteuid()


def test_dependencies_are_links_to_the_cache_and_code_is_not(store: ArtifactStore) -> None:
    tree = store.unpack(an_artifact(store).digest)
    assert (tree / "dep/__init__.py").stat().st_nlink > 1
    assert (tree / "src/handlers.py").stat().st_nlink == 1
    assert (tree / "dep/__init__.py").stat().st_mode & 0o777 == 0o444


def test_a_tree_without_its_cache_entry_is_unpacked_from_the_zip(store: ArtifactStore) -> None:
    artifact = an_artifact(store)
    for entry in (store.root / "dependencies").iterdir():
        trees.remove(entry)
    tree = store.unpack(artifact.digest)
    assert [name for name in zip_names(store.zip_path(artifact.digest)) if not (tree / name).is_file()] == []


def test_bytecode_is_in_the_tree_but_not_in_the_zip(store: ArtifactStore) -> None:
    artifact = an_artifact(store)
    tree = store.unpack(artifact.digest)
    for source in (tree / "dep/__init__.py", tree / "src/handlers.py"):
        compiled = Path(importlib.util.cache_from_source(str(source)))
        flags = int.from_bytes(compiled.read_bytes()[4:8], "little")
        assert flags == 0b01, "by hash, not to be checked (PEP 552)"
    assert not any(name.endswith(".pyc") for name in zip_names(store.zip_path(artifact.digest)))


def test_bytecode_is_used_even_if_its_sources_have_other_dates(store: ArtifactStore) -> None:
    tree = store.unpack(an_artifact(store).digest)
    os.utime(tree / "dep/__init__.py", (1, 1))
    program = (
        "import sys, dep; from importlib.util import cache_from_source as c; print(dep.__cached__ == c(dep.__file__))"
    )
    command = [sys.executable, "-v", "-B", "-c", program]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert "code object from" in done.stderr
    assert not any(
        "wrote" in line or "# bytecode is stale" in line for line in done.stderr.splitlines() if "dep" in line
    )


def test_a_module_that_does_not_compile_is_unpacked_anyway(store: ArtifactStore) -> None:
    tree = store.unpack(
        put(store, ZipMember("bad.py", b"def ("), ZipMember("nul.py", b"\0"), ZipMember("latin.py", b"\xff"))
    )
    assert files_below(tree) == ["bad.py", "latin.py", "nul.py"]


def test_unpacking_again_keeps_the_existing_tree(store: ArtifactStore) -> None:
    digest = an_artifact(store).digest
    tree = store.unpack(digest)
    before = (tree.stat().st_ino, tree.stat().st_ctime_ns)
    assert store.unpack(digest) == tree
    inode, _ = before
    assert tree.stat().st_ino == inode


def test_a_tree_with_a_missing_or_empty_file_is_replaced(store: ArtifactStore) -> None:
    digest = an_artifact(store).digest
    tree = store.unpack(digest)
    for damage in ("emptied", "lost"):
        file = tree / "src" / "handlers.py"
        (tree / "src").chmod(0o755)
        file.unlink()
        if damage == "emptied":
            file.write_bytes(b"")
        assert store.unpack(digest) == tree
        assert file.stat().st_size > 0
    assert files_below(store.root / "tmp") == []


def test_an_incomplete_tree_of_a_killed_process_is_removed(store: ArtifactStore) -> None:
    digest = an_artifact(store).digest
    left = store.root / "tmp" / "left" / "tree" / "src"
    left.mkdir(parents=True)
    (left / "handlers.py").write_text("half")
    (left / "link").symlink_to("/etc")
    left.chmod(0o555)
    store.unpack(digest)
    assert list((store.root / "tmp").iterdir()) == []
    assert Path("/etc").is_dir()


def test_a_zip_with_changed_bytes_is_neither_verified_nor_unpacked(store: ArtifactStore) -> None:
    digest = put(store, ZipMember("a.txt", b"good"))
    assert store.verify(digest)
    zipped = store.zip_path(digest)
    zipped.chmod(0o644)
    zipped.write_bytes(zipped.read_bytes().replace(b"good", b"evil"))
    assert not store.verify(digest)
    with pytest.raises(EngineError, match="damaged"):
        store.unpack(digest)
    archive.write(store.root / "other.zip", [ZipMember("a.txt", b"evil")])
    (store.root / "other.zip").replace(zipped)
    with pytest.raises(EngineError, match="damaged"):
        store.unpack(digest)
    assert files_below(store.root / "trees") == []
    zipped.write_bytes(b"no zip")
    with pytest.raises(EngineError, match="damaged"):
        store.unpack(digest)


def test_a_build_replaces_a_damaged_zip_of_the_same_digest(store: ArtifactStore) -> None:
    artifact = an_artifact(store)
    zipped = store.zip_path(artifact.digest)
    zipped.chmod(0o644)
    zipped.write_bytes(b"short")
    assert an_artifact(store).digest == artifact.digest
    assert store.verify(artifact.digest)


def test_a_missing_artifact_is_reported_as_missing(store: ArtifactStore) -> None:
    assert not store.zip_path(ABSENT).is_file()
    assert not store.verify(ABSENT)
    with pytest.raises(EngineError, match="is not in"):
        store.unpack(ABSENT)


@pytest.mark.parametrize("digest", ["", "sha256:../../x", "0" * 64, f"sha256:{'0' * 63}", f"sha256:{'A' * 64}"])
def test_an_invalid_digest_is_never_a_path(store: ArtifactStore, digest: str) -> None:
    for use in (store.zip_path, store.verify, store.unpack):
        with pytest.raises(UsageError):
            use(digest)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_a_zip_with_unsafe_names_is_not_unpacked(store: ArtifactStore, name: str) -> None:
    digest = put(store, ZipMember(name, b"x"))
    with pytest.raises(EngineError, match="whose name"):
        store.unpack(digest)
    assert not (store.root / "evil").exists()
    assert files_below(store.root / "tmp") == []


def aged(path: Path) -> None:
    os.utime(path, (time.time() - 10_000,) * 2)


def test_pruning_removes_exactly_the_artifacts_that_are_not_kept(store: ArtifactStore) -> None:
    kept, gone = an_artifact(store, "kept"), an_artifact(store, "gone")
    for artifact in (kept, gone):
        store.unpack(artifact.digest)
        aged(store.zip_path(artifact.digest))
    assert store.prune({kept.digest}) == [gone.digest]
    assert store.zip_path(kept.digest).is_file()
    assert not store.zip_path(gone.digest).is_file()
    assert [tree.name for tree in (store.root / "trees").iterdir()] == [kept.digest[7:]]
    assert sorted(path.name[64:] for path in (store.root / "zips").iterdir()) == [".cdx.json", ".json", ".zip"]


def test_pruning_keeps_recently_built_artifacts(store: ArtifactStore) -> None:
    artifact = an_artifact(store)
    assert store.prune(set()) == []
    aged(store.zip_path(artifact.digest))
    an_artifact(store)
    assert store.prune(set()) == []
    assert store.prune(set(), min_age_s=0) == [artifact.digest]


def test_pruning_removes_cached_dependencies_only_when_no_artifact_needs_them(store: ArtifactStore) -> None:
    needed = an_artifact(store)
    [entry] = (store.root / "dependencies").iterdir()
    aged(entry / "manifest.json")
    store.prune({needed.digest})
    assert entry.exists()
    aged(store.zip_path(needed.digest))
    store.prune(set())
    assert not entry.exists()


def test_pruning_does_nothing_while_an_artifact_is_built_or_unpacked(store: ArtifactStore) -> None:
    artifact = an_artifact(store)
    with store.working() as workspace:
        (workspace.folder / "half").write_text("")
        assert store.prune(set(), min_age_s=0) == []
        assert (workspace.folder / "half").exists()
    assert store.prune(set(), min_age_s=0) == [artifact.digest]


def test_a_second_work_folder_in_the_store_keeps_the_first(store: ArtifactStore) -> None:
    with store.working() as first:
        (first.folder / "half").write_text("")
        with store.working():
            assert (first.folder / "half").exists()
    assert list((store.root / "tmp").iterdir()) == []


def test_the_folders_of_the_store_are_private(store: ArtifactStore) -> None:
    an_artifact(store)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (store.root.parent, store.root, store.root / "zips")} == {
        0o700
    }


def test_using_the_store_leaves_no_descriptor_open(store: ArtifactStore) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    artifact = an_artifact(store)
    before = len(os.listdir("/proc/self/fd"))
    store.unpack(artifact.digest)
    store.verify(artifact.digest)
    store.prune(set())
    with pytest.raises(HitlessError):
        store.unpack(ABSENT)
    an_artifact(store, "2")
    assert len(os.listdir("/proc/self/fd")) == before


def test_large_sources_are_compiled_by_the_importing_process(store: ArtifactStore) -> None:
    tree = store.unpack(put(store, ZipMember("large.py", b"#" * 300_000)))
    assert files_below(tree) == ["large.py"]


def test_a_module_of_the_service_never_uses_a_dependencys_bytecode(store: ArtifactStore) -> None:
    folder = store.root.parent.parent / "service"
    large = "VALUE = 2\n" + "#" * 300_000  # too large to be compiled while unpacking
    write_files(folder, {"dep/__init__.py": large})
    tree = store.unpack(an_artifact(store).digest)
    command = [sys.executable, "-B", "-c", "import dep; print(dep.VALUE)"]
    assert subprocess.run(command, cwd=tree, capture_output=True, check=True, text=True).stdout.strip() == "2"


def test_an_artifacts_zip_can_be_read_by_any_tool(store: ArtifactStore) -> None:
    with zipfile.ZipFile(store.zip_path(an_artifact(store).digest)) as opened:
        assert opened.testzip() is None
