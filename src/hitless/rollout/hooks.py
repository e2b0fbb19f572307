"""Hooks: functions of a service that a rollout calls before and after it moves traffic, with CodeDeploy's protocol."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from hitless.artifact.store import ArtifactStore
from hitless.errors import CandidateFailedError
from hitless.rollout.hook_endpoint import Execution, serve_hook
from hitless.rollout.release import Release, pool_spec
from hitless.service.model import Function
from hitless.worker.spec import PoolSpec
from hitless.workers.invoke import InvokeResult, invoke_once
from hitless.workers.isolation import handlers_see
from hitless.workers.shares import Shares


class Hook(StrEnum):
    PRE_TRAFFIC = "pre_traffic"
    POST_TRAFFIC = "post_traffic"


@dataclass(frozen=True, slots=True)
class HookResult:
    """A hook's verdict on the candidate, with a sentence for people."""

    succeeded: bool
    sentence: str


LOG_NAME = "hook.log"

_CREDENTIALS = re.compile(r"^\s*(aws_access_key_id|credential_process|role_arn|sso_\w+|login_session)\s*=", re.M)
_NAMED_BY = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


class LifecycleHooks:
    """Runs each hook in a process of its own. Hooks of several stages may run at once."""

    def __init__(self, artifacts: ArtifactStore, logs: Path, scratch: Path, shares: Shares | None = None) -> None:
        """`scratch`: a folder of the engine's own for the files of invocations."""
        self._artifacts, self._logs, self._scratch, self._shares = artifacts, logs, scratch, shares

    def clear(self) -> None:
        """Remove the files that invocations of an earlier engine left."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    async def run(self, hook: Hook, function: str, release: Release) -> HookResult:
        """Invoke that function of the candidate. CandidateFailedError if the candidate has no such function.

        When cancelled, it ends the hook's processes.
        """
        asked = next((f for f in release.document.functions if f.name == function), None)
        if asked is None:
            raise CandidateFailedError(f"the {hook} hook is {function}, which is not a function of the release")
        execution, began = Execution(), time.monotonic()

        async def invoke(name: str, event: Any) -> InvokeResult | None:
            for candidate in release.document.functions:
                spec = self._spec(release, candidate)
                if spec.function_name == name:
                    return await self._call(spec, event)
            return None

        async with serve_hook(execution, invoke) as url:
            spec = self._spec(release, asked)
            spec = replace(spec, environment={**spec.environment, **hook_environment(url, spec.environment)})
            result = await self._call(spec, execution.event)
        took_s = time.monotonic() - began
        sentence = f"the {hook} hook {function} of release {release.number} {_told(execution, result)} ({took_s:.1f} s)"
        return HookResult(execution.answer == "Succeeded", sentence)

    async def invoke(self, release: Release, function: Function, event: Any) -> InvokeResult:
        """Invoke any function of the release, in a process of its own that ends with this one."""
        return await self._call(self._spec(release, function), event)

    def _spec(self, release: Release, function: Function) -> PoolSpec:
        return pool_spec(
            release,
            function,
            key=f"hook-{release.key}-{function.name}",
            task_root=str(self._artifacts.unpack(release.document.artifacts[function.name].digest)),
            log_dir=str(self._logs / release.stage / f"r{release.number}" / function.name),
        )

    async def _call(self, spec: PoolSpec, event: Any) -> InvokeResult:
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        share = self._shares.of(spec) if self._shares else None
        result = await invoke_once(spec, event, scratch=self._scratch, share=share)
        path = Path(spec.log_dir) / LOG_NAME
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > 16 * 1024 * 1024:
            path.replace(f"{path}.1")
        # a handler can write to the folder: a link in it must not lead to another file
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8") as log:
            log.write(result.log)
        return result


def hook_environment(url: str, own: Mapping[str, str], home: str | None = None) -> dict[str, str]:
    """The variables that a hook gets in addition to its function's: the addresses of the two services, and credentials
    if it has none, because boto3 requires some.
    """
    home = os.environ.get("HOME", "") if home is None else home
    found = {"AWS_ENDPOINT_URL_CODEDEPLOY": url}
    if "AWS_ENDPOINT_URL_LAMBDA" not in own:
        found["AWS_ENDPOINT_URL_LAMBDA"] = url
    if not any(name in own for name in _NAMED_BY) and not _has_credentials(own, home):
        found |= {"AWS_ACCESS_KEY_ID": "hitless", "AWS_SECRET_ACCESS_KEY": "hitless"}
    return found


def _has_credentials(own: Mapping[str, str], home: str) -> bool:
    for variable, name in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")):
        with suppress(OSError):
            file = Path(own.get(variable) or Path(own.get("HOME", home), ".aws", name))
            if _CREDENTIALS.search(file.read_text(errors="replace")) and handlers_see(file, os.environ):
                return True
    return False


def _told(execution: Execution, result: InvokeResult) -> str:
    if execution.answer == "Succeeded":
        return "succeeded" + (f", then failed: {result.error}" if result.failed else "")
    if execution.answer == "Failed":
        return "reported Failed"
    return f"failed without a status: {result.error}" if result.failed else "ended without a status"
