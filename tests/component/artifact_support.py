"""Shared by the tests of artifacts: small services, wheels made by the test, an installer that needs no network."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hitless.artifact.model import Host, Platform
from hitless.artifact.requirements import Requirements
from hitless.artifact.uv import Installed, Uv
from hitless.service.model import Function, Service

RUNTIME = f"python3.{sys.version_info.minor}"
HERE = Host("cpython", sys.version_info.minor, "Linux", "x86_64", (2, 36))
"""A machine on which what `a_service` declares can run, wherever the tests run."""

NOBODY = 65534


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files by name below `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def a_function(
    name: str = "api",
    handler: str = "src/handlers.api",
    *,
    runtime: str = RUNTIME,
    architecture: str = "x86_64",
    patterns: tuple[str, ...] = (),
) -> Function:
    """A function that runs here unless told otherwise."""
    return Function(name, handler, runtime=runtime, architecture=architecture, package_patterns=patterns)


def a_service(
    folder: Path,
    files: Mapping[str, str | bytes] | None = None,
    *,
    functions: Sequence[Function] = (),
    patterns: tuple[str, ...] = (),
    requirements: str | None = None,
) -> Service:
    """A service in `folder`, which is created: one function `api` in src/handlers.py by default."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"src/handlers.py": "def api(event, context):\n    return {'statusCode': 200}\n", **(files or {})}
    write_files(folder, {"serverless.yml": "service: sample\n", **given})
    if requirements is not None:
        write_files(folder, {"requirements.txt": requirements})
    return Service(
        name="sample", folder=folder, file=folder / "serverless.yml", stage="dev", region="eu-west-1", stages=(),
        functions=tuple(functions) or (a_function(),), package_patterns=patterns,
    )  # fmt: skip


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str],
    *,
    requires: Sequence[str] = (),
    script: str = "",
    tag: str = "py3-none-any",
) -> Path:
    """A wheel of those files in `folder`. `script` is a console script, `NAME = MODULE:FUNCTION`."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents = {
        **files,
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {one}\n" for one in requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if script:
        contents[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script}\n"
    record = "".join(f"{n},sha256={_record_hash(c)},{len(c.encode())}\n" for n, c in contents.items())
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in contents.items():
            wheel.writestr(member, content)
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def _record_hash(content: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()


class FakeInstaller(Uv):
    """Installs the same files for any requirements, and counts. With `error`, targets that contain `refused` fail."""

    def __init__(
        self, files: Mapping[str, str] | None = None, *, error: Exception | None = None, refused: str = ""
    ) -> None:
        super().__init__({})
        self.files = files or {"dep/__init__.py": "VALUE = 1\n"}
        self.error, self.refused = error, refused
        self.variables: dict[str, str] = {}
        self.targets: list[Platform] = []

    def settings(self) -> dict[str, str]:
        return self.variables

    def install(
        self, folder: Path, requirements: Requirements, target: Platform, into: Path, *, keep_open: Sequence[int] = ()
    ) -> Installed:
        self.targets.append(target)
        if self.error is not None and self.refused in str(target):
            raise self.error
        write_files(into, self.files)
        write_files(into, {"dep-1.0.dist-info/METADATA": "Name: dep\nVersion: 1.0\n"})
        return Installed()


def zip_names(path: Path) -> list[str]:
    """The names in a zip, in its order."""
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def files_below(folder: Path) -> list[str]:
    """Names of all files below a folder, sorted; links are not followed."""
    return sorted(
        os.path.relpath(os.path.join(base, name), folder) for base, _, names in os.walk(folder) for name in names
    )


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A temporary folder that an unprivileged user can reach, which pytest's own is not when root runs it."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


@contextmanager
def without_privileges() -> Iterator[None]:
    """File permissions hold within, also for tests that run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
