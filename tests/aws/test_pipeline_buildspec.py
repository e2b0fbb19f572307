"""The runner of buildspec 0.2 goes through phases as CodeBuild does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.aws.pipeline.buildspec import Build, Buildspec, run

pytestmark = pytest.mark.aws


def build(tmp_path: Path, phases: str, *, head: str = "", tail: str = "") -> Build:
    source = tmp_path / "source"
    source.mkdir()
    spec = Buildspec.read(f"version: 0.2\n{head}phases:\n{phases}\n{tail}")
    return run(spec, source, tmp_path, {"PATH": os.environ["PATH"], "FROM": "project"}, limit_s=20)


def test_commands_share_one_shell_and_the_project_s_variables_win(tmp_path: Path) -> None:
    done = build(
        tmp_path,
        "  install: {commands: ['mkdir sub', 'cd sub', 'A=1']}\n"
        "  build: {commands: ['echo in $(basename $PWD) $A $FROM $OWN']}",
        head="env: {variables: {FROM: buildspec, OWN: file}}\n",
    )
    assert done.succeeded
    assert "in sub 1 project file" in done.log


def test_a_failing_command_ends_its_phase_and_finally_runs(tmp_path: Path) -> None:
    done = build(tmp_path, "  build: {commands: ['false', 'echo never'], finally: ['echo at last']}")
    assert (done.succeeded, done.phases) == (False, {"build": 1})
    assert "echo never" not in done.log
    assert "at last\n" in done.log


@pytest.mark.parametrize(
    ("broken", "ran"), [("install", ["install"]), ("pre_build", ["pre_build"]), ("build", ["build", "post_build"])]
)
def test_post_build_runs_after_a_failed_build_and_after_no_other_failure(
    tmp_path: Path, broken: str, ran: list[str]
) -> None:
    phases = f"  {broken}: {{commands: ['false']}}\n  post_build: {{commands: ['echo $CODEBUILD_BUILD_SUCCEEDING']}}"
    done = build(tmp_path, phases)
    assert (done.succeeded, list(done.phases)) == (False, ran)


def test_a_phase_may_go_on_after_a_failure(tmp_path: Path) -> None:
    done = build(tmp_path, "  install: {on-failure: CONTINUE, commands: ['false']}\n  build: {commands: ['true']}")
    assert (done.succeeded, done.phases) == (True, {"install": 1, "build": 0})


def test_a_shell_that_exits_failed_its_phase(tmp_path: Path) -> None:
    done = build(tmp_path, "  build: {commands: ['echo ${MISSING:?is not set}', 'echo never']}")
    assert (done.succeeded, done.phases) == (False, {"build": 1})


def test_artifacts_are_the_files_that_the_patterns_find(tmp_path: Path) -> None:
    done = build(
        tmp_path,
        "  build: {commands: ['mkdir -p out/deep', 'touch out/a.zip out/deep/b.zip out/c.txt']}",
        tail="artifacts: {base-directory: out, files: ['**/*.zip']}\n",
    )
    assert [path.name for path in done.artifacts] == ["a.zip", "b.zip"]


@pytest.mark.parametrize(
    "text",
    [
        "version: 0.1",
        "version: 0.2\nphases: {deploy: {commands: []}}",
        "version: 0.2\nenv: {secrets-manager: {A: b}}",
        "version: 0.2\nphases: {build: {commands: [{echo a: b}]}}",
    ],
)
def test_what_the_runner_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"version|not run here|no text"):
        Buildspec.read(text)
