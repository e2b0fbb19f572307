"""Real uv installs wheels that the test makes, without a network."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from hitless.artifact.archive import digest_of
from hitless.artifact.build import build
from hitless.artifact.model import BuiltArtifacts, Host
from hitless.artifact.store import ArtifactStore
from hitless.artifact.uv import Uv
from hitless.errors import BuildError
from hitless.service.model import Service
from tests.component.artifact_support import HERE, a_function, a_service, files_below, make_wheel, zip_names

pytestmark = pytest.mark.component

OFFLINE = "--no-index\n--find-links wheels\n"


@pytest.fixture
def uv(tmp_path: Path) -> Uv:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    return Uv({**kept, "UV_CACHE_DIR": str(tmp_path / "uv-cache")})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "data" / "artifacts")


def built(service: Service, store: ArtifactStore, uv: Uv, host: Host = HERE) -> BuiltArtifacts:
    return build(service, store, say=lambda _: None, installer=uv, host=host)


def dep_wheel(folder: Path) -> None:
    files = {"dep/__init__.py": "def main(): ...\n", "dep/data.txt": "x"}
    make_wheel(folder / "wheels", "dep", "1.0", files, script="dep-tool = dep:main")


def test_traces_of_the_installation_are_removed_also_from_the_record_file(
    tmp_path: Path, store: ArtifactStore, uv: Uv
) -> None:
    folder = tmp_path / "s"
    dep_wheel(folder)
    service = a_service(folder, requirements=f"{OFFLINE}dep==1.0\n", patterns=("!**", "src/**"))
    result = built(service, store, uv)
    zipped = store.zip_path(result.by_function["api"].digest)
    info = "dep-1.0.dist-info"
    assert zip_names(zipped) == [
        *[f"{info}/METADATA", f"{info}/RECORD", f"{info}/WHEEL", f"{info}/entry_points.txt"],
        *["dep/__init__.py", "dep/data.txt", "src/handlers.py"],
    ]
    with zipfile.ZipFile(zipped) as opened:
        record = opened.read(f"{info}/RECORD").decode()
    recorded = sorted(line.split(",")[0] for line in record.splitlines())
    assert recorded == [name for name in zip_names(zipped) if not name.startswith("src/")]
    assert str(tmp_path) not in record
    assert result.warnings == ()


def test_the_same_requirements_give_the_same_bytes_in_another_place(tmp_path: Path, uv: Uv) -> None:
    digests = set[str]()
    for place, umask in (("one", 0o022), ("another/place", 0o077)):
        before = os.umask(umask)
        try:
            dep_wheel(tmp_path / place)
            service = a_service(tmp_path / place, requirements=f"{OFFLINE}dep==1.0\n", patterns=("!wheels/**",))
            store = ArtifactStore(tmp_path / f"data {place}" / "artifacts")
            digests.add(built(service, store, uv).by_function["api"].digest)
        finally:
            os.umask(before)
    assert len(digests) == 1


def test_an_unlisted_dependency_is_reported(tmp_path: Path, store: ArtifactStore, uv: Uv) -> None:
    folder = tmp_path / "s"
    make_wheel(folder / "wheels", "dep", "1.0", {"dep.py": ""}, requires=["brought-in"])
    make_wheel(folder / "wheels", "brought_in", "2.0", {"brought_in.py": ""})
    loose = built(a_service(folder, requirements=f"{OFFLINE}dep==1.0\n"), store, uv)
    assert "does not pin brought-in," in loose.warnings[0]
    pinned = built(a_service(folder, requirements=f"{OFFLINE}dep==1.0\nbrought-in==2.0\n"), store, uv)
    assert pinned.warnings == ()


def test_hashes_of_requirements_are_checked(tmp_path: Path, store: ArtifactStore, uv: Uv) -> None:
    folder = tmp_path / "s"
    dep_wheel(folder)
    service = a_service(folder, requirements=f"{OFFLINE}dep==1.0 \\\n    --hash=sha256:{'1' * 64}\n")
    with pytest.raises(BuildError, match=r"requirements\.txt:3 \(dep\)"):
        built(service, store, uv)
    assert files_below(store.root) == ["lock"]


def test_a_list_with_hashes_installs_nothing_without_a_hash(tmp_path: Path, store: ArtifactStore, uv: Uv) -> None:
    """pypa/pip#3137: "at least one hash is required to match for each requirement, even subrequirements"."""
    folder = tmp_path / "s"
    wheel = make_wheel(folder / "wheels", "dep", "1.0", {"dep.py": ""}, requires=["brought-in"])
    other = make_wheel(folder / "wheels", "brought_in", "2.0", {"brought_in.py": ""})
    hashed = {one: f"--hash={digest_of(one)}" for one in (wheel, other)}
    with pytest.raises(BuildError, match="brought-in"):
        built(a_service(folder, requirements=f"{OFFLINE}dep==1.0 {hashed[wheel]}\n"), store, uv)
    listed = f"{OFFLINE}dep==1.0 {hashed[wheel]}\nbrought-in==2.0 {hashed[other]}\n"
    assert built(a_service(folder, requirements=listed), store, uv).warnings == ()


def test_an_unresolvable_requirement_is_reported_with_uvs_reason(tmp_path: Path, store: ArtifactStore, uv: Uv) -> None:
    (tmp_path / "s" / "wheels").mkdir(parents=True)
    service = a_service(tmp_path / "s", requirements=f"{OFFLINE}no-such-package==1.0\n")
    with pytest.raises(
        BuildError, match=r"requirements\.txt:3 \(no-such-package\): cannot be installed for"
    ) as refused:
        built(service, store, uv)
    assert "no-such-package was not found" in refused.value.message
    assert refused.value.hint


BACKEND = """
import os, zipfile
def build_wheel(folder, settings=None, metadata=None):
    assert os.environ["CC"] == "false", "there is a compiler"
    name = "dep-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        info = "dep-1.0.dist-info"
        wheel.writestr('%s', "VALUE = 1\\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: dep\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", f"%s,,\\n{info}/METADATA,,\\n{info}/WHEEL,,\\n{info}/RECORD,,\\n")
    return name
"""
BUILD_SYSTEM = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"


def source_package(folder: Path, module: str) -> None:
    """dep 1.0 without a wheel; its build backend needs no other package and puts one file into the wheel."""
    with tarfile.open(folder_made(folder / "wheels") / "dep-1.0.tar.gz", "w:gz") as source:
        for name, text in (
            ("PKG-INFO", "Metadata-Version: 2.1\nName: dep\nVersion: 1.0\n"),
            ("pyproject.toml", BUILD_SYSTEM + "[project]\nname = 'dep'\nversion = '1.0'\n"),
            ("backend.py", BACKEND % (module, module)),
        ):
            (folder / name).write_text(text)
            source.add(folder / name, f"dep-1.0/{name}")
            (folder / name).unlink()


def test_a_package_without_a_wheel_is_built_from_its_pure_python_source(
    tmp_path: Path, store: ArtifactStore, uv: Uv
) -> None:
    folder = tmp_path / "s"
    source_package(folder, "dep.py")
    make_wheel(folder / "wheels", "other", "1.0", {"other.py": ""})
    for _ in range(2):  # the second time from the cache
        result = built(a_service(folder, requirements=f"{OFFLINE}other==1.0\ndep==1.0\n"), store, uv)
        assert {"dep.py", "other.py"} <= set(zip_names(store.zip_path(result.by_function["api"].digest)))
        (warning,) = result.warnings
        assert warning.startswith("dep: built from source because there is no wheel")


@pytest.mark.parametrize(("module", "message"), [("dep/x.so", "dep/x.so is native code"), ("' + 1/0 + '", r"\(dep\)")])
def test_native_code_and_failed_builds_are_errors(
    tmp_path: Path, store: ArtifactStore, uv: Uv, module: str, message: str
) -> None:
    folder = tmp_path / "s"
    source_package(folder, module)
    with pytest.raises(BuildError, match=message) as refused:
        built(a_service(folder, requirements=f"{OFFLINE}dep==1.0\n"), store, uv)
    assert "pin a version with a wheel" in refused.value.hint


def test_a_pin_that_this_machine_cannot_build_is_raised_within_its_major_version(
    tmp_path: Path, store: ArtifactStore, uv: Uv
) -> None:
    folder = tmp_path / "s"
    source_package(folder, "' + 1/0 + '")
    for version in ("1.2", "2.0"):
        make_wheel(folder / "wheels", "dep", version, {"dep.py": f"VERSION = {version}\n"})
    older = [a_function(runtime="python3.8")]
    for _ in range(2):  # the second time from the cache
        result = built(a_service(folder, functions=older, requirements=f"{OFFLINE}dep==1.0\n"), store, uv)
        assert result.warnings[-1].startswith("dep 1.2 instead of 1.0: the pinned version has no wheel")
        assert dict(result.portable) == {}


@pytest.mark.parametrize(
    ("runtime", "pin", "wheels"),
    [
        (f"python3.{sys.version_info.minor}", "dep==1.0", ["1.2"]),
        ("python3.8", f"dep==1.0 --hash=sha256:{'1' * 64}", ["1.2"]),
        ("python3.8", "dep==1.0", ["2.0"]),
    ],
)
def test_a_pin_is_never_raised_across_major_versions_with_a_hash_or_for_the_declared_platform(
    tmp_path: Path, store: ArtifactStore, uv: Uv, runtime: str, pin: str, wheels: list[str]
) -> None:
    folder = tmp_path / "s"
    source_package(folder, "' + 1/0 + '")
    for version in wheels:
        make_wheel(folder / "wheels", "dep", version, {"dep.py": ""})
    service = a_service(folder, functions=[a_function(runtime=runtime)], requirements=f"{OFFLINE}{pin}\n")
    with pytest.raises(BuildError, match=r"requirements\.txt:3 \(dep\): cannot be installed"):
        built(service, store, uv)


def folder_made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_a_dependency_without_a_wheel_for_the_declared_platform_runs_only_here(
    tmp_path: Path, store: ArtifactStore, uv: Uv
) -> None:
    here = Host.here()
    if (here.system, here.glibc) == ("Linux", None) or here.system != "Linux":
        pytest.skip("the wheel is made for Linux with glibc")
    folder = tmp_path / "s"
    machine, other = ("x86_64", "arm64") if here.architecture == "x86_64" else ("aarch64", "x86_64")
    tag = f"cp3{sys.version_info.minor}-cp3{sys.version_info.minor}-manylinux_2_17_{machine}"
    make_wheel(folder / "wheels", "dep", "1.0", {"dep.py": ""}, tag=tag)
    functions = [a_function(architecture=other)]
    service = a_service(folder, functions=functions, requirements=f"{OFFLINE}dep==1.0\n")
    result = built(service, store, uv, here)
    assert result.by_function["api"].local
    assert dict(result.portable) == {}
    assert "dep" in result.warnings[1]
    assert "cannot be promoted" in result.warnings[1]


def test_both_artifacts_are_built_if_both_platforms_have_wheels(tmp_path: Path, store: ArtifactStore, uv: Uv) -> None:
    folder = tmp_path / "s"
    declared_minor = sys.version_info.minor + 1
    for minor in (sys.version_info.minor, declared_minor):
        tag = f"cp3{minor}-cp3{minor}-manylinux_2_17_{Host.here().platform.architecture.replace('arm64', 'aarch64')}"
        make_wheel(folder / "wheels", "dep", "1.0", {"dep.py": f"FOR = {minor}\n"}, tag=tag)
    if Host.here().glibc is None:
        pytest.skip("the wheels are made for Linux with glibc")
    functions = [a_function(runtime=f"python3.{declared_minor}", architecture=Host.here().architecture)]
    service = a_service(folder, functions=functions, requirements=f"{OFFLINE}dep==1.0\n")
    result = built(service, store, uv, Host.here())
    told = {}
    for kind, artifact in (("here", result.by_function["api"]), ("portable", result.portable["api"])):
        with zipfile.ZipFile(store.zip_path(artifact.digest)) as opened:
            told[kind] = opened.read("dep.py").decode()
    assert told == {"here": f"FOR = {sys.version_info.minor}\n", "portable": f"FOR = {declared_minor}\n"}


def test_an_unreachable_index_is_reported_without_its_password(tmp_path: Path, store: ArtifactStore, uv: Uv) -> None:
    quick = Uv({**uv.environ, "UV_HTTP_RETRIES": "0"})
    text = "--index-url http://me:hunter2@127.0.0.1:9/index\ndep==1.0\n"
    with pytest.raises(BuildError, match="the package index cannot be reached") as refused:
        built(a_service(tmp_path / "s", requirements=text), store, quick)
    assert "hunter2" not in json.dumps(refused.value.to_json())


def test_the_users_environment_cannot_change_the_installation(tmp_path: Path, store: ArtifactStore, uv: Uv) -> None:
    folder = tmp_path / "s"
    dep_wheel(folder)
    service = a_service(folder, requirements=f"{OFFLINE}dep==1.0\n")
    bent = {"UV_COMPILE_BYTECODE": "1", "UV_LINK_MODE": "symlink", "UV_SYSTEM_PYTHON": "1", "VIRTUAL_ENV": "/nowhere"}
    first = built(service, store, uv).by_function["api"]
    other = built(service, ArtifactStore(tmp_path / "other" / "artifacts"), Uv({**uv.environ, **bent}))
    assert other.by_function["api"].digest == first.digest


def test_a_lock_file_is_installed_when_there_is_no_requirements_txt(
    tmp_path: Path, store: ArtifactStore, uv: Uv
) -> None:
    folder = tmp_path / "s"
    dep_wheel(folder)
    lock = '[[package]]\nname = "dep"\nversion = "1.0"\noptional = false\ngroups = ["main"]\n'
    service = a_service(folder, {"poetry.lock": lock}, patterns=("!**", "src/**"))
    offline = Uv({**uv.environ, "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(folder / "wheels")})
    result = built(service, store, offline)
    assert "dep/__init__.py" in zip_names(store.zip_path(result.by_function["api"].digest))
    assert result.warnings == ()
