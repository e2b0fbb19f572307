"""Installed dependencies, cached by content: a release that only changes code installs nothing.

One entry, `<key>/` in the cache's folder, holds the normalised files (`files/`, read-only, with bytecode for the
interpreter that runs here), their zip (`archive.zip`, without bytecode) and the list of both (`manifest.json`). The key
is a hash of everything that affects what is installed. An entry appears complete, by a rename, and is used only while
every file has its recorded size (a power cut can leave empty files).

An entry has no files that describe the installing machine instead of the package: INSTALLER, REQUESTED,
direct_url.json, uv's own notes, scripts with a `#!` line, bytecode. RECORD is rewritten without them.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from hitless.artifact import archive
from hitless.artifact.archive import ZipMember, shown, why_unsafe
from hitless.artifact.model import Platform
from hitless.artifact.requirements import Requirements
from hitless.artifact.uv import Installed
from hitless.documents import decode, replace_file, to_text
from hitless.errors import BuildError, EngineError

FORMAT = 1
"""Part of every key: increase it when the options for uv or the normalisation change."""

_TRACES = frozenset(
    {"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json", "RECORD.jws", "RECORD.p7s"}
)


class Dependencies(msgspec.Struct, frozen=True):
    """One entry of the cache. `names` are its files in the zip's order, `distributions` the installed packages."""

    folder: Path
    names: tuple[str, ...]
    distributions: tuple[str, ...]
    built: tuple[str, ...] = ()
    """The distributions that were built from source."""
    raised: tuple[str, ...] = ()
    """`NAME VERSION instead of VERSION` of those whose pinned version cannot be installed on this machine."""

    @property
    def files(self) -> Path:
        """The folder of the installed files."""
        return self.folder / "files"

    @property
    def archive(self) -> Path:
        """The zip of the files."""
        return self.folder / "archive.zip"

    def members(self) -> list[ZipMember]:
        """The files as members of a zip, in its order."""
        return _members(self.files, self.names)

    def bytecode(self) -> list[tuple[str, str]]:
        """(source, its .pyc) by name, if there is bytecode for this interpreter."""
        try:
            return decode(_bytecode_list(self.folder).read_bytes(), list[tuple[str, str]], "bytecode")
        except (OSError, EngineError):
            return []


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    distributions: tuple[str, ...]
    built: tuple[str, ...] = ()
    raised: tuple[str, ...] = ()
    archive_bytes: int


def load(folder: Path) -> Dependencies | None:
    """The entry in `folder`, or None if there is none or it is incomplete."""
    try:
        listed = decode((folder / "manifest.json").read_bytes(), _Manifest, "manifest")
        sizes = [os.stat(f"{folder}/files/{name}").st_size for name in listed.names]
        if sizes != list(listed.sizes) or (folder / "archive.zip").stat().st_size != listed.archive_bytes:
            return None
    except (OSError, EngineError):
        return None
    return Dependencies(folder, listed.names, listed.distributions, listed.built, listed.raised)


def key_of(folder: Path, requirements: Requirements, platform: Platform, settings: dict[str, str]) -> str:
    """The key of what these requirements install on that platform."""
    parts: list[object] = [FORMAT, str(platform), platform.uv_options(), requirements.texts, sorted(settings.items())]
    parts.append([_links_state(folder, link) for link in requirements.links])
    parts.append(_configuration(folder))
    if requirements.checked_by_hash:
        parts.append("--require-hashes")
    if platform.host:
        parts.append(sys.implementation.cache_tag)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def install(into: Path, installer: Callable[[Path], Installed]) -> None:
    """Make an entry in the new folder `into`, which the store then moves into the cache."""
    files = into / "files"
    files.mkdir(parents=True)
    installed = installer(files)
    names = _normalise(files)
    archive.write(into / "archive.zip", _members(files, names))
    manifest = _Manifest(
        names=tuple(names),
        sizes=tuple((files / name).stat().st_size for name in names),
        distributions=tuple(
            sorted(n.split("-")[0] for n in {n.split("/")[0] for n in names} if n.endswith(".dist-info"))
        ),
        built=installed.built,
        raised=installed.raised,
        archive_bytes=(into / "archive.zip").stat().st_size,
    )
    (into / "manifest.json").write_text(to_text(manifest), "utf-8")


def compile_bytecode(dependencies: Dependencies, *, keep_open: Sequence[int] = ()) -> None:
    """Compile the entry's modules for this interpreter, once. Neither files nor zip change.

    The bytecode is not checked against its source, because the date of a source means nothing here, and the
    sources of an entry never change. A module that does not compile fails when it is imported.
    """
    if _bytecode_list(dependencies.folder).exists():
        return
    command = [sys.executable, "-I", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    subprocess.run(
        [*command, str(dependencies.files)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        pass_fds=keep_open,
        check=False,
    )
    pairs: list[tuple[str, str]] = []
    for name in dependencies.names:
        compiled = bytecode_name(name)
        if compiled and (path := dependencies.files / compiled).exists():
            path.chmod(0o444)
            pairs.append((name, compiled))
    replace_file(_bytecode_list(dependencies.folder), json.dumps(pairs))


def bytecode_name(name: str) -> str | None:
    """Where this interpreter looks for the bytecode of a source; None for other files."""
    folder, _, last = name.rpartition("/")
    if not last.endswith(".py") or sys.implementation.cache_tag is None:
        return None
    return f"{folder}{'/' if folder else ''}__pycache__/{last[:-3]}.{sys.implementation.cache_tag}.pyc"


def _bytecode_list(folder: Path) -> Path:
    return folder / f"bytecode-{sys.implementation.cache_tag}-{sys.hexversion:x}.json"


def _members(files: Path, names: Iterable[str]) -> list[ZipMember]:
    return [ZipMember(name, files / name, _is_executable(files / name)) for name in names]


def _normalise(files: Path) -> list[str]:
    """Remove the traces of the installation, set modes, and list the other files, sorted by name."""
    names: list[str] = []
    for base, folders, found in os.walk(files):
        folders[:] = [folder for folder in folders if folder != "__pycache__"]
        for last in found:
            path = Path(base, last)
            name = path.relative_to(files).as_posix()
            if _is_trace(name, path):
                path.unlink()
                continue
            if path.is_symlink() or not path.is_file() or why_unsafe(name):
                raise BuildError(
                    f"a dependency installs {shown(name)}, which cannot be part of an artifact",
                    hint="pin another version",
                )
            path.chmod(0o555 if _is_executable(path) else 0o444)
            names.append(name)
    kept = set(names)
    for name in names:
        if name.endswith(".dist-info/RECORD"):
            _rewrite_record(files / name, kept)
    return sorted(names)


def _is_trace(name: str, path: Path) -> bool:
    parent, _, last = name.rpartition("/")
    if name == ".lock" or last.endswith(".pyc") or (parent.endswith(".dist-info") and last in _TRACES):
        return True
    if parent != "bin" or path.is_symlink():
        return False
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _rewrite_record(record: Path, kept: set[str]) -> None:
    lines = record.read_text("utf-8").splitlines()
    own = sorted(line for line in lines if line.rsplit(",", 2)[0].strip('"') in kept)
    record.chmod(0o644)
    record.write_text("".join(f"{line}\n" for line in own), "utf-8")
    record.chmod(0o444)


def _is_executable(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IXUSR)


def _links_state(folder: Path, link: str) -> object:
    if "://" in link:
        return link
    try:
        found = [(e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in os.scandir(folder / link) if e.is_file()]
    except OSError:
        return link
    return [link, sorted(found)]


def _configuration(folder: Path) -> list[str]:
    """uv's settings in files of the service's folder."""
    texts: list[str] = []
    for name in ("uv.toml", "pyproject.toml"):
        try:
            text = (folder / name).read_text("utf-8")
            texts.append(text if name == "uv.toml" else repr(tomllib.loads(text).get("tool", {}).get("uv")))
        except (OSError, ValueError):
            continue
    return texts
