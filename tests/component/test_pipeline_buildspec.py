"""Buildspecs run phase by phase as on CodeBuild, within limits, and leave no process behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hitless.documents import to_plain
from hitless.pipeline.buildspec.output import LONGEST_LINE_BYTES, Mask
from hitless.pipeline.buildspec.run import BuildPlan, BuildResult, Limits, as_line, run
from hitless.pipeline.buildspec.spec import Buildspec
from hitless.worker.memory import family
from tests.support import eventually, have_ended

pytestmark = pytest.mark.component


def plan_of(folder: Path, text: str, environ: dict[str, str], limits: Limits, secrets: dict[str, str]) -> BuildPlan:
    source, scratch, log = (str(folder / name) for name in ("source", "scratch", "log"))
    return BuildPlan(
        buildspec=text, source=source, scratch=scratch, log=log, environ=environ, limits=limits, secrets=secrets
    )


@dataclass
class Built:
    build: BuildResult
    log: str

    @property
    def phases(self) -> dict[str, int]:
        return dict(self.build.phases)


def build(
    tmp_path: Path,
    phases: str,
    *,
    head: str = "",
    tail: str = "",
    limits: Limits = Limits(time_s=20),  # noqa: B008 - frozen
    secrets: dict[str, str] | None = None,
) -> Built:
    source, scratch = tmp_path / "source", tmp_path / "scratch"
    source.mkdir()
    scratch.mkdir()
    text = f"version: 0.2\n{head}phases:\n{phases}\n{tail}"
    output: list[bytes] = []
    environ = {"PATH": os.environ["PATH"], "FROM": "project"}
    plan = plan_of(tmp_path, text, environ, limits, secrets or {})
    done = run(plan, output=output.append)
    return Built(done, b"".join(output).decode())


def test_commands_share_one_shell_and_project_variables_take_precedence(tmp_path: Path) -> None:
    done = build(
        tmp_path,
        "  install: {commands: ['mkdir sub', 'cd sub', 'A=1']}\n"
        "  build: {commands: ['echo in $(basename $PWD) $A $FROM $OWN']}",
        head="env: {variables: {FROM: buildspec, OWN: file}}\n",
    )
    assert done.build.succeeded
    assert "in sub 1 project file" in done.log


def test_a_failed_command_ends_its_phase_but_finally_runs(tmp_path: Path) -> None:
    done = build(tmp_path, "  build: {commands: ['false', 'echo never'], finally: ['echo at last']}")
    assert (done.build.succeeded, done.phases) == (False, {"build": 1})
    assert "echo never" not in done.log
    assert "at last\n" in done.log
    assert done.build.reason == "phase build failed with status 1"


@pytest.mark.parametrize(
    ("broken", "ran"), [("install", ["install"]), ("pre_build", ["pre_build"]), ("build", ["build", "post_build"])]
)
def test_post_build_runs_only_after_a_failed_build_phase(tmp_path: Path, broken: str, ran: list[str]) -> None:
    phases = f"  {broken}: {{commands: ['false']}}\n  post_build: {{commands: ['echo $CODEBUILD_BUILD_SUCCEEDING']}}"
    done = build(tmp_path, phases)
    assert (done.build.succeeded, list(done.phases)) == (False, ran)


def test_on_failure_continue_lets_the_build_succeed(tmp_path: Path) -> None:
    done = build(tmp_path, "  install: {on-failure: CONTINUE, commands: ['false']}\n  build: {commands: ['true']}")
    assert (done.build.succeeded, done.phases) == (True, {"install": 1, "build": 0})


def test_a_phase_fails_if_its_shell_exits(tmp_path: Path) -> None:
    done = build(tmp_path, "  build: {commands: ['echo ${MISSING:?is not set}', 'echo never']}")
    assert (done.build.succeeded, done.phases) == (False, {"build": 1})


def test_only_matching_files_within_the_sources_become_artifacts(tmp_path: Path) -> None:
    (tmp_path / "outside.zip").touch()
    done = build(
        tmp_path,
        "  build: {commands: ['mkdir -p out/deep', 'touch out/a.zip out/deep/b.zip out/c.txt out/deep/old.zip',"
        " 'ln -s ../../outside.zip out/link.zip']}",
        tail="artifacts: {base-directory: out, files: ['**/*.zip'], exclude-paths: ['**/old.zip']}\n",
    )
    assert [Path(path).name for path in done.build.artifacts] == ["a.zip", "b.zip"]


def test_exported_variables_have_their_values_of_the_builds_end(tmp_path: Path) -> None:
    done = build(
        tmp_path,
        "  build: {commands: ['V=\"$(printf ''two\\nlines'')\"']}",
        head="env: {exported-variables: [V, MISSING]}\n",
    )
    assert done.build.exported == {"V": "two\nlines", "MISSING": ""}


def test_test_reports_show_the_failed_tests_and_the_coverage(tmp_path: Path) -> None:
    junit = (
        '<testsuite><testcase classname="t.A" name="good"/><testcase classname="t.A" name="bad"><failure/></testcase>'
        '<testcase name="later"><skipped/></testcase></testsuite>'
    )
    done = build(
        tmp_path,
        f"  build: {{commands: ['echo ''{junit}'' > junit.xml',"
        " 'echo ''<coverage lines-valid=\"8\" lines-covered=\"6\"/>'' > c.xml',"
        " 'echo ''<!DOCTYPE a []><testsuite/>'' > evil.xml']}",
        tail="reports:\n  tests: {files: [junit.xml, evil.xml]}\n"
        "  lines: {files: [c.xml], file-format: COBERTURAXML}\n",
    )
    tests, lines = done.build.reports
    assert (tests.tests, tests.failed, tests.skipped, tests.failures) == (3, 1, 1, ("t.A.bad",))
    assert "document type" in tests.unreadable[0]
    assert to_plain(lines) == {"report": "lines", "coverage_percent": 75.0}


def test_a_secret_reaches_the_build_but_not_its_log(tmp_path: Path) -> None:
    done = build(
        tmp_path,
        "  build: {commands: ['[ \"$TOKEN\" = s3cret-word ] && echo it is $TOKEN.']}",
        secrets={"TOKEN": "s3cret-word"},
    )
    assert done.build.succeeded
    assert "it is ***." in done.log
    assert "s3cret" not in done.log


def test_a_secret_that_is_split_over_two_writes_is_masked() -> None:
    text = b"xyz-hunter22" * (LONGEST_LINE_BYTES // 4) + b"\n"  # one line, and a secret at nearly every cut
    for size in (7, 1000, 65536):
        mask = Mask(["hunter22"])
        shown = b"".join(mask.feed(text[at : at + size]) for at in range(0, len(text), size)) + mask.end()
        assert shown == text.replace(b"hunter22", b"***")


@pytest.mark.parametrize(
    ("command", "limits", "reason"),
    [
        ("sleep 60", Limits(time_s=0.5), "time limit"),
        ("python3 -c ''x = bytearray(200 << 20); input() or input()'' < /dev/zero", Limits(memory_mb=100), "memory"),
    ],
)
def test_a_build_that_exceeds_a_limit_is_ended(tmp_path: Path, command: str, limits: Limits, reason: str) -> None:
    done = build(tmp_path, f"  build: {{commands: ['{command}']}}", limits=limits)
    assert not done.build.succeeded
    assert reason in str(done.build.reason)
    assert reason in done.log


def test_build_output_beyond_its_limit_is_dropped_with_a_message(tmp_path: Path) -> None:
    done = build(tmp_path, "  build: {commands: ['yes | head -c 100000']}", limits=Limits(output_bytes=1000))
    assert done.build.succeeded
    assert len(done.log) < 2000
    assert "reached its limit" in done.log


def supervise(tmp_path: Path, command: str) -> tuple[subprocess.Popen[bytes], BuildPlan]:
    source, scratch = tmp_path / "source", tmp_path / "scratch"
    source.mkdir()
    scratch.mkdir()
    spec = f"version: 0.2\nphases: {{build: {{commands: ['{command}']}}}}"
    environ = {"PATH": os.environ["PATH"]}
    plan = plan_of(tmp_path, spec, environ, Limits(time_s=60), {})
    words = [sys.executable, "-m", "hitless.processes.build"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/")
    assert process.stdin is not None
    process.stdin.write(as_line(plan))
    process.stdin.flush()
    return process, plan


def test_background_processes_of_a_build_end_with_it(tmp_path: Path) -> None:
    process, plan = supervise(tmp_path, "(setsid sleep 60 & echo $! > pid) & until [ -s pid ]; do :; done")
    assert process.stdout is not None
    out = process.stdout.readline()
    process.communicate(timeout=30)
    result: dict[str, Any] = json.loads(out)
    assert result["succeeded"]
    have_ended([int((Path(plan.source) / "pid").read_text())])


def test_a_build_ends_with_its_daemon(tmp_path: Path) -> None:
    process, plan = supervise(tmp_path, "(setsid sleep 60 &) ; touch begun; sleep 60")
    eventually((Path(plan.source) / "begun").exists, what="the build has begun")
    below = family(process.pid)[1:]
    assert below
    process.communicate(timeout=30)  # closes its input, as the daemon's death does
    assert process.returncode == 0
    have_ended(below)


@pytest.mark.parametrize(
    "text",
    [
        "version: 0.1",
        "version: 0.2",
        "- a list",
        "version: 0.2\nphases: {deploy: {commands: []}}",
        "version: 0.2\nphases: {build: {commands: [{echo a: b}]}}",
        "version: 0.2\nphases: {build: {commands: [a], on-failure: RETRY}}",
        "version: 0.2\nbatch: {}\nphases: {build: {commands: [a]}}",
        "version: 0.2\nenv: {exported-variables: ['a b']}\nphases: {build: {commands: [a]}}",
        "version: 0.2\nphases: {build: {commands: [a]}}\nreports: {r: {files: [a], file-format: TESTNGXML}}",
        "version: 0.2\nphases: {build: [unclosed",
    ],
)
def test_unsupported_buildspecs_are_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"version|cannot be run here|no text|not a|no phases|texts|YAML|not read here"
    ):
        Buildspec.read(text)
