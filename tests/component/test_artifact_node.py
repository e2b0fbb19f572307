"""Packages of Node.js functions: locked dependencies by npm, and packages that the service brings as a zip."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hitless.artifact.build import build
from hitless.artifact.model import BuiltArtifacts, Host
from hitless.artifact.node import find_node
from hitless.artifact.store import ArtifactStore
from hitless.errors import BuildError
from hitless.service.model import Function
from tests.component.artifact_support import HERE, a_function, a_service, write_files

pytestmark = pytest.mark.component
needs_node = pytest.mark.skipif(find_node("nodejs20.x") is None, reason="Node.js is not installed")

API = Function("api", "src/api.handler", runtime="nodejs20.x")
CODE = {"src/api.mjs": "export const handler = async () => 7;"}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "data" / "artifacts")


def tarball(name: str) -> bytes:
    """An npm package, with a file for the test and one whose native code is for arm64."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in {"package.json": json.dumps({"name": name, "version": "1.0.0"}), "index.js": "x"}.items():
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Serves the files of a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def locked(url: str, folder: Path) -> Mapping[str, str]:
    """package.json and its lock: `tiny`, an add-on for another processor, and one for development."""
    packages: dict[str, Any] = {}
    kinds: dict[str, dict[str, Any]] = {
        "tiny": {}, "other-cpu": {"cpu": ["arm64"], "optional": True}, "for-dev": {"dev": True}
    }  # fmt: skip
    for name, more in kinds.items():
        content = tarball(name)
        (folder / f"{name}.tgz").write_bytes(content)
        integrity = f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"
        packages[f"node_modules/{name}"] = {
            "version": "1.0.0", "resolved": f"{url}/{name}.tgz", "integrity": integrity, **more
        }  # fmt: skip
    wanted = {
        "name": "s", "version": "1.0.0", "dependencies": {"tiny": "1.0.0"},
        "optionalDependencies": {"other-cpu": "1.0.0"}, "devDependencies": {"for-dev": "1.0.0"},
    }  # fmt: skip
    lock = {
        "name": "s",
        "version": "1.0.0",
        "lockfileVersion": 3,
        "requires": True,
        "packages": {"": wanted, **packages},
    }
    return {"package.json": json.dumps(wanted), "package-lock.json": json.dumps(lock)}


def names_of(store: ArtifactStore, built: BuiltArtifacts, function: str = "api") -> list[str]:
    with zipfile.ZipFile(store.zip_path(built.by_function[function].digest)) as archive:
        return archive.namelist()


def said(_: str) -> None:
    pass


@needs_node
def test_locked_packages_are_installed_without_those_for_development_and_give_the_same_bytes(
    tmp_path: Path, store: ArtifactStore
) -> None:
    (tmp_path / "registry").mkdir()
    with registry(tmp_path / "registry") as url:
        files = {**CODE, **locked(url, tmp_path / "registry"), "node_modules/tiny/index.js": "what somebody installed"}
        service = a_service(tmp_path / "one", files, functions=[API, a_function("py")])
        built = build(service, store, say=said, host=HERE)
        again = build(
            a_service(tmp_path / "two", files, functions=[API]), ArtifactStore(tmp_path / "other" / "artifacts"),
            say=said, host=HERE,
        )  # fmt: skip
    modules = ["node_modules/tiny/index.js", "node_modules/tiny/package.json"]
    code = ["package-lock.json", "package.json", "src/api.mjs", "src/handlers.py"]
    assert names_of(store, built) == [*modules, *code]
    assert names_of(store, built, "py") == code
    assert built.by_function["api"] == again.by_function["api"] == built.portable["api"]
    tree = store.unpack(built.by_function["api"].digest)
    assert (tree / "node_modules/tiny/index.js").read_text() == "x"


@needs_node
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"package.json": '{"dependencies": {"a": "1"}}'}, "has dependencies, and there is no package-lock.json"),
        ({"package.json": "{,"}, "package.json is not a JSON object"),
        ({"package.json": "[1]"}, "package.json is not a JSON object"),
    ],
)
def test_dependencies_that_are_not_locked_are_refused(
    tmp_path: Path, store: ArtifactStore, files: Mapping[str, str], reason: str
) -> None:
    service = a_service(tmp_path / "service", {**CODE, **files}, functions=[API])
    with pytest.raises(BuildError, match=reason):
        build(service, store, say=said, host=HERE)


@needs_node
@pytest.mark.parametrize(
    ("files", "handler", "reason"),
    [
        ({}, "src/absent.handler", "the package does not contain src/absent.js, .mjs or .cjs"),
        ({"src/typed.ts": ""}, "src/typed.handler", "does not contain src/typed.js"),
        ({}, "src/api", "does not contain src/api.js"),
    ],
)
def test_a_missing_handler_file_is_refused(
    tmp_path: Path, store: ArtifactStore, files: Mapping[str, str], handler: str, reason: str
) -> None:
    function = Function("api", handler, runtime="nodejs20.x")
    service = a_service(tmp_path / "service", {**CODE, **files}, functions=[function])
    with pytest.raises(BuildError, match=reason) as refused:
        build(service, store, say=said, host=HERE)
    assert "compile TypeScript" in refused.value.hint


@needs_node
def test_another_node_and_another_machine_are_warnings(tmp_path: Path, store: ArtifactStore) -> None:
    function = Function("api", "src/api.handler", runtime="nodejs99.x")
    files = {**CODE, "addon.node": "\x7fELF"}
    mac = Host("cpython", HERE.minor, "Darwin", "x86_64", None)
    built = build(a_service(tmp_path / "service", files, functions=[function]), store, say=said, host=mac)
    first, second = built.warnings
    assert first.startswith("nodejs99.x is declared, and the nearest Node.js here is ")
    assert second.startswith(
        "addon.node is a native add-on for the declared platform and may not load here: the system"
    )
    assert built.portable["api"] == built.by_function["api"]


def zipped(folder: Path, members: Mapping[str | zipfile.ZipInfo, str]) -> None:
    (folder / "build").mkdir(parents=True)
    with zipfile.ZipFile(folder / "build/function.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)


def entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6))
    info.create_system, info.external_attr = 3, mode << 16
    return info


BOOTSTRAP = "#!/bin/sh\n"


def bomb() -> bytes:
    """A zip with a file of 300 MB, by its directory."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("zeros", "0")
    content = bytearray(packed.getvalue())
    struct.pack_into("<I", content, content.rfind(b"PK\x01\x02") + 24, 300_000_000)
    return bytes(content)


def test_a_zip_of_the_service_is_its_package(tmp_path: Path, store: ArtifactStore) -> None:
    folder = tmp_path / "service"
    zipped(
        folder, {entry("lib/", 0o40755): "", entry("bootstrap", 0o100755): BOOTSTRAP, entry("lib/a.txt", 0o100644): "a"}
    )
    function = Function("api", "any", runtime="provided.al2023", artifact="build/function.zip")
    service = a_service(folder, {"requirements.txt": "never-installed==1"}, functions=[function])
    built = build(service, store, say=said, host=HERE)
    assert names_of(store, built) == ["bootstrap", "lib/a.txt"]
    (folder / "build/function.zip").unlink()
    (folder / "build").rmdir()
    zipped(folder, {entry("lib/a.txt", 0o100600): "a", entry("bootstrap", 0o100700): BOOTSTRAP})
    assert build(service, store, say=said, host=HERE).by_function == built.by_function, "only contents count"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (None, "build/function.zip is missing"),
        ("no zip", "the zip cannot be read: File is not a zip file"),
        ({"/bootstrap": ""}, "/bootstrap: the name is not a relative path"),
        ({"a/../../b": ""}, "the name has an empty part, or one that is . or .."),
        ({entry("bootstrap", 0o120777): "/bin/sh"}, "bootstrap: the name is that of a link or device"),
        ({entry("bootstrap", 0o644): BOOTSTRAP}, "bootstrap is not executable"),
        ({entry(name, 0o755): BOOTSTRAP for name in ("bootstrap", "x", "x/y")}, "x would be both a file and a folder"),
        (bomb(), "unpacks to more than Lambda's limit"),
    ],
)  # fmt: skip
def test_a_zip_that_cannot_be_a_package_is_refused(
    tmp_path: Path, store: ArtifactStore, members: Mapping[str | zipfile.ZipInfo, str] | str | bytes | None, reason: str
) -> None:
    folder = tmp_path / "service"
    function = Function("api", "any", runtime="provided.al2023", artifact="build/function.zip")
    if isinstance(members, str | bytes):
        write_files(folder, {"build/function.zip": members})
    elif members is not None:
        zipped(folder, members)
    with pytest.raises(BuildError, match=reason):
        build(a_service(folder, functions=[function]), store, say=said, host=HERE)
