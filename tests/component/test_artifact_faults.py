"""Concurrent builds, builds killed in the middle, and builds on a full or read-only disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hitless.artifact.build import build
from hitless.artifact.model import Artifact
from hitless.artifact.store import ArtifactStore
from hitless.errors import MachineError
from tests.component.artifact_support import (
    HERE,
    FakeInstaller,
    a_service,
    files_below,
    open_to_all,
    without_privileges,
)
from tests.support import eventually

pytestmark = pytest.mark.component

ROOT = Path(__file__).parents[2]

BUILD = f"""
import sys, os, time, json
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from hitless.artifact.build import build
from hitless.artifact.store import ArtifactStore
from tests.component.artifact_support import HERE, FakeInstaller, a_service

class Waiting(FakeInstaller):
    def install(self, folder, requirements, target, into, *, keep_open=()):
        built = super().install(folder, requirements, target, into, keep_open=keep_open)
        print("installing", flush=True)
        sys.stdin.readline()
        return built

service = a_service(Path(sys.argv[1]), dict(json.loads(sys.argv[3])), requirements="dep==1.0\\n")
result = build(service, ArtifactStore(Path(sys.argv[2])), say=lambda _: None, installer=Waiting(), host=HERE)
print(result.by_function["api"].digest, flush=True)
"""


class Child:
    """A build in a process of its own, which waits in the middle until the test lets it continue."""

    def __init__(self, folder: Path, store: ArtifactStore, files: str = "[]") -> None:
        command = [sys.executable, "-c", BUILD, str(folder), str(store.root), files]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "data" / "artifacts")


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.end()


def built(folder: Path, store: ArtifactStore, installer: FakeInstaller | None = None) -> Artifact:
    service = a_service(folder, requirements="dep==1.0\n")
    result = build(service, store, say=lambda _: None, installer=installer or FakeInstaller(), host=HERE)
    return result.by_function["api"]


@pytest.mark.parametrize("other", ["[]", '[["more.txt", "2"]]'])
def test_two_concurrent_builds_both_succeed(
    tmp_path: Path, store: ArtifactStore, children: list[Child], other: str
) -> None:
    children += [Child(tmp_path / "one", store), Child(tmp_path / "two", store, other)]
    assert [child.said() for child in children] == ["installing", "installing"]
    for child in children:
        child.go_on()
    digests = [child.said() for child in children]
    assert (digests[0] == digests[1]) == (other == "[]")
    assert [store.verify(digest) for digest in digests] == [True, True]
    assert len(list((store.root / "dependencies").iterdir())) == 1
    for child in children:
        assert child.process.wait(10) == 0
    assert list((store.root / "tmp").iterdir()) == []


def test_the_next_build_removes_the_leftovers_of_a_killed_one(
    tmp_path: Path, store: ArtifactStore, children: list[Child]
) -> None:
    children.append(Child(tmp_path / "one", store))
    assert children[0].said() == "installing"
    children[0].process.send_signal(signal.SIGKILL)
    children[0].process.wait(10)
    left = files_below(store.root)
    assert any(name.startswith("tmp/") for name in left)
    assert [name for name in left if not name.startswith("tmp/") and name != "lock"] == []
    artifact = built(tmp_path / "one", store)
    assert store.verify(artifact.digest)
    assert list((store.root / "tmp").iterdir()) == []


def test_a_build_does_not_remove_the_files_of_a_running_one(
    tmp_path: Path, store: ArtifactStore, children: list[Child]
) -> None:
    children.append(Child(tmp_path / "one", store))
    assert children[0].said() == "installing"
    built(tmp_path / "two", store)
    assert store.prune(set(), min_age_s=0) == []
    children[0].go_on()
    assert store.verify(children[0].said())


def test_files_of_a_killed_builds_installer_are_kept_while_it_writes(tmp_path: Path, store: ArtifactStore) -> None:
    with store.working() as workspace:
        held = subprocess.Popen(["sleep", "60"], pass_fds=(workspace.lock_fd,))
        left = store.root / "tmp" / "left"
        left.mkdir()
    try:
        with store.working():
            assert left.exists()
    finally:
        held.kill()
        held.wait()

    def cleaned() -> bool:
        with store.working():
            return not left.exists()

    assert eventually(cleaned)


def test_a_failed_write_is_a_machine_error_and_leaves_nothing(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s", {"large.bin": b"x" * 200_000})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(MachineError, match="is full"):
            build(service, store, say=lambda _: None, installer=FakeInstaller(), host=HERE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert files_below(store.root) == ["lock"]
    assert list((store.root / "tmp").iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; only root can create one."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root and mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("what", ["code", "dependencies", "tree"])
def test_a_full_disk_is_an_error_and_leaves_nothing_incomplete(tmp_path: Path, tiny_disk: Path, what: str) -> None:
    store = ArtifactStore(tiny_disk / "artifacts")
    size = 140_000 if what == "tree" else 400_000
    large = {} if what == "dependencies" else {"large.bin": b"x" * size}
    service = a_service(tmp_path / "s", large, requirements="dep==1.0\n" if what == "dependencies" else None)
    installer = FakeInstaller({"dep/large.txt": "x" * 200_000})

    def attempt() -> None:
        artifact = build(service, store, say=lambda _: None, installer=installer, host=HERE).by_function["api"]
        assert what == "tree"
        store.unpack(artifact.digest)

    with pytest.raises(MachineError, match="is full") as refused:
        attempt()
    assert refused.value.hint
    assert [name for name in files_below(store.root) if not name.startswith(("zips/", "lock"))] == []
    assert list((store.root / "tmp").iterdir()) == []
    assert list((store.root / "trees").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_reported_as_a_machine_error() -> None:
    with open_to_all() as folder:
        service = a_service(folder / "s")
        folder.chmod(0o555)
        with without_privileges(), pytest.raises(MachineError, match="cannot be written") as refused:
            build(service, ArtifactStore(folder / "d" / "artifacts"), say=lambda _: None, installer=FakeInstaller())
        folder.chmod(0o755)
        assert "--data-dir" in refused.value.hint


def test_a_file_in_place_of_the_artifact_folder_is_reported_as_a_machine_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        built(tmp_path / "s", ArtifactStore(tmp_path / "data" / "artifacts"))
