"""Unpacked artifacts: read-only folders that workers use as their task root.

Dependencies are hard links to the cache's files (copies if the file system refuses); code is written from the zip.
A tree is made under a temporary name and renamed, and is used only while every file has its recorded size.
"""

from __future__ import annotations

import os
import py_compile
import shutil
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path

from hitless.artifact import archive
from hitless.artifact.archive import folders_of, shown, why_unsafe
from hitless.artifact.dependencies import Dependencies, bytecode_name
from hitless.errors import EngineError

_COMPILED_AT_MOST_BYTES = 262_144
"""If the service has more source than this, none is compiled while unpacking: much of it may never be imported."""


def is_complete(tree: Path, entries: Iterable[zipfile.ZipInfo]) -> bool:
    """Whether the tree contains every file of the zip with its recorded size."""
    try:
        return all(os.stat(f"{tree}/{info.filename}").st_size == info.file_size for info in entries)
    except OSError:
        return False


def unpack_into(tree: Path, packed: zipfile.ZipFile, dependencies: Dependencies | None, linked: int) -> None:
    """Unpack the zip into the new folder `tree`. Its first `linked` files are dependencies, linked from the cache.

    Raises EngineError for a zip with forbidden names or damaged contents, OSError for disk errors.
    """
    entries = archive.entries_of(packed)
    for info in entries:
        if why := why_unsafe(info.filename):
            raise EngineError(f"the artifact contains {shown(info.filename)}, whose name {why}", hint="deploy again")
    split = linked if dependencies is not None else 0
    from_cache = {info.filename for info in entries[:split]}
    compiled = [(s, c) for s, c in dependencies.bytecode() if s in from_cache] if dependencies is not None else []
    code = entries[split:]
    sources = [] if sum(i.file_size for i in code) > _COMPILED_AT_MOST_BYTES else [i.filename for i in code]
    own = [c for name in sources if (c := bytecode_name(name))]
    folders = folders_of([info.filename for info in entries] + [c for _, c in compiled] + own)

    tree.mkdir(mode=0o755)
    for folder in folders:
        os.mkdir(f"{tree}/{folder}", 0o755)
    if dependencies is not None:
        for name in [*from_cache, *(c for _, c in compiled)]:
            _link(f"{dependencies.files}/{name}", f"{tree}/{name}")
    for info in code:
        archive.extract(packed, info, tree / info.filename)
    for name in sources:
        _compile(tree, name)
    for folder in reversed(folders):
        os.chmod(f"{tree}/{folder}", 0o555)


def remove(path: Path) -> None:
    """Remove a file or a tree, even one with read-only folders, if it exists. Links are removed, not followed."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for base, folders, _ in os.walk(path):
        os.chmod(base, stat.S_IRWXU)
        for folder in folders:
            if not os.path.islink(f"{base}/{folder}"):
                os.chmod(f"{base}/{folder}", stat.S_IRWXU)
    shutil.rmtree(path)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        shutil.copy2(source, target)  # another file system, or one without links, or too many links


def _compile(tree: Path, name: str) -> None:
    """Compile a module of the service; one that does not compile fails when it is imported."""
    compiled = bytecode_name(name)
    if compiled is None:
        return
    try:
        py_compile.compile(
            f"{tree}/{name}", f"{tree}/{compiled}", dfile=name, doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )  # fmt: skip
    except (py_compile.PyCompileError, ValueError, RecursionError):
        return
    os.chmod(f"{tree}/{compiled}", 0o444)
