"""Hooks in real processes: boto3 as on Lambda, unchanged, answers the rollout and invokes the candidate."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from hitless.release.document import ArtifactRef
from hitless.rollout.hooks import LOG_NAME, Hook, HookResult, LifecycleHooks, hook_environment
from hitless.rollout.release import Release
from hitless.service.event_sources import Route
from hitless.service.model import Function
from hitless.workers.isolation import PATHS_VARIABLE
from tests.fakes import release_document
from tests.support import eventually, have_ended

pytestmark = pytest.mark.component

HANDLERS = """
import json, os, subprocess, sys, time
import boto3
from botocore.exceptions import ClientError

def answer(event, status, execution=None, deployment=None):
    return boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=deployment or event["DeploymentId"],
        lifecycleEventHookExecutionId=execution or event["LifecycleEventHookExecutionId"],
        status=status,
    )

def api(event, context):
    if event.get("boom"):
        raise ValueError("boom")
    return {"statusCode": 200, "body": event.get("path", "none"), "by": context.function_name}

def good(event, context):
    assert answer(event, "Succeeded")["lifecycleEventHookExecutionId"] == event["LifecycleEventHookExecutionId"]

def bad(event, context):
    answer(event, "Failed")

def silent(event, context):
    print("looked, said nothing")

def raises(event, context):
    raise RuntimeError("no database")

def raises_after(event, context):
    answer(event, "Succeeded")
    raise RuntimeError("too late")

def hangs(event, context):
    child = subprocess.Popen(["sleep", "60"])
    with open(os.environ["PIDS"], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(60)

def refused(event, context):
    kinds = []
    for how in ({"execution": "guessed"}, {"deployment": "d-GUESSED"}, {"status": "Pending"}):
        try:
            answer(event, how.pop("status", "Succeeded"), **how)
        except ClientError as error:
            kinds.append(error.response["Error"]["Code"])
    answer(event, "Succeeded")
    try:
        answer(event, "Failed")
    except ClientError as error:
        kinds.append(error.response["Error"]["Code"])
    print(json.dumps(kinds))

def tests_the_candidate(event, context):
    client, seen = boto3.client("lambda"), []
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:shop-dev-api:live"
    for name in ("shop-dev-api", "shop-dev-api:3", arn):
        found = client.invoke(FunctionName=name, Payload=json.dumps({"path": "/zones"}), LogType="Tail")
        payload, logged = json.load(found["Payload"]), bool(found["LogResult"])
        seen.append([found["StatusCode"], payload, "FunctionError" in found, logged])
    found = client.invoke(FunctionName="shop-dev-api", Payload=json.dumps({"boom": True}))
    seen.append([found["FunctionError"], json.load(found["Payload"])["errorType"]])
    for arguments in ({"FunctionName": "other"}, {"FunctionName": "shop-dev-api", "InvocationType": "Event"}):
        try:
            client.invoke(**arguments)
        except ClientError as error:
            seen.append(error.response["Error"]["Code"])
    print(json.dumps(seen))
    answer(event, "Succeeded")
"""


@pytest.fixture(autouse=True)
def _handlers_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restored after each test, which sets it."""
    monkeypatch.setenv(PATHS_VARIABLE, "")


class Shop:
    """A release whose artifact is a folder with these handlers."""

    def __init__(
        self, folder: Path, hook: str, *, timeout_s: int = 30, environment: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        (folder / "artifact").mkdir()
        (folder / "artifact" / "handlers.py").write_text(HANDLERS)
        (folder / "marks").mkdir()
        (folder / "marks").chmod(0o777)
        os.environ[PATHS_VARIABLE] = str(folder / "marks")
        self.pids = folder / "marks" / "pids"
        functions = (
            Function("api", "handlers.api", timeout_s=30, routes=(Route("GET", "/zones"),)),
            Function(
                hook,
                f"handlers.{hook}",
                timeout_s=timeout_s,
                environment=tuple({"PIDS": str(self.pids), "HOME": str(folder), **(environment or {})}.items()),
            ),
        )
        artifacts = {function.name: ArtifactRef("sha256:1", False) for function in functions}
        document = replace(release_document(), functions=functions, artifacts=artifacts)
        self.release = Release("dev", 3, document)
        self.hooks = LifecycleHooks(cast(Any, self), folder / "logs", folder / "scratch")
        self.hook = hook

    def unpack(self, digest: str) -> Path:
        return self.folder / "artifact"

    def ask(self) -> HookResult:
        return asyncio.run(self.hooks.run(Hook.PRE_TRAFFIC, self.hook, self.release))

    @property
    def printed(self) -> Any:
        """The last line of JSON in the hook's log."""
        text = (self.folder / "logs" / "dev" / "r3" / self.hook / LOG_NAME).read_text()
        lines = [line.rpartition("\t")[2] for line in text.splitlines()]
        return [json.loads(line) for line in lines if line.startswith("[")][-1]


@pytest.mark.parametrize(
    ("hook", "succeeded", "said"),
    [
        ("good", True, "the pre_traffic hook good of release 3 succeeded ("),
        ("bad", False, "reported Failed"),
        ("silent", False, "ended without a status"),
        ("raises", False, "failed without a status: RuntimeError: no database"),
        ("raises_after", True, "succeeded, then failed: RuntimeError: too late"),
    ],
)
def test_a_hooks_reported_status_decides_whether_it_succeeded(
    tmp_path: Path, hook: str, succeeded: bool, said: str
) -> None:
    result = Shop(tmp_path, hook).ask()
    assert result.succeeded is succeeded, result.sentence
    assert said in result.sentence


def test_a_status_that_codedeploy_would_refuse_is_an_error_and_is_ignored(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "refused")
    assert shop.ask().succeeded
    assert shop.printed == [
        "InvalidLifecycleEventHookExecutionIdException",
        "DeploymentDoesNotExistException",
        "InvalidLifecycleEventHookExecutionStatusException",
        "LifecycleEventAlreadyCompletedException",
    ]


def test_a_hook_invokes_the_candidates_functions_as_lambda_does(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "tests_the_candidate", environment={"AWS_REGION": "eu-central-1"})
    result = shop.ask()
    assert result.succeeded, result.sentence
    answered = [200, {"statusCode": 200, "body": "/zones", "by": "shop-dev-api"}, False, True]
    assert shop.printed == [
        *[answered] * 3,
        ["Unhandled", "ValueError"],
        "ResourceNotFoundException",
        "InvalidParameterValueException",
    ]


def pids_of(shop: Shop) -> list[int]:
    found = eventually(lambda: shop.pids.exists() and shop.pids.read_text().split(), what="the hook runs")
    return [int(pid) for pid in found] if isinstance(found, list) else []


def test_a_hook_that_hangs_ends_at_its_time_out_with_its_child_processes(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "hangs", timeout_s=3)
    result = shop.ask()
    assert not result.succeeded
    assert "Task timed out after 3.00 seconds" in result.sentence
    have_ended(pids_of(shop))


def test_a_cancelled_hook_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "hangs")

    async def story() -> None:
        asking = asyncio.create_task(shop.hooks.run(Hook.PRE_TRAFFIC, "hangs", shop.release))
        await asyncio.to_thread(pids_of, shop)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(story())
    have_ended(pids_of(shop))
    assert os.listdir(tmp_path / "scratch") == []


@pytest.mark.parametrize("named", ["environment", "file", "hidden file", "nothing"])
def test_a_hook_gets_dummy_credentials_only_if_it_has_none(
    tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named != "hidden file":
        monkeypatch.setenv(PATHS_VARIABLE, str(tmp_path / ".aws"))
    own = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"} if named == "environment" else {}
    (tmp_path / ".aws").mkdir()
    text = "[default]\nregion = eu-central-1\n" + ("aws_access_key_id = AKIDEXAMPLE\n" if "file" in named else "")
    (tmp_path / ".aws" / "credentials").write_text(text)
    made_up = "AWS_ACCESS_KEY_ID" in hook_environment("http://127.0.0.1:1/key", own, str(tmp_path))
    assert made_up is (named in ("nothing", "hidden file"))


def test_a_function_that_names_its_own_lambda_endpoint_keeps_it(tmp_path: Path) -> None:
    own = {"AWS_ENDPOINT_URL_LAMBDA": "http://127.0.0.1:4566"}
    found = hook_environment("http://127.0.0.1:1/key", own, str(tmp_path))
    assert "AWS_ENDPOINT_URL_LAMBDA" not in found
    assert found["AWS_ENDPOINT_URL_CODEDEPLOY"] == "http://127.0.0.1:1/key"
