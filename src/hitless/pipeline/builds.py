"""Runs the buildspecs of a run: clean checkout, CodeBuild's variables, limits, log, reports, artifacts, cache."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from hitless.clock import Clock
from hitless.documents import convert
from hitless.pipeline.buildspec import parameters
from hitless.pipeline.buildspec.files import open_inside, remove
from hitless.pipeline.buildspec.output import Mask, visible
from hitless.pipeline.buildspec.processes import end_user
from hitless.pipeline.buildspec.run import BuildPlan, BuildResult, Limits, User, as_line
from hitless.pipeline.buildspec.spec import MAX_BYTES, Buildspec
from hitless.pipeline.children import close_input, run_child
from hitless.pipeline.definition import Definition
from hitless.pipeline.environments import environment, keep_cache, key_of, restore_cache, tools
from hitless.pipeline.repository import Repository
from hitless.pipeline.runs import StepFailed, StepName
from hitless.pipeline.workshop import Workshop
from hitless.service.model import BuildSettings

MAX_AT_ONCE = 2
"""Builds of an engine at a time."""
TEST_FILE = "buildspec-test.yml"
BUILD_FILE = "buildspec-build.yml"
_PASSED_ON = re.compile(
    "(?i:https?_proxy|no_proxy|all_proxy)|PIP_.*|UV_.*|npm_config_.*|NPM_CONFIG_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE"
    "|NODE_EXTRA_CA_CERTS|GO(?:PROXY|SUMDB|PRIVATE|NOPROXY|NOSUMDB)|LANG|LC_.*|TZ|HITLESS_PACKAGE|HITLESS_HAPROXY"
)
_SECRET_NAME = re.compile(r"(?i).*(?:auth|token|passw|secret|credential|_key|userconfig|netrc).*")
_PASSWORD = re.compile(r"//[^/\s:@]+:([^/\s@]+)@")
"""The password in the URL of a registry or proxy."""


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """A step's buildspec. `path` is the service's folder in the commit, and `stage` becomes the variable STAGE."""

    run: int
    commit: str
    branch: str
    path: str
    actor: str
    stage: str | None = None
    fork: int | None = None
    """The pull request of a fork, whose build gets no secrets and shares no files with other builds."""
    step: StepName = StepName.TEST


class Builds:
    """The builds of one pipeline, each in a process that ends with the daemon."""

    def __init__(
        self,
        workshop: Workshop,
        repository: Repository,
        clock: Clock,
        limits: Callable[[], Limits],
        places: asyncio.Semaphore | None = None,
    ) -> None:
        """`limits` is called before each build; all pipelines of an engine share the `places` of builds."""
        self._workshop, self._repository, self._clock, self._limits = workshop, repository, clock, limits
        self._places = places or asyncio.Semaphore(MAX_AT_ONCE)

    async def run(self, order: BuildOrder) -> BuildResult | None:
        """The build's result; None if the commit has no such file. Raises StepFailed if the build did not succeed."""
        if self._places.locked():
            with self._workshop.log(order.run).open("a") as log:
                log.write(f"waits until one of {MAX_AT_ONCE} builds has ended\n")
        async with self._places, AsyncExitStack() as stack:
            user = stack.enter_context(self._workshop.run_user(order.run))
            if user:
                await asyncio.to_thread(end_user, user.uid)  # processes of a build whose supervisor was killed
            elif order.fork is not None:
                raise StepFailed("a fork's code does not run as the engine's own user")
            place = self._workshop.make(self._workshop.work_of(order.run) / order.step)
            place.chmod(0o711)
            stack.callback(place.chmod, 0o700)  # from then on another run may get the user id
            source = self._workshop.make(place / "source", user)
            await self._repository.extract(order.commit, source, user=user)
            folder = service_folder(source, order.path)
            file = BUILD_FILE if order.step is StepName.BUILD else TEST_FILE
            found = read_buildspec(folder, file)
            if found is None:
                return None
            text, spec = found
            secrets = self._secrets(order, spec)
            scratch = self._workshop.make(place / "scratch", user)
            python = await self._environment(stack, order, spec, text, folder, user)
            environ = self._environ(order, [python / "bin", *tools(spec)], scratch)
            scope, nowhere = f"{self._workshop.service}:{order.branch}", Path("/nonexistent")
            kept = self._workshop.caches / key_of(scope, spec, repr(spec.cache.paths), nowhere)
            shares = order.fork is None
            if spec.cache.paths and shares:
                await asyncio.to_thread(restore_cache, kept, folder, user)
            plan = BuildPlan(
                buildspec=text,
                source=str(folder),
                scratch=str(scratch),
                log=str(self._workshop.log(order.run)),
                environ=environ,
                secrets=secrets,
                masked=tuple(found[1] for value in environ.values() for found in _PASSWORD.finditer(value)),
                limits=self._limits(),
                user=user,
            )
            ended = await _supervise(plan)
            if spec.cache.paths and shares and ended.succeeded:
                await asyncio.to_thread(keep_cache, kept, folder, spec.cache.paths, user)
            if shares:
                ended = await asyncio.to_thread(self._keep_artifacts, order, spec, folder, ended)
            mask = Mask([*secrets.values(), *plan.masked])
            result = convert(_presentable(msgspec.to_builtins(ended), mask), BuildResult, "the build's result")
        if not result.succeeded:
            raise StepFailed(f"{file}: {_why(result)}", detail=result)
        return result

    def _secrets(self, order: BuildOrder, spec: Buildspec) -> dict[str, str]:
        """The build's variables; empty for a fork, so that tests that do not need them can run."""
        if order.fork is None:
            return parameters.resolve(spec, self._workshop.parameters)
        names = sorted({*spec.parameters, *spec.secrets})
        if names:
            with self._workshop.log(order.run).open("a") as log:
                log.write(f"{', '.join(names)}: empty, because a fork's build gets no parameters\n")
        return dict.fromkeys(names, "")

    async def _environment(
        self, stack: AsyncExitStack, order: BuildOrder, spec: Buildspec, text: str, folder: Path, user: User | None
    ) -> Path:
        """A virtual environment, made or found in a thread; returned when the build has ended."""
        key = key_of(f"{self._workshop.service}:{order.branch}", spec, text, folder)
        root = self._workshop.environments
        if order.fork is not None:
            root = self._workshop.work_of(order.run) / "environments"
            root.mkdir(mode=0o711)
        held = environment(root, key, spec.runtimes.get("python"), user)
        python = await asyncio.to_thread(held.__enter__)
        stack.callback(held.__exit__, None, None, None)
        return python

    def _environ(self, order: BuildOrder, commands: list[Path], scratch: Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
        head, trigger = f"refs/heads/{order.branch}", f"branch/{order.branch}"
        if order.fork is not None:
            for name, value in list(inherited.items()):
                if _SECRET_NAME.fullmatch(name) or re.search(r"//[^/\s]*@", value):  # of a registry or proxy
                    del inherited[name]
            head, trigger = f"refs/pull/{order.fork}/head", f"pr/{order.fork}"
        path = f"{':'.join(map(str, commands))}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        build = f"hitless-{order.step}:{order.run}"
        return {
            "LANG": "C.UTF-8",
            **inherited,
            "PATH": path,
            "VIRTUAL_ENV": str(commands[0].parent),
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "CI": "true",
            "CODEBUILD_CI": "true",
            "CODEBUILD_BUILD_ID": build,
            "CODEBUILD_BUILD_ARN": f"arn:aws:codebuild:local:000000000000:build/{build}",
            "CODEBUILD_BUILD_NUMBER": str(order.run),
            "CODEBUILD_BUILD_IMAGE": "local",
            "CODEBUILD_INITIATOR": order.actor,
            "CODEBUILD_RESOLVED_SOURCE_VERSION": order.commit,
            "CODEBUILD_SOURCE_VERSION": order.commit,
            "CODEBUILD_SOURCE_REPO_URL": str(self._workshop.repository),
            "CODEBUILD_START_TIME": str(int(self._clock.now().timestamp() * 1000)),
            "CODEBUILD_WEBHOOK_HEAD_REF": head,
            "CODEBUILD_WEBHOOK_TRIGGER": trigger,
            **({"STAGE": order.stage} if order.stage else {}),
        }

    def _keep_artifacts(self, order: BuildOrder, spec: Buildspec, folder: Path, result: BuildResult) -> BuildResult:
        """Copy the artifacts into the run's folder, by their paths below the artifacts' base."""
        target = self._workshop.artifacts_of(order.run, order.step)
        remove(target)
        root = folder.resolve()
        base = (folder / spec.artifacts.base).resolve()
        names = []
        for path in map(Path, result.artifacts):
            real = path.resolve()
            inside = real.relative_to(base) if real.is_relative_to(base) else Path(path.name)
            name = Path(path.name) if spec.artifacts.flat else inside
            os.makedirs(target / name.parent, exist_ok=True)
            with open(open_inside(root, real), "rb") as read, (target / name).open("wb") as kept:
                shutil.copyfileobj(read, kept)
                os.fchmod(kept.fileno(), 0o700 if os.fstat(read.fileno()).st_mode & 0o100 else 0o600)
            names.append(str(name))
        return replace(result, artifacts=tuple(sorted(names)))


def limits_of(definition: Definition | None) -> Limits:
    """The limits of the commit last built for a stage, so that a branch cannot raise its own."""
    allowed = definition.builds if definition else BuildSettings()
    return Limits(allowed.timeout_in_minutes * 60.0, allowed.memory_mb, allowed.output_mb << 20)


def service_folder(checkout: Path, path: str) -> Path:
    """The service's folder in a commit's files. Raises StepFailed if a link leads out of them."""
    folder = checkout / path
    if not folder.resolve().is_relative_to(checkout.resolve()):
        raise StepFailed(f"{path} leads out of the commit's files")
    return folder


def add_artifacts(kept: Path, folder: Path) -> list[str]:
    """Copy a build's artifacts into the service's folder of a checkout; their names. Raises StepFailed."""
    files = {str(path.relative_to(kept)): path for path in sorted(kept.rglob("*")) if path.is_file()}
    for name, path in files.items():
        target = folder / name
        if not target.parent.resolve().is_relative_to(folder.resolve()):
            raise StepFailed(f"{BUILD_FILE}: the artifact {name} leads out of the commit's files")
        if name.startswith("serverless."):
            raise StepFailed(f"{BUILD_FILE}: the artifact {name} would replace the configuration of the commit")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # so that no link of the commit is followed
            shutil.copy(path, target)
        except OSError as error:
            raise StepFailed(f"{BUILD_FILE}: the artifact {name} cannot be added: {error.strerror}") from error
    return list(files)


def read_buildspec(folder: Path, name: str) -> tuple[str, Buildspec] | None:
    """A buildspec with its text; None if there is none. Raises StepFailed if it is too large or not valid."""
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    if path.is_symlink() or not path.is_file():
        raise StepFailed(f"{name} is not a regular file")
    if path.stat().st_size > MAX_BYTES:
        raise StepFailed(f"{name} is larger than {MAX_BYTES} bytes")
    try:
        text = path.read_text("utf-8")
        return text, Buildspec.read(text)
    except UnicodeDecodeError as error:
        raise StepFailed(f"{name} is not UTF-8") from error
    except ValueError as error:
        raise StepFailed(f"{name}: {error}") from error


async def _supervise(plan: BuildPlan) -> BuildResult:
    """Run the build in a process that exits when its input is closed, or when its caller no longer waits."""
    words = [sys.executable, "-m", "hitless.processes.build"]
    code, out, _ = await run_child(words, line=as_line(plan), hold_input=True, errors=Path(plan.log), end=close_input)
    try:
        return convert(json.loads(out), BuildResult, "the build's result")
    except ValueError as error:
        raise StepFailed(f"the build's own process ended with {code}") from error


def _presentable(value: Any, mask: Mask) -> Any:
    """The result without secrets and control characters, to be stored and shown."""
    if isinstance(value, str):
        return visible(mask.text(value.encode(errors="replace")).decode())
    if isinstance(value, list | tuple):
        return [_presentable(one, mask) for one in value]
    return {key: _presentable(one, mask) for key, one in value.items()} if isinstance(value, dict) else value


def _why(result: BuildResult) -> str:
    failures = [name[:200] for report in result.reports for name in report.failures]
    failed = sum(report.failed or 0 for report in result.reports)
    named = f" ({failed} failed: {', '.join(failures[:3])}{', …' if failed > 3 else ''})" if failures else ""
    return f"{result.reason}{named}"
