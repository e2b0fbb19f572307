"""Builds on a real file system; the installer is a fake, real uv is in test_artifact_install."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from hitless.artifact import archive
from hitless.artifact.archive import ZipMember
from hitless.artifact.build import build
from hitless.artifact.model import Artifact, BuiltArtifacts, Host, Platform
from hitless.artifact.requirements import Requirements
from hitless.artifact.store import ArtifactStore
from hitless.artifact.uv import Installed
from hitless.errors import BuildError
from hitless.service.model import Service, WsgiApp
from tests.component.artifact_support import (
    HERE,
    RUNTIME,
    FakeInstaller,
    a_function,
    a_service,
    files_below,
    open_to_all,
    without_privileges,
    write_files,
    zip_names,
)

pytestmark = pytest.mark.component

PINNED = "dep==1.0\n"


def built(
    service: Service,
    store: ArtifactStore,
    installer: FakeInstaller | None = None,
    *,
    host: Host = HERE,
) -> BuiltArtifacts:
    return build(service, store, say=lambda _: None, installer=installer or FakeInstaller(), host=host)


def only(result: BuiltArtifacts) -> Artifact:
    return result.by_function["api"]


@pytest.fixture
def world_readable() -> Iterator[Path]:
    with open_to_all() as folder:
        yield folder


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "data" / "artifacts")


def test_an_artifacts_digest_and_sizes_are_computed_from_its_zip(tmp_path: Path, store: ArtifactStore) -> None:
    artifact = only(built(a_service(tmp_path / "s", requirements=PINNED), store))
    zipped = store.zip_path(artifact.digest)
    assert archive.digest_of(zipped) == artifact.digest
    assert artifact.zip_bytes == zipped.stat().st_size
    with zipfile.ZipFile(zipped) as opened:
        assert artifact.unpacked_bytes == sum(info.file_size for info in opened.infolist())
    assert (artifact.local, artifact.runtime, artifact.architecture) == (False, RUNTIME, "x86_64")


def test_path_date_umask_order_and_store_do_not_change_the_bytes(tmp_path: Path) -> None:
    files = {"b.py": "1", "src/a.py": "2", "src/é.py": "3", "tool.sh": "#!/bin/sh\n"}
    digests = set[str]()
    for number, umask in enumerate((0o022, 0o077, 0o002)):
        before = os.umask(umask)
        try:
            folder = tmp_path / f"place {number}" / ("deep/" * number)
            order = list(files.items())[::-1] if number else list(files.items())
            service = a_service(folder, dict(order), requirements=PINNED)
            (folder / "tool.sh").chmod(0o700 if umask == 0o077 else 0o775)
            for name in files:
                os.utime(folder / name, (number * 1e8, number * 1e8))
            digests.add(only(built(service, ArtifactStore(tmp_path / f"data{number}" / "artifacts"))).digest)
        finally:
            os.umask(before)
    assert len(digests) == 1


def test_zip_entries_have_one_date_one_origin_and_normal_modes(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s", {"tool.sh": "x"}, requirements=PINNED)
    (tmp_path / "s" / "tool.sh").chmod(0o4711)
    with zipfile.ZipFile(store.zip_path(only(built(service, store)).digest)) as opened:
        infos = opened.infolist()
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.create_system for info in infos} == {3}
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    modes = {info.filename: info.external_attr >> 16 for info in infos}
    assert modes.pop("tool.sh") == stat.S_IFREG | 0o755
    assert set(modes.values()) == {stat.S_IFREG | 0o644}


def test_a_zip_with_cached_dependencies_has_the_same_bytes(tmp_path: Path) -> None:
    first = [ZipMember(f"dep/{n}é.py", b"x" * n) for n in range(50)]
    then = [ZipMember("src/a.py", b"a", executable=True), ZipMember("src/ü.py", b"")]
    archive.write(tmp_path / "dep.zip", first)
    archive.write(tmp_path / "joined.zip", then, prefix=tmp_path / "dep.zip")
    archive.write(tmp_path / "whole.zip", [*first, *then])
    assert (tmp_path / "joined.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_a_known_package_always_builds_to_the_same_bytes(tmp_path: Path) -> None:
    archive.write(
        tmp_path / "known.zip", [ZipMember("src/é.py", b"print()\n"), ZipMember("tool", b"", executable=True)]
    )
    known = "sha256:72955a20391e97e87375b24e03937a78af09282a42f4ebf1348c3bf9fdc625ec"
    assert archive.digest_of(tmp_path / "known.zip") == known


def test_a_zip_has_dependencies_first_and_each_part_sorted(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s", {"a.py": ""}, requirements=PINNED)
    names = zip_names(store.zip_path(only(built(service, store)).digest))
    assert names == [
        *["dep-1.0.dist-info/METADATA", "dep/__init__.py"],
        *["a.py", "requirements.txt", "src/handlers.py"],
    ]


def test_a_release_with_only_new_code_installs_nothing(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s", requirements=PINNED)
    installer = FakeInstaller()
    first = only(built(service, store, installer))
    write_files(tmp_path / "s", {"src/handlers.py": "def api(event, context): return 2\n"})
    second = only(built(service, store, installer))
    assert first.digest != second.digest
    assert len(installer.targets) == 1


@pytest.mark.parametrize("change", ["requirements", "named file", "setting", "links", "uv.toml", "tool.uv"])
def test_every_input_of_an_installation_changes_its_key(tmp_path: Path, store: ArtifactStore, change: str) -> None:
    folder = tmp_path / "s"
    files = {"more.txt": "dep==1.0\n", "wheels/dep.whl": "1", "pyproject.toml": '[project]\nversion = "1"\n'}
    service = a_service(folder, files, requirements="-r more.txt\n--find-links wheels\n")
    installer = FakeInstaller()
    built(service, store, installer)
    write_files(folder, {"pyproject.toml": '[project]\nversion = "2"\n'})
    built(service, store, installer)
    assert len(installer.targets) == 1
    match change:
        case "requirements":
            write_files(folder, {"requirements.txt": "-r more.txt\n--find-links wheels\nother==2.0\n"})
        case "named file":
            write_files(folder, {"more.txt": "dep==1.1\n"})
        case "setting":
            installer.variables["UV_DEFAULT_INDEX"] = "https://example.org/index"
        case "links":
            write_files(folder, {"wheels/dep.whl": "12"})
        case "uv.toml":
            write_files(folder, {"uv.toml": "offline = true\n"})
        case _:
            write_files(folder, {"pyproject.toml": "[tool.uv]\noffline = true\n"})
    built(service, store, installer)
    assert len(installer.targets) == 2


def test_a_damaged_cache_entry_is_installed_again(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s", requirements=PINNED)
    installer = FakeInstaller()
    first = only(built(service, store, installer))
    [damaged] = (store.root / "dependencies").glob("*/files/dep/__init__.py")
    damaged.chmod(0o644)
    damaged.write_text("")
    assert only(built(service, store, installer)).digest == first.digest
    assert len(installer.targets) == 2


def test_code_that_replaces_a_file_of_a_dependency_is_a_warning(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s", {"dep/__init__.py": "VALUE = 2\n"}, requirements=PINNED)
    result = built(service, store)
    names = zip_names(store.zip_path(only(result).digest))
    assert names.count("dep/__init__.py") == 1
    assert any("dep/__init__.py of the service replaces" in warning for warning in result.warnings)
    tree = store.unpack(only(result).digest)
    assert (tree / "dep" / "__init__.py").read_text() == "VALUE = 2\n"
    assert imported_value(tree) == "2"


def imported_value(tree: Path) -> str:
    """The value of dep.VALUE in a new interpreter, from bytecode if there is some."""
    command = [sys.executable, "-B", "-c", "import dep; print(dep.VALUE)"]
    return subprocess.run(command, cwd=tree, capture_output=True, check=True, text=True).stdout.strip()


def test_a_name_that_is_both_file_and_folder_is_an_error(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s", {"dep": "a file"}, requirements=PINNED)
    with pytest.raises(BuildError, match="dep would be both a file and a folder"):
        built(service, store)


def test_generated_files_are_added_and_replace_code(tmp_path: Path, store: ArtifactStore) -> None:
    service = replace(a_service(tmp_path / "s", {"wsgi_handler.py": "mine"}), wsgi=WsgiApp("src/handlers.api"))
    tree = store.unpack(only(built(service, store)).digest)
    assert "serverless_wsgi.make_handler" in (tree / "wsgi_handler.py").read_text()
    assert (tree / "serverless_wsgi.py").is_file()


def test_functions_share_one_artifact_unless_packaged_individually(tmp_path: Path, store: ArtifactStore) -> None:
    files = {"src/one.py": "", "src/two.py": ""}
    functions = [a_function("one", "src/one.f"), a_function("two", "src/two.f")]
    together = built(a_service(tmp_path / "s", files, functions=functions), store)
    assert together.by_function["one"] == together.by_function["two"]
    functions = [
        a_function("one", "src/one.f", patterns=("!src/two.py",)),
        a_function("two", "src/two.f", patterns=("!src/one.py",)),
    ]
    service = a_service(tmp_path / "s", files, functions=functions, patterns=("!src/handlers.py",))
    apart = built(service, store)
    assert zip_names(store.zip_path(apart.by_function["one"].digest)) == ["src/one.py"]
    assert zip_names(store.zip_path(apart.by_function["two"].digest)) == ["src/two.py"]


@pytest.mark.parametrize("handler", ["src/gone.api", "src/handlers", "gone.api", "src/handlers.py.api"])
def test_a_handler_outside_the_package_is_an_error(tmp_path: Path, store: ArtifactStore, handler: str) -> None:
    with pytest.raises(BuildError, match=r"functions\.api\.handler"):
        built(a_service(tmp_path / "s", functions=[a_function(handler=handler)]), store)


def test_a_handler_may_be_in_a_subpackage_or_in_a_dependency(tmp_path: Path, store: ArtifactStore) -> None:
    functions = [
        a_function("a", "pack.api"),
        a_function("b", "src.handlers.api"),
        a_function("c", "dep/run.api"),
    ]
    service = a_service(tmp_path / "s", {"pack/__init__.py": ""}, functions=functions, requirements=PINNED)
    assert set(built(service, store, FakeInstaller({"dep/run.py": ""})).by_function) == {"a", "b", "c"}


def test_a_package_without_files_is_refused(tmp_path: Path, store: ArtifactStore) -> None:
    with pytest.raises(BuildError, match="the package is empty"):
        built(a_service(tmp_path / "s", patterns=("!**",)), store)


def test_service_file_env_files_and_data_folder_are_excluded(tmp_path: Path) -> None:
    service = a_service(tmp_path / "s", {".env": "SECRET=1", ".hitless/x": "", "data/state.sqlite": ""})
    store = ArtifactStore(tmp_path / "s" / "data" / "artifacts")
    assert zip_names(store.zip_path(only(built(service, store)).digest)) == ["src/handlers.py"]


def test_the_services_own_folder_cannot_be_the_data_folder(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="the data folder is the service's own folder"):
        built(a_service(tmp_path / "s"), ArtifactStore(tmp_path / "s" / "artifacts"))


def test_a_service_inside_the_data_folder_can_be_built(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "data" / "artifacts")
    assert store.verify(only(built(a_service(tmp_path / "data" / "copy"), store)).digest)


def test_a_package_over_lambdas_limit_is_an_error_with_the_largest_files(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s")
    for name in ("large.bin", "larger.bin"):
        with (tmp_path / "s" / name).open("wb") as sparse:
            sparse.truncate(131_072_000 + len(name) - 9)
    with pytest.raises(BuildError, match="262,144,000") as refused:
        built(service, store)
    assert "larger.bin (131.1 MB)" in refused.value.hint
    assert files_below(store.root) == ["lock"]


def test_a_zip_too_large_for_direct_upload_is_a_notice(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s")
    with (tmp_path / "s" / "large.bin").open("wb") as sparse:
        sparse.truncate(52_428_801)
    assert any("50 MB for direct upload" in warning for warning in built(service, store).warnings)


def test_names_that_differ_only_by_case_are_a_notice(tmp_path: Path, store: ArtifactStore) -> None:
    warnings = built(a_service(tmp_path / "s", {"Dep/__init__.py": ""}, requirements=PINNED), store).warnings
    assert any("Dep/__init__.py and dep/__init__.py differ only by case" in warning for warning in warnings)


def test_an_unreadable_file_is_an_error_and_leaves_nothing(world_readable: Path) -> None:
    service = a_service(world_readable / "s", {"closed.py": ""})
    (world_readable / "s" / "closed.py").chmod(0)
    (world_readable / "data").mkdir()
    (world_readable / "data").chmod(0o777)
    store = ArtifactStore(world_readable / "data" / "artifacts")
    with (
        without_privileges(),
        pytest.raises(BuildError, match=r"closed\.py: the file cannot be read: Permission denied"),
    ):
        built(service, store)
    assert files_below(store.root) == ["lock"]


def test_for_another_platform_a_second_artifact_for_this_machine_is_built(tmp_path: Path, store: ArtifactStore) -> None:
    installer = FakeInstaller()
    functions = [a_function(architecture="arm64")]
    result = built(a_service(tmp_path / "s", functions=functions, requirements=PINNED), store, installer)
    assert (result.by_function["api"].local, result.portable["api"].local) == (True, False)
    assert {a.architecture for a in (*result.by_function.values(), *result.portable.values())} == {"arm64"}
    assert [bool(target.host) for target in installer.targets] == [False, True]
    [warning] = result.warnings
    assert "the architecture is x86_64, declared is arm64" in warning
    assert "cannot be promoted" in warning
    assert result.by_function["api"].digest == result.portable["api"].digest


def test_a_release_that_can_only_be_built_for_this_machine_still_runs_here(
    tmp_path: Path, store: ArtifactStore
) -> None:
    installer = FakeInstaller(error=BuildError("dep: no wheel"), refused="arm64")
    functions = [a_function(architecture="arm64"), a_function("same", architecture="arm64")]
    result = built(a_service(tmp_path / "s", functions=functions, requirements=PINNED), store, installer)
    assert dict(result.portable) == {}
    assert set(result.by_function) == {"api", "same"}
    assert "no artifact for" in result.warnings[1]
    assert "dep: no wheel" in result.warnings[1]
    assert len(installer.targets) == 2


def test_a_failed_installation_is_an_error_and_leaves_no_files(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s", requirements=PINNED)
    with pytest.raises(BuildError, match="no wheel"):
        built(service, store, FakeInstaller(error=BuildError("dep: no wheel")))
    assert files_below(store.root) == ["lock"]


def test_unpinned_requirements_are_reported_with_the_command_that_pins_them(
    tmp_path: Path, store: ArtifactStore
) -> None:
    result = built(a_service(tmp_path / "s", requirements="loose>=1\n"), store)
    [warning] = result.warnings
    assert "does not pin dep, loose," in warning
    assert "uv pip compile" in warning
    assert built(a_service(tmp_path / "s", requirements=PINNED), store).warnings == ()


def test_a_password_in_requirements_is_a_warning(tmp_path: Path, store: ArtifactStore) -> None:
    text = f"--index-url https://me:hunter2@example.org/index\n{PINNED}"
    [warning] = built(a_service(tmp_path / "s", requirements=text), store).warnings
    assert "requirements.txt contains a password" in warning
    assert "hunter2" not in warning
    left_out = a_service(tmp_path / "s", requirements=text, patterns=("!requirements.txt",))
    assert built(left_out, store).warnings == ()


def test_a_database_in_the_package_causes_a_warning(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s")
    (tmp_path / "s" / "shop.db").touch()
    (warning,) = built(service, store).warnings
    assert warning == "shop.db is a database and is packaged; package.patterns: ['!shop.db'] leaves it out"
    assert built(a_service(tmp_path / "s", patterns=("!shop.db",)), store).warnings == ()


def test_an_unread_lock_file_without_requirements_txt_is_a_warning(tmp_path: Path, store: ArtifactStore) -> None:
    [warning] = built(a_service(tmp_path / "s", {"uv.lock": ""}), store).warnings
    assert "uv.lock is not read" in warning


def test_requirements_that_change_during_the_installation_are_not_cached(tmp_path: Path, store: ArtifactStore) -> None:
    class Meddling(FakeInstaller):
        def install(
            self,
            folder: Path,
            requirements: Requirements,
            target: Platform,
            into: Path,
            *,
            keep_open: Sequence[int] = (),
        ) -> Installed:
            installed = super().install(folder, requirements, target, into, keep_open=keep_open)
            write_files(folder, {"requirements.txt": "dep==2.0\n"})
            return installed

    with pytest.raises(BuildError, match="changed during the build"):
        built(a_service(tmp_path / "s", requirements=PINNED), store, Meddling())
    assert list((store.root / "dependencies").iterdir()) == []


def test_unreadable_requirements_are_refused(tmp_path: Path, store: ArtifactStore) -> None:
    service = a_service(tmp_path / "s")
    (tmp_path / "s" / "requirements.txt").symlink_to("nothing")
    with pytest.raises(BuildError, match=r"requirements\.txt: the requirements cannot be read"):
        built(service, store)
    (tmp_path / "s" / "requirements.txt").unlink()
    write_files(tmp_path / "s", {"requirements.txt": b"\xff"})
    with pytest.raises(BuildError, match="not UTF-8"):
        built(service, store)


@pytest.mark.parametrize("line", ["-r {}", "-c {}", "-r ../shadow", "-r inside.txt", ""])
def test_requirements_outside_the_folder_are_not_read(tmp_path: Path, store: ArtifactStore, line: str) -> None:
    """A parser's error message would show them."""
    (tmp_path / "shadow").write_text("hush @ git+https://example.org\n")
    service = a_service(tmp_path / "s", requirements=line.format(tmp_path / "shadow"))
    (tmp_path / "s" / "inside.txt").symlink_to("../shadow")
    if not line:
        (tmp_path / "s" / "requirements.txt").unlink()
        (tmp_path / "s" / "requirements.txt").symlink_to("../shadow")
    with pytest.raises(BuildError, match="is outside the service's folder") as refused:
        built(service, store)
    assert "hush" not in str(refused.value.to_json())


@pytest.mark.parametrize("name", ["s/uv.toml", "s/pyproject.toml", "uv.toml"])
def test_uv_settings_linked_from_outside_are_an_error(tmp_path: Path, store: ArtifactStore, name: str) -> None:
    """uv searches for them from the service's folder upwards, and shows the line that it cannot read."""
    root = tmp_path / "repository"
    service = a_service(root / "s", requirements=PINNED, patterns=("!uv.toml", "!pyproject.toml"))
    (root / ".git").mkdir()
    (root / "settings").write_text("")
    (root / name).symlink_to(root / "settings")
    built(service, store)
    (root / name).unlink()
    (root / name).symlink_to(tmp_path / "shadow")
    with pytest.raises(BuildError, match=f"{Path(name).name} is a link to a file outside"):
        built(service, store)


@pytest.mark.parametrize("runtime", ["python2.7", "python3.8"])
def test_a_runtime_that_is_no_longer_supported_is_built_for_this_machine_only(tmp_path: Path, runtime: str) -> None:
    service = a_service(tmp_path / "s", functions=[a_function(runtime=runtime)], requirements=PINNED)
    installer = FakeInstaller()
    result = built(service, ArtifactStore(tmp_path / "data" / "artifacts"), installer)
    assert (only(result).local, result.portable) == (True, {})
    assert [target.runtime for target in installer.targets] == [RUNTIME]
    assert result.warnings[1].endswith(f"cannot be promoted: Lambda no longer supports {runtime}")


def test_a_functions_module_is_the_root_of_its_package_and_has_its_own_requirements(
    tmp_path: Path, store: ArtifactStore
) -> None:
    code = "def hello(event, context): ..."
    files = {"bot/web.py": code, "bot/lib/x.py": "", "bot/requirements.txt": PINNED}
    service = a_service(tmp_path / "s", files)
    bot = structs.replace(a_function("bot", "web.hello"), module="bot")
    result = built(replace(service, functions=(*service.functions, bot)), store)
    assert list(result.by_function) == ["api", "bot"]
    packed = zip_names(store.zip_path(result.by_function["bot"].digest))
    assert [name for name in packed if name.endswith(".py")] == ["dep/__init__.py", "lib/x.py", "web.py"]
    assert "dep/__init__.py" not in zip_names(store.zip_path(only(result).digest))
