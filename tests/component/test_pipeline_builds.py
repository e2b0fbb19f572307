"""Builds of runs: checkout, variables, parameters, cache, artifacts, log."""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hitless.clock import SystemClock
from hitless.errors import MachineError
from hitless.pipeline.builds import BuildOrder, Builds, add_artifacts, limits_of
from hitless.pipeline.buildspec.parameters import MAX_FILE_BYTES
from hitless.pipeline.buildspec.run import BuildResult, Limits, User
from hitless.pipeline.buildspec.spec import MAX_BYTES
from hitless.pipeline.definition import Definition
from hitless.pipeline.repository import Repository
from hitless.pipeline.runs import StepFailed, StepName
from hitless.pipeline.workshop import Workshop
from hitless.release.changes import differences
from hitless.service.model import BuildSettings
from tests.component.pipeline_bench import PipelineBench, tell_story

pytestmark = pytest.mark.component

SPEC = """version: 0.2
env:
  variables: {STAGE: of the buildspec}
  parameter-store: {TOKEN: /shop/token}
  secrets-manager: {PASSWORD: "shop/database:password"}
phases:
  build:
    commands:
      - echo "$STAGE $CODEBUILD_RESOLVED_SOURCE_VERSION $TOKEN $PASSWORD"
      - '[ "$TOKEN$PASSWORD" = abcdefxyzxyz ]'
      - echo "$CODEBUILD_BUILD_NUMBER $CODEBUILD_INITIATOR $CODEBUILD_WEBHOOK_HEAD_REF ${PWD#$CODEBUILD_SRC_DIR}."
      - python -c 'import sys; assert sys.prefix != sys.base_prefix'
      - cat kept/count 2>/dev/null || true
      - mkdir -p kept out/deep && echo once >> kept/count && touch out/deep/a.zip left-behind
cache: {paths: [kept]}
artifacts: {base-directory: out, files: ['**/*.zip']}
"""
PARAMETERS = "parameter-store: {/shop/token: abcdef}\nsecrets-manager: {shop/database: {password: xyzxyz}}\n"


class Yard:
    """A repository with one commit on dev, and its builder."""

    def __init__(self, folder: Path) -> None:
        self.workshop = replace(Workshop.of(folder / "data", os.environ), work=folder / "work", user=None)
        self.workshop.create()
        self.bench = PipelineBench(folder / "bench")
        self.repository = Repository(self.bench.repository.folder)
        self.builds = Builds(self.workshop, self.repository, SystemClock(), lambda: Limits(time_s=60))

    def commit(self, spec: str) -> str:
        (self.bench.clone / "buildspec-test.yml").write_text(spec)
        commit = self.bench.commit("1")
        self.bench.git("push", "-q", str(self.repository.folder), "dev")
        return commit

    def build(self, run: int, commit: str, path: str = "", step: StepName = StepName.TEST) -> BuildResult | None:
        self.workshop.of_run(run).mkdir()
        self.workshop.make(self.workshop.work_of(run))
        order = BuildOrder(run, commit, "dev", path, "ada", "dev", step=step)
        try:
            return asyncio.run(self.builds.run(order))
        finally:
            self.workshop.clean(run)

    def log(self, run: int) -> str:
        return self.workshop.log(run).read_text()


@pytest.fixture
def yard(tmp_path: Path) -> Any:
    (tmp_path / "bench").mkdir()
    one = Yard(tmp_path)
    yield one
    one.bench.store.close()


def test_a_build_gets_variables_and_parameters_and_its_artifacts_and_cache_are_kept(yard: Yard) -> None:
    yard.workshop.parameters.write_text(PARAMETERS)
    yard.workshop.parameters.chmod(0o600)
    commit = yard.commit(SPEC)
    first, second = yard.build(1, commit), yard.build(2, commit)
    assert first
    assert second
    assert f"dev {commit} *** ***\n" in yard.log(1)
    assert "abcdef" not in yard.log(1) + yard.log(2)
    assert "2 ada refs/heads/dev .\n" in yard.log(2)
    assert first.artifacts == ("deep/a.zip",)
    assert (yard.workshop.of_run(1) / "test-artifacts" / "deep" / "a.zip").is_file()
    assert "\nonce\n" not in yard.log(1)
    assert "\nonce\n" in yard.log(2), "the branch's cache"
    assert not list(yard.workshop.work.glob("run-*"))


COMPILES = """version: 0.2
phases: {build: {commands: [mkdir -p out, echo made > out/bootstrap, chmod 755 out/bootstrap, echo data > out/data]}}
artifacts: {base-directory: out, files: ['*']}
"""


def test_the_artifacts_of_a_build_are_added_to_a_checkout_with_their_modes(yard: Yard, tmp_path: Path) -> None:
    (yard.bench.clone / "buildspec-build.yml").write_text(COMPILES)
    commit = yard.commit(SPEC.replace("kept", "other"))
    assert yard.build(1, commit, step=StepName.BUILD)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "data").write_text("of the commit")
    kept = yard.workshop.artifacts_of(1, StepName.BUILD)
    assert add_artifacts(kept, checkout) == ["bootstrap", "data"]
    modes = {path.name: os.access(path, os.X_OK) for path in checkout.iterdir()}
    assert modes == {"bootstrap": True, "data": False}
    assert (checkout / "data").read_text() == "data\n"


def test_no_artifact_is_written_through_a_link_of_the_commit_or_replaces_its_configuration(tmp_path: Path) -> None:
    outside, checkout, kept = tmp_path / "outside", tmp_path / "checkout", tmp_path / "kept"
    for folder in (outside, checkout, kept / "out"):
        folder.mkdir(parents=True)
    (outside / "file").write_text("mine")
    (checkout / "linked").symlink_to(outside / "file")
    (kept / "linked").write_text("the build's")
    add_artifacts(kept, checkout)
    assert (outside / "file").read_text() == "mine"
    (checkout / "out").symlink_to(outside)
    (kept / "out" / "new").write_text("the build's")
    with pytest.raises(StepFailed, match="the artifact out/new leads out of the commit's files"):
        add_artifacts(kept, checkout)
    assert [path.name for path in outside.iterdir()] == ["file"]
    (kept / "out" / "new").unlink()
    (kept / "serverless.yml").write_text("service: another")
    with pytest.raises(StepFailed, match="would replace the configuration of the commit"):
        add_artifacts(kept, checkout)


@pytest.mark.parametrize(("version", "found"), [("1.26", True), ("1.x", True), ("'1.26.1'", True), ("1.2", False)])
def test_a_buildspec_that_requires_go_gets_its_command_or_an_error(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, found: bool
) -> None:
    (tmp_path / "go").write_text("#!/bin/sh\necho go version go1.26.1 linux/amd64\n")
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    spec = f"version: 0.2\nphases: {{build: {{runtime-versions: {{golang: {version}}}, commands: [go]}}}}\n"
    commit = yard.commit(spec)
    if found:
        assert yard.build(1, commit)
        assert "go version go1.26.1" in yard.log(1)
        return
    with pytest.raises(MachineError, match=r"the buildspec requires Go 1\.2, and there is go1\.26\.1 here") as refused:
        yard.build(1, commit)
    assert "go.dev/dl" in (refused.value.hint or "")


def test_a_result_has_no_secrets_and_no_control_characters(yard: Yard) -> None:
    """The result is shown in the run's reason, commit statuses and messages."""
    long = "x" * 300 + "hush"
    yard.workshop.parameters.write_text(
        f"parameter-store: {{/shop/token: abcdef}}\nsecrets-manager: {{shop/database: {{password: {long}}}}}\n"
    )
    yard.workshop.parameters.chmod(0o600)
    spec = (
        SPEC.split("phases:")[0].replace("variables:", "exported-variables: [OUT]\n  variables:")
        + """phases:
  build:
    commands:
      - OUT="of $TOKEN $(printf '\\033[31m')"
      - printf 'FORGED=1\\0' >> ../scratch/exported
      - touch "made-with-$TOKEN.zip" "$(printf 'not-utf8-\\377.zip')"
      - printf '<s><testcase classname="%s" name="%s"><failure/></testcase></s>' "$PASSWORD" "[$TOKEN]" > r.xml
      - FAILS
artifacts: {files: ['*.zip']}
reports: {unit: {files: [r.xml]}}
"""
    )
    kept = yard.build(1, yard.commit(spec.replace("FAILS", "'true'")))
    assert kept
    assert kept.exported == {"OUT": "of *** "}
    assert kept.reports[0].failures == ("***.[***]",)
    assert kept.artifacts == ("made-with-***.zip", "not-utf8-?.zip")
    assert (yard.workshop.of_run(1) / "test-artifacts" / "made-with-abcdef.zip").is_file()
    with pytest.raises(StepFailed, match=r"phase build failed.* \(1 failed: \*\*\*\.\[\*\*\*\]\)$") as failed:
        yard.build(2, yard.commit(spec.replace("FAILS", "'false'")))
    assert "abcdef" not in str(failed.value.detail)


def test_missing_or_readable_parameters_fail_the_build_before_it_begins(yard: Yard) -> None:
    commit = yard.commit(SPEC)
    with pytest.raises(StepFailed, match=r"there is no .*parameters\.yml"):
        yard.build(1, commit)
    yard.workshop.parameters.write_text(PARAMETERS)
    yard.workshop.parameters.chmod(0o640)
    with pytest.raises(StepFailed, match="can be read by others"):
        yard.build(2, commit)
    yard.workshop.parameters.write_text("parameter-store: {/shop/token: abcdef}\n")
    yard.workshop.parameters.chmod(0o600)
    with pytest.raises(StepFailed, match="has no secrets-manager value shop/database"):
        yard.build(3, commit)


def test_a_linked_buildspec_is_refused_and_a_missing_one_skipped(yard: Yard) -> None:
    commit = yard.commit("version: 0.2\nphases: {build: {commands: ['true']}}\n")
    (yard.bench.clone / "buildspec-test.yml").unlink()
    (yard.bench.clone / "buildspec-test.yml").symlink_to("/etc/passwd")
    linked = yard.bench.commit("2")
    yard.bench.git("rm", "-q", "-f", "buildspec-test.yml")
    without = yard.bench.commit("3")
    yard.bench.git("push", "-q", str(yard.repository.folder), "dev")
    assert yard.build(1, commit) is not None
    with pytest.raises(StepFailed, match="not a regular file"):
        yard.build(2, linked)
    assert yard.build(3, without) is None


def test_too_large_buildspecs_and_parameters_are_refused(yard: Yard) -> None:
    large = yard.commit(SPEC + "#" * MAX_BYTES)
    with pytest.raises(StepFailed, match=r"^buildspec-test\.yml is larger than"):
        yard.build(1, large)
    yard.workshop.parameters.write_text(PARAMETERS + "#" * MAX_FILE_BYTES)
    yard.workshop.parameters.chmod(0o600)
    with pytest.raises(StepFailed, match=r"parameters\.yml is larger than"):
        yard.build(2, yard.commit(SPEC))


@pytest.mark.parametrize("path", ["..", "outside"])
def test_a_service_path_outside_the_commit_is_refused(yard: Yard, path: str) -> None:
    (yard.bench.clone / "outside").symlink_to("/etc")
    with pytest.raises(StepFailed, match="leads out of the commit's files"):
        yard.build(1, yard.commit(SPEC), path)


def test_deeply_nested_folders_are_removed_after_a_run(yard: Yard) -> None:
    yard.commit("version: 0.2\nphases: {build: {commands: ['mkdir -p own && chmod 0 own']}}\n")
    stream = (
        "blob\nmark :1\ndata 1\nx\ncommit refs/heads/dev\ncommitter Ada <ada@example.org> 1000000000 +0000\n"
        f"data 4\ndeep\nfrom refs/heads/dev^0\nM 644 :1 {'d/' * 1500}file\n"
    )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=yard.bench.clone, input=stream.encode(), check=True)
    yard.bench.git("push", "-q", str(yard.repository.folder), "dev")
    try:
        yard.build(1, yard.bench.git("rev-parse", "dev"))
        assert not list(yard.workshop.work.glob("run-*"))
        yard.workshop.clean_all()
    finally:
        subprocess.run(["rm", "-rf", str(yard.workshop.work)], check=True)  # pytest could not


def test_a_commit_with_ten_thousand_files_is_shipped(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        commit_many(bench.clone)
        run = await bench.end_of(await bench.push())
        assert (run["state"], run["release"]) == ("succeeded", 1)

    tell_story(tmp_path, story)


def commit_many(clone: Path) -> None:
    """Ten thousand files, by git's own importer."""
    files = "".join(f"M 644 :1 folder-{index % 100}/file-{index}\n" for index in range(10_000))
    stream = (
        "blob\nmark :1\ndata 1\nx\ncommit refs/heads/dev\ncommitter Ada <ada@example.org> 1000000000 +0000\n"
        f"data 4\nmany\nfrom refs/heads/dev^0\n{files}"
    )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=clone, input=stream.encode(), check=True)


def test_configuration_differences_name_variables_without_values() -> None:
    def document(memory: int, **variables: str) -> dict[str, Any]:
        pairs = [list(pair) for pair in variables.items()]
        return {"functions": [{"name": "api", "memory_mb": memory, "environment": pairs}], "commit": str(memory)}

    old, new = document(512, KEY="secret-1", OLD="x"), document(1024, KEY="secret-2", NEW="y")
    assert differences(old, new) == [
        "functions.api.memory_mb: 512 → 1024",
        "functions.api.environment.NEW: added",
        "functions.api.environment.OLD: removed",
        "functions.api.environment.KEY: changed",
    ]
    assert differences(old, old) == []


def test_build_folders_of_removed_engines_are_removed(tmp_path: Path) -> None:
    here = replace(Workshop.of(tmp_path / "data", {}), work=tmp_path / "hitless-builds-here", user=User(1, 1))
    for name, data in (("gone", tmp_path / "no-such"), ("there", tmp_path)):
        (folder := tmp_path / f"hitless-builds-{name}").mkdir()
        (folder / "owner").write_text(str(data))
    (tmp_path / "hitless-builds-begun").mkdir()  # or another engine has just swept it
    here.create()
    assert sorted(path.name for path in tmp_path.glob("hitless-builds-*")) == [
        "hitless-builds-begun",
        "hitless-builds-here",
        "hitless-builds-there",
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="only root finds another user's folder in its way, and could remove it")
def test_a_build_folder_with_another_users_owner_file_is_kept(tmp_path: Path) -> None:
    """Anybody can make a folder of that name in /var/tmp whose owner file names a data folder that never existed."""
    theirs = tmp_path / "hitless-builds-theirs"
    theirs.mkdir()
    (theirs / "owner").write_text(str(tmp_path / "no-such"))
    os.chown(theirs / "owner", 1, 1)
    replace(Workshop.of(tmp_path / "data", {}), work=tmp_path / "hitless-builds-here", user=User(1, 1)).create()
    assert (theirs / "owner").exists()


def test_build_limits_are_read_from_the_stored_definition(tmp_path: Path) -> None:
    assert limits_of(None) == Limits()
    file = tmp_path / "definition.json"
    Definition("shop", "", (), BuildSettings(30, 512, 1)).write(file)
    assert limits_of(Definition.read(file)) == Limits(1800.0, 512, 1 << 20)
    file.write_text('{"service": "shop", "path": "", "stages": []}')
    assert limits_of(Definition.read(file)) == Limits(), "as an earlier hitless wrote it"
