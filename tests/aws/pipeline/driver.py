"""Runs a pipeline definition on this machine: a push to a bare repository, then its stages in order.

Each build gets the credentials of its project's role, by AssumeRole at the front, as CodeBuild hands them out; a
Python of its own (runtime-versions) and a place of its own for global npm packages, as in a fresh container.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hitless.pipeline.buildspec.run import BuildPlan, BuildResult, Limits, run
from hitless.pipeline.buildspec.spec import Buildspec
from tests.aws.pipeline.template import Action, PipelineDefinition, action_variables


@dataclass(frozen=True, slots=True)
class StepResult:
    stage: str
    action: str
    build: BuildResult | None
    log: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of the pipeline. It ends at the first step that does not succeed."""

    commit: str
    succeeded: bool
    steps: tuple[StepResult, ...]

    def log(self) -> str:
        return "\n".join(f"--- {one.stage}/{one.action}\n{one.log}" for one in self.steps if one.build)


@dataclass
class _Passage:
    """A commit in the pipeline: artifacts by name, variables as `Namespace.Name`."""

    branch: str
    commit: str
    place: Path
    artifacts: dict[str, Path] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class Driver:
    """`credentials` gives a role's session as environment variables; `approve` answers manual approvals."""

    definition: PipelineDefinition
    repository: Path
    folder: Path
    environ: Mapping[str, str]
    credentials: Callable[[str], Mapping[str, str]]
    approve: Callable[[str], bool] = lambda _: True
    _seen: dict[str, str] = field(default_factory=dict)

    def after_push(self) -> list[Run]:
        """Runs for each branch of the triggers that moved since the last call."""
        runs = []
        for branch in self.definition.branches:
            commit = self._git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False).strip()
            if commit and self._seen.get(branch) != commit:
                self._seen[branch] = commit
                runs.append(self._run(branch, commit))
        return runs

    def _run(self, branch: str, commit: str) -> Run:
        passage = _Passage(branch, commit, self.folder / commit[:12])
        steps: list[StepResult] = []
        for stage in self.definition.stages:
            for action in stage.actions:
                started = time.monotonic()
                succeeded, build, log = self._act(action, stage.name, passage)
                steps.append(StepResult(stage.name, action.name, build, log, time.monotonic() - started))
                if not succeeded:
                    return Run(commit, False, tuple(steps))
        return Run(commit, True, tuple(steps))

    def _act(self, action: Action, stage: str, passage: _Passage) -> tuple[bool, BuildResult | None, str]:
        """Whether the action succeeded, and its build and log if it has one."""
        match action.category:
            case "Source":
                passage.artifacts[action.outputs[0]] = self._source(passage.commit, passage.place / "source")
                passage.variables |= self._source_variables(action, passage.branch, passage.commit)
                return True, None, ""
            case "Approval":
                return self.approve(action.configuration.get("CustomData", "")), None, ""
            case "Build" | "Test":
                source = passage.artifacts[action.inputs[0]]
                build, log = self._build(action, source, passage.place / stage, passage.commit, passage.variables)
                return build.succeeded, build, log
            case _:
                raise ValueError(f"action {action.category}")

    def _source(self, commit: str, place: Path) -> Path:
        """The commit's files without git's own, as CODE_ZIP passes them on."""
        archive = subprocess.run(
            ["git", "--git-dir", str(self.repository), "archive", commit], stdout=subprocess.PIPE, check=True
        ).stdout
        place.mkdir(parents=True)
        subprocess.run(["tar", "-x", "-C", str(place)], input=archive, check=True)
        return place

    def _source_variables(self, action: Action, branch: str, commit: str) -> dict[str, str]:
        message = self._git("log", "-1", "--format=%s", commit).strip()
        values = {"CommitId": commit, "BranchName": branch, "CommitMessage": message}
        return {f"{action.namespace}.{name}": value for name, value in values.items()}

    def _build(
        self, action: Action, source: Path, place: Path, commit: str, variables: Mapping[str, str]
    ) -> tuple[BuildResult, str]:
        project = self.definition.projects[action.configuration["ProjectName"]]
        text = (source / project.buildspec).read_text("utf-8")
        spec = Buildspec.read(text)
        build: BuildResult | None = None
        for attempt in ("first", "second"):
            folder = place / attempt
            own = folder / "source"
            folder.mkdir(parents=True)
            subprocess.run(["cp", "-R", str(source), str(own)], check=True)
            environ = {
                **self._container(folder, spec),
                **self.credentials(project.role_arn),
                "CODEBUILD_BUILD_ID": f"{project.name}:{commit[:8]}",
                "CODEBUILD_RESOLVED_SOURCE_VERSION": commit,
                **project.environment,
                **action_variables(action, variables),
            }
            limits = Limits(time_s=min(project.limit_s, 600.0))
            with (folder / "log").open("wb") as log:
                plan = BuildPlan(
                    buildspec=text,
                    source=str(own),
                    scratch=str(folder),
                    log=log.name,
                    environ=environ,
                    limits=limits,
                )
                build = run(plan, output=log.write)
            if build.phases.get("install", 0) == 0:
                break  # a package registry that fails for a moment is nothing of ours
        assert build is not None
        return build, (folder / "log").read_text(errors="replace")

    def _container(self, place: Path, spec: Buildspec) -> dict[str, str]:
        """A Python of the wanted version and a home of its own."""
        python = place / "python"
        uv = Path(sys.executable).with_name("uv")
        wanted = spec.runtimes.get("python", f"{sys.version_info.major}.{sys.version_info.minor}")
        subprocess.run([str(uv), "venv", "--quiet", "--seed", "--python", wanted, str(python)], check=True)
        (tools := place / "tools").mkdir()
        (tools / "npm").symlink_to(Path(__file__).with_name("npm"))
        path = [str(tools), str(python / "bin"), str(place / "npm" / "bin"), self.environ.get("PATH", "/usr/bin:/bin")]
        return {
            **self.environ,
            "HOME": str(place),
            "PATH": ":".join(path),
            "PIPELINE_NODE": str(Path(__file__).resolve().parents[3] / "node"),
            "PIPELINE_NPM": shutil.which("npm", path=self.environ.get("PATH")) or "npm",
            "NPM_CONFIG_PREFIX": str(place / "npm"),
            "NPM_CONFIG_CACHE": str(Path.home() / ".npm"),
            "PIP_CACHE_DIR": str(Path.home() / ".cache" / "pip"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def _git(self, *words: str, check: bool = True) -> str:
        done: Any = subprocess.run(
            ["git", "--git-dir", str(self.repository), *words], stdout=subprocess.PIPE, text=True, check=check
        )
        return str(done.stdout)
