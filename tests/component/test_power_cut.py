"""A power cut at any instant of builds, pushes, deploys and promotions: the engine starts, and keeps what it promised.

`power_cut_story.py` runs under strace. Its trace of writes, renames and syncs is replayed on a model of a disk, which
can lose all that was not synced (as ALICE does: "All File Systems Are Not Created Equal", OSDI 2014). A name is certain
once its folder is synced (POSIX); git's names already by the sync of any file, as the journals of ext4 and XFS do,
because git syncs no folder. Assumed is that folders, once made, stay, and that a sector is written whole or not at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hitless.artifact.store import ArtifactStore
from hitless.gateway.state import GatewayState
from hitless.release.who import NOBODY
from hitless.store.secrets import SecretKey
from tests.component.pipeline_bench import STAGES, PipelineBench
from tests.fakes import FakeGateway, FakeWorkers, release_document

CALLS = (
    "openat,open,creat,write,pwrite64,writev,lseek,ftruncate,fsync,fdatasync,sync,rename,renameat,renameat2,unlink,"
    "unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,sendfile,copy_file_range"
)
STRACE = [
    "strace",
    "-f",
    "-y",
    "-xx",
    "-qq",
    "-s",
    "9999999",
    "--seccomp-bpf",
    "-e",
    "signal=none",
    "-e",
    f"trace={CALLS}",
]
can_trace = (
    shutil.which("strace") is not None and not subprocess.run([*STRACE, "-o/dev/null", "true"], check=False).returncode
)
pytestmark = [pytest.mark.component, pytest.mark.skipif(not can_trace, reason="strace is missing, or not allowed here")]

SECTOR = 512
Names = dict[str, "File | str | None"]
"""Path → file, the target of a link, or None for a folder."""


@dataclass(eq=False)
class File:
    """Its content, and what of it is certain: `pending` changes since the last sync are (offset, bytes, or a size)."""

    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def change(self, offset: int, content: bytes | None) -> None:
        self.pending.append((offset, content))
        _apply(self.data, offset, content)

    def sync(self) -> None:
        self.synced = bytes(self.data)
        self.pending.clear()

    def after_cut(self, chance: random.Random) -> bytes:
        """With some of the sectors of its pending changes, in any order: other sectors keep what they had."""
        found = bytearray(self.synced)
        for offset, content in self.pending:
            if content is None:
                if chance.random() < 0.5:
                    _apply(found, offset, None)
                continue
            for start in range(0, len(content), SECTOR):
                if chance.random() < 0.5:
                    _apply(found, offset + start, content[start : start + SECTOR])
        return bytes(found)


def _apply(data: bytearray, offset: int, content: bytes | None) -> None:
    if content is None:
        del data[offset:]
    data.extend(bytes(max(0, offset - len(data))))
    if content is not None:
        data[offset : offset + len(content)] = content


@dataclass
class Disk:
    """Names and files, as programs see them and as they are certain to be. A journal keeps names in their order."""

    names: Names = field(default_factory=dict)
    sure: Names = field(default_factory=dict)
    pending: list[tuple[str, Names | set[str]]] = field(default_factory=list)
    """(the folder that must be synced, names to set or to remove)."""

    def set(self, folder: str, new: Names, gone: set[str]) -> None:
        for one in gone:
            self.names.pop(one, None)
        self.names |= new
        if all(what is None for what in new.values()) and not gone:
            self.sure |= new  # a folder that is made stays
        else:
            self.pending += [(folder, new), (folder, gone)]

    def sync_one(self, path: str) -> None:
        """A file or a folder."""
        file = self.names.get(path)
        if isinstance(file, File):
            file.sync()
        kept = []
        for where, change in self.pending:
            if where == path or ".git" in where:
                _rename(self.sure, change)
            else:
                kept.append((where, change))
        self.pending = kept

    def sync(self) -> None:
        for file in filter(lambda one: isinstance(one, File), self.names.values()):
            cast(File, file).sync()
        self.sure, self.pending = dict(self.names), []

    def after_cut(self, how: str, chance: random.Random) -> Mapping[str, bytes | str | None]:
        """What is found: `all` that was written, `synced` alone, `names` without their data, or something `between`."""
        names = dict(self.sure)
        if how in ("all", "names"):
            names = dict(self.names)
        elif how == "between":
            for _, change in self.pending[: chance.randint(0, len(self.pending))]:
                _rename(names, change)
        content: dict[str, bytes | str | None] = {}
        for path, one in names.items():
            if isinstance(one, File):
                kept = bytes(one.data) if how == "all" else one.synced
                content[path] = one.after_cut(chance) if how == "between" else kept
            else:
                content[path] = one
        return content


def _rename(names: Names, change: Names | set[str]) -> None:
    if isinstance(change, dict):
        names |= change
    else:
        for one in change:
            names.pop(one, None)


@dataclass
class Replay:
    """The trace of the programs, line by line, on a disk. Only files below `root` count, and not the clone's."""

    root: str
    acknowledged: str
    disk: Disk = field(default_factory=Disk)
    promises: list[dict[str, Any]] = field(default_factory=list)
    here: dict[str, str] = field(default_factory=dict)
    """Process → its folder."""
    at: dict[str, int] = field(default_factory=dict)
    """Path → the offset of the next write."""
    halves: dict[str, str] = field(default_factory=dict)

    def run(self, trace: Path) -> Iterator[int]:
        """Yields after each line that changed the disk."""
        for number, line in enumerate(trace.read_text("ascii").splitlines()):
            process, _, rest = line.partition(" ")
            rest = rest.strip()
            if rest.endswith("<unfinished ...>"):
                self.halves[process] = rest.removesuffix("<unfinished ...>")
                continue
            if resumed := re.match(r"<\.\.\. \w+ resumed>", rest):
                rest = self.halves.pop(process) + rest[resumed.end() :]
            called = re.fullmatch(r"(\w+)\((.*)\)\s+= (\d+)(?:<(.*?)>)?.*", rest)
            if called and self._call(process, called[1], called[2], int(called[3]), _text(called[4] or "")):
                yield number

    def inside(self, path: str) -> bool:
        return path.startswith(f"{self.root}/") and not path.startswith(f"{self.root}/clone/")

    def _call(self, process: str, name: str, arguments: str, result: int, opened: str) -> bool:
        if folder := re.match(r"AT_FDCWD<(.*?)>", arguments):
            self.here[process] = _text(folder[1])
        paths = [] if "write" in name else _paths(arguments, self.here.get(process, "/"))
        handles = re.findall(r"\b\d+<(.*?)>", arguments)
        handle = _text(handles[0]) if handles else ""
        match name:
            case "sync":
                self.disk.sync()
                return True
            case "openat" | "open" | "creat":
                return self._open(opened, arguments)
            case "fsync" | "fdatasync":
                self.disk.sync_one(handle)
            case "mkdir" | "mkdirat" if self.inside(paths[0]):
                self.disk.set("", {paths[0]: None}, set())
            case "rename" | "renameat" | "renameat2" | "link" | "linkat" if self.inside(paths[1]):
                self._move(paths[0], paths[1], keep=name.startswith("link"))
            case "symlink" | "symlinkat" if self.inside(paths[1]):
                self.disk.set(_folder(paths[1]), {paths[1]: _strings(arguments)[0].decode()}, set())
            case "unlink" | "unlinkat" | "rmdir" if paths[0] in self.disk.names:
                self.disk.set(_folder(paths[0]), {}, {paths[0]})
            case "lseek":
                self.at[handle] = result
                return False
            case _:
                return self._write(name, arguments, handles, handle, result)
        return True

    def _open(self, path: str, flags: str) -> bool:
        if not self.inside(path) or "O_DIRECTORY" in flags or "O_PATH" in flags:
            return False
        file = self.disk.names.get(path)
        self.at[path] = len(file.data) if isinstance(file, File) and "O_APPEND" in flags else 0
        if isinstance(file, File):
            if "O_TRUNC" in flags and file.data:
                file.change(0, None)
        elif "O_CREAT" in flags:
            self.disk.set(_folder(path), {path: File()}, set())
        return "O_CREAT" in flags

    def _move(self, source: str, target: str, *, keep: bool) -> None:
        moved = {
            target + path[len(source) :]: one
            for path, one in self.disk.names.items()
            if path == source or path.startswith(f"{source}/")
        }
        gone = set() if keep else {source + path[len(target) :] for path in moved}
        self.disk.set(_folder(target), moved, gone)
        self.at[target] = self.at.get(source, 0)

    def _write(self, name: str, arguments: str, handles: list[str], handle: str, result: int) -> bool:
        if handle == self.acknowledged:
            self.promises.append(json.loads(_strings(arguments)[0]))
            return True
        file = self.disk.names.get(handle)
        if not isinstance(file, File):
            return False
        match name:
            case "pwrite64":
                file.change(int(arguments.rpartition(", ")[2]), _strings(arguments)[0][:result])
            case "ftruncate":
                file.change(int(arguments.rpartition(", ")[2]), None)
            case "sendfile" | "copy_file_range":
                source = self.disk.names.get(_text(handles[1 if name == "sendfile" else 0]))
                assert isinstance(source, File), "only copies within the folder are understood"
                file.change(self.at.get(handle, 0), bytes(source.data[:result]))
                self.at[handle] = self.at.get(handle, 0) + result
            case "write" | "writev":
                file.change(self.at.get(handle, 0), b"".join(_strings(arguments))[:result])
                self.at[handle] = self.at.get(handle, 0) + result
        return True


def _text(hexadecimal: str) -> str:
    return bytes.fromhex(hexadecimal.replace("\\x", "")).decode("utf-8", "surrogateescape")


def _strings(arguments: str) -> list[bytes]:
    return [bytes.fromhex(one.replace("\\x", "")) for one in re.findall(r'"(.*?)"', arguments)]


def _paths(arguments: str, here: str) -> list[str]:
    """The call's path arguments, each relative to the folder before it, or to the process's own."""
    found = re.findall(r'(?:<([^<>]*)>, )?"((?:\\x[0-9a-f]{2})*)"', arguments)
    return [
        os.path.normpath(os.path.join(_text(base) or here, _text(path))) for base, path in found if len(path) < 9000
    ]


def _folder(path: str) -> str:
    return str(PurePath(path).parent)


def restored(content: Mapping[str, bytes | str | None], root: str, folder: Path) -> None:
    """The files on a real disk, as the next start of the machine finds them. SQLite's -shm means nothing by then."""
    folder.mkdir()
    for path, one in sorted(content.items()):
        target = folder / path.removeprefix(f"{root}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if one is None:
            target.mkdir(exist_ok=True)
        elif isinstance(one, str):
            target.symlink_to(one)
        elif not path.endswith("-shm"):
            target.write_bytes(one)
            target.chmod(0o600)


async def starts_and_keeps(folder: Path, promises: list[dict[str, Any]]) -> None:
    """The engine starts on what is left, serves what it had acknowledged, and ships again."""
    gateway = FakeGateway([], GatewayState.initial(list(STAGES), 9))
    world = SimpleNamespace(diary=[], workers=FakeWorkers([]), gateway=gateway)
    bench = PipelineBench(folder, world=cast(Any, world))
    artifacts = ArtifactStore(folder / "artifacts")
    key = SecretKey(folder / "secrets.key")
    try:
        bench.repository.create(["false"], head="dev")
        await bench.start()
        newest: dict[str, int] = {}
        for promise in promises:
            if "secret" in promise:
                token = bench.engine.secrets.of("dev")[promise["secret"]].token
                assert key.value(promise["secret"], token) == "one"
                continue
            stage, number = promise["stage"], promise["release"]
            newest[stage] = number
            assert bench.store.release(stage, number), promise
            if "digest" in promise:
                assert artifacts.verify(promise["digest"]), promise
                bill = artifacts.zip_path(promise["digest"]).with_suffix(".cdx.json")
                assert "pkg:pypi/dep@1.0" in bill.read_text()
                assert (artifacts.unpack(promise["digest"]) / "dep/__init__.py").read_text() == "VALUE = 1\n"
            if "commit" in promise:
                assert await bench.repository.has(promise["commit"]), promise
            if "run" in promise:
                row = bench.records.run(promise["run"])
                assert row is not None
                assert row.state == "succeeded", promise
        for stage, number in newest.items():
            live = bench.store.live(stage)
            assert live
            assert live[0] >= number
            assert gateway.state.stage(stage).live == live[0]
        await bench.pipeline.stop()
        await bench.engine.wait_until_idle()
        shipped = await bench.engine.deploy("prod", release_document(), strategy=None, force=True, who=NOBODY)
        results = [line["result"]["outcome"] async for line in bench.engine.follow(shipped) if "result" in line]
        assert results == ["live"]
        bench.engine.secrets.set("prod", "OTHER", "two", key, "2026-11-24T06:00:00Z")
        assert key.value("OTHER", bench.engine.secrets.of("prod")["OTHER"].token) == "two"
    finally:
        await bench.pipeline.stop()
        await bench.engine.wait_until_idle()
        bench.store.close()


@pytest.mark.parametrize("samples", [12, pytest.param(0, marks=[pytest.mark.long, pytest.mark.timeout(7200)])])
def test_after_a_power_cut_at_any_instant_the_engine_starts_and_keeps_what_it_acknowledged(
    tmp_path: Path, samples: int
) -> None:
    """`samples`: how many instants beside those right after an acknowledgement; 0 for all."""
    root, acknowledged, trace = tmp_path / "data", tmp_path / "acknowledged", tmp_path / "trace"
    root.mkdir()
    story = [sys.executable, "-m", "tests.component.power_cut_story", str(root), str(acknowledged)]
    subprocess.run([*STRACE, "-o", str(trace), *story], check=True, cwd=Path(__file__).parents[2])
    chance = random.Random(1)
    with trace.open() as lines:
        every = range(sum(1 for _ in lines))
    chosen = sorted(chance.sample(every, samples or len(every)), reverse=True)
    replay, told = Replay(str(root), str(acknowledged)), 0
    for line in replay.run(trace):
        if just_told := len(replay.promises) > told:
            told += 1
        elif not chosen or line < chosen[-1]:
            continue
        while chosen and chosen[-1] <= line:
            chosen.pop()
        way = "synced" if just_told else chance.choice(["all", "synced", "names", "between", "between"])
        folder = tmp_path / f"{way}-{line}"
        restored(replay.disk.after_cut(way, chance), str(root), folder)
        try:
            asyncio.run(starts_and_keeps(folder, replay.promises))
        except BaseException as error:
            error.add_note(f"after line {line} of {trace}, of which {way} is found: {folder}")
            raise
        shutil.rmtree(folder)
    assert told == 5
    assert {str(path) for path in root.rglob("*") if replay.inside(str(path))} == set(replay.disk.names)
    for path, file in replay.disk.names.items():  # the replay itself is right
        assert not isinstance(file, File) or path.endswith("-shm") or Path(path).read_bytes() == file.data
