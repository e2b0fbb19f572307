"""One CodeDeploy deployment of a Lambda alias, as AWS runs it, with a clock that may be faster.

Semantics, and where AWS states them:
* order Start, BeforeAllowTraffic, AllowTraffic, AfterAllowTraffic, End; a hook is a function that reports by
  PutLifecycleEventHookExecutionStatus within an hour (reference-appspec-file-structure-hooks, "hooks-lambda");
* the alias must name the AppSpec's CurrentVersion (reference-appspec-file-structure-resources);
* an alias is given shares only between versions of one role and one dead-letter target (Lambda Developer Guide,
  configuring-alias-routing);
* TimeBasedCanary: the percentage at once, the rest after the interval; TimeBasedLinear: the percentage at once and
  again after each interval (API_TimeBasedCanary, API_TimeBasedLinear);
* an alarm of the group that is in ALARM, before or while traffic shifts, stops the deployment
  (monitoring-create-alarms); with DEPLOYMENT_STOP_ON_ALARM a deployment of its own rolls back, all at once
  (deployments-rollback-and-redeploy).
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

import yaml

from tests.aws.front.alarms import Alarms
from tests.aws.front.backend import Backend
from tests.aws.front.unspread import ROLE_PERMISSIONS

HOOK_LIMIT_S: Final = 3600.0
_ALARM_PERIOD_S: Final = 0.25


class Status(StrEnum):
    CREATED = "Created"
    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"


ENDED: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.STOPPED})


class Ended(Exception):
    """A deployment that cannot continue: its status, error code and message."""

    def __init__(self, status: Status, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True, slots=True)
class Shift:
    """What an AppSpec says: one alias from one version to another, and the hooks by lifecycle event."""

    function: str
    alias: str
    current: str
    target: str
    hooks: Mapping[str, str]

    @classmethod
    def from_appspec(cls, content: str) -> Shift:
        """Raises ValueError if it is not an AppSpec of one Lambda function."""
        document = yaml.safe_load(content)
        try:
            (resource,) = (one for entry in document["Resources"] for one in entry.values())
            properties = resource["Properties"]
            if resource["Type"] != "AWS::Lambda::Function":
                raise ValueError(f"the AppSpec's resource is {resource['Type']}")
            hooks = {event: str(name) for entry in document.get("Hooks") or [] for event, name in entry.items()}
            name, alias, current, target = (
                str(properties[key]) for key in ("Name", "Alias", "CurrentVersion", "TargetVersion")
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the AppSpec has no {error}") from error
        return cls(name, alias, current, target, hooks)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Steps of a shift: (percentage of the target version, minutes until the next step)."""

    steps: tuple[tuple[int, float], ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Traffic:
        """From a deployment configuration's trafficRoutingConfig."""
        routing = config.get("trafficRoutingConfig") or {"type": "AllAtOnce"}
        match routing["type"]:
            case "TimeBasedCanary":
                canary = routing["timeBasedCanary"]
                return cls(((int(canary["canaryPercentage"]), float(canary["canaryInterval"])),))
            case "TimeBasedLinear":
                linear = routing["timeBasedLinear"]
                share, interval = int(linear["linearPercentage"]), float(linear["linearInterval"])
                return cls(tuple((percent, interval) for percent in range(share, 100, share)))
        return cls(())


@dataclass
class Deployment:
    """One deployment and its task. `weights` are those that stood: (seconds since the start, percentage)."""

    identifier: str
    region: str
    application: str
    group: Mapping[str, Any]
    config_name: str
    traffic: Traffic
    shift: Shift
    revision: Mapping[str, Any]
    creator: str = "user"
    description: str = ""
    status: Status = Status.CREATED
    error: Mapping[str, str] | None = None
    rollback: Mapping[str, str] | None = None
    created_at: float = field(default_factory=time.time)
    completed_at: float | None = None
    weights: list[tuple[float, int]] = field(default_factory=list)
    events: dict[str, str] = field(default_factory=dict)
    percent: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        names = ("BeforeAllowTraffic", "AllowTraffic", "AfterAllowTraffic")
        self.events = {name: "Pending" for name in names if name == "AllowTraffic" or name in self.shift.hooks}

    def info(self) -> dict[str, Any]:
        """DeploymentInfo of the API."""
        shown = {
            "deploymentId": self.identifier,
            "applicationName": self.application,
            "deploymentGroupName": self.group["deploymentGroupName"],
            "deploymentConfigName": self.config_name,
            "status": self.status.value,
            "errorInformation": self.error,
            "rollbackInfo": self.rollback,
            "creator": self.creator,
            "description": self.description,
            "computePlatform": "Lambda",
            "createTime": self.created_at,
            "startTime": self.created_at,
            "completeTime": self.completed_at,
            "revision": dict(self.revision),
            "autoRollbackConfiguration": self.group.get("autoRollbackConfiguration"),
        }
        return {key: value for key, value in shown.items() if value not in (None, "")}

    def target(self) -> dict[str, Any]:
        """DeploymentTarget of the API: the function and where its traffic stands."""
        name = f"{self.shift.function}:{self.shift.alias}"
        return {
            "deploymentTargetType": "LambdaFunction",
            "lambdaTarget": {
                "deploymentId": self.identifier,
                "targetId": name,
                "status": "Succeeded" if self.status is Status.SUCCEEDED else self.status.value,
                "lifecycleEvents": [{"lifecycleEventName": k, "status": v} for k, v in self.events.items()],
                "lambdaFunctionInfo": {
                    "functionName": self.shift.function,
                    "functionAlias": self.shift.alias,
                    "currentVersion": self.shift.current,
                    "targetVersion": self.shift.target,
                    "targetVersionWeight": self.percent / 100,
                },
            },
        }


class Runner:
    """Drives deployments against the emulator's Lambda and CloudWatch. `minute_s` is how long a minute lasts here.

    While `bakes_held` no bake ends by time, so that a test which acts in mid-shift need not be faster than a clock. The
    next `role_refusals` deployments fail because the group's role is too new.
    """

    def __init__(self, backend: Backend, alarms: Alarms, *, minute_s: float) -> None:
        self._backend = backend
        self._alarms = alarms
        self._minute_s = minute_s
        self.bakes_held = False
        self.role_refusals = 0
        self._hooks: dict[str, asyncio.Future[str]] = {}

    def hook_reported(self, execution: str, status: str) -> bool:
        """PutLifecycleEventHookExecutionStatus; False if no hook waits under that id."""
        waiting = self._hooks.get(execution)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(status)
        return True

    async def run(self, deployment: Deployment, roll_back: Callable[[Deployment, str], Awaitable[None]]) -> None:
        """Runs until the deployment has ended; its fields hold the result."""
        deployment.status = Status.IN_PROGRESS
        try:
            if deployment.creator == "user" and self.role_refusals:
                self.role_refusals -= 1
                raise Ended(Status.FAILED, *ROLE_PERMISSIONS)
            await self._check_alias(deployment)
            await self._check_alarms(deployment)
            await self._hook(deployment, "BeforeAllowTraffic")
            await self._allow_traffic(deployment)
            await self._hook(deployment, "AfterAllowTraffic")
        except Ended as ended:
            deployment.error = {"code": ended.code, "message": ended.message}
            deployment.completed_at = time.time()
            event = {"ALARM_ACTIVE": "DEPLOYMENT_STOP_ON_ALARM", "MANUAL_STOP": "DEPLOYMENT_STOP_ON_REQUEST"}.get(
                ended.code, "DEPLOYMENT_FAILURE"
            )
            await roll_back(deployment, event)
            deployment.status = ended.status
        else:
            deployment.completed_at = time.time()
            deployment.status = Status.SUCCEEDED

    async def _check_alias(self, deployment: Deployment) -> None:
        shift = deployment.shift
        answer = await self._alias(deployment, "GET")
        if answer is None:
            raise Ended(Status.FAILED, "INVALID_LAMBDA_FUNCTION", f"no alias {shift.alias} of {shift.function}")
        if deployment.creator == "user" and str(answer["FunctionVersion"]) != shift.current:
            message = f"alias {shift.alias} is at {answer['FunctionVersion']}, the AppSpec says {shift.current}"
            raise Ended(Status.FAILED, "INVALID_LAMBDA_CONFIGURATION", message)

    async def _check_alarms(self, deployment: Deployment) -> None:
        if deployment.creator != "user":
            return
        configuration = deployment.group.get("alarmConfiguration") or {}
        if not configuration.get("enabled"):
            return
        names = [str(one["name"]) for one in configuration.get("alarms", [])]
        active = await self._alarms.active(deployment.region, names)
        if active:
            raise Ended(Status.STOPPED, "ALARM_ACTIVE", f"One or more alarms have been activated: {', '.join(active)}")

    async def _allow_traffic(self, deployment: Deployment) -> None:
        deployment.events["AllowTraffic"] = "InProgress"
        try:
            for percent, minutes in deployment.traffic.steps:
                await self._weigh(deployment, percent)
                await self._bake(deployment, minutes * self._minute_s)
            await self._weigh(deployment, 100)
        except Ended:
            deployment.events["AllowTraffic"] = "Failed"
            raise
        deployment.events["AllowTraffic"] = "Succeeded"

    async def _bake(self, deployment: Deployment, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 or self.bakes_held:
            await self._check_alarms(deployment)
            pause_s = min(left, _ALARM_PERIOD_S) if left > 0 else _ALARM_PERIOD_S
            await self._unless_stopped(deployment, asyncio.sleep(pause_s))
        await self._check_alarms(deployment)

    async def _unless_stopped(
        self, deployment: Deployment, work: Awaitable[object], limit_s: float | None = None
    ) -> None:
        stopped = asyncio.ensure_future(deployment.stop.wait())
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait({stopped, working}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                raise Ended(Status.STOPPED, "MANUAL_STOP", "The deployment was stopped by a request")
        finally:
            stopped.cancel()
            if not working.done():
                working.cancel()

    async def _weigh(self, deployment: Deployment, percent: int) -> None:
        shift = deployment.shift
        document: dict[str, Any] = {"FunctionVersion": shift.target, "RoutingConfig": {"AdditionalVersionWeights": {}}}
        if percent < 100:
            await self._check_shares(deployment)
            weights = {shift.target: percent / 100}
            document = {"FunctionVersion": shift.current, "RoutingConfig": {"AdditionalVersionWeights": weights}}
        if await self._alias(deployment, "PUT", document) is None:
            raise Ended(Status.FAILED, "INVALID_LAMBDA_FUNCTION", f"cannot update {shift.function}:{shift.alias}")
        deployment.percent = percent
        deployment.weights.append((round(time.time() - deployment.created_at, 2), percent))

    async def _check_shares(self, deployment: Deployment) -> None:
        shift, found = deployment.shift, []
        for version in (shift.current, shift.target):
            path = f"/2015-03-31/functions/{quote(shift.function)}/configuration?Qualifier={version}"
            answer = await self._backend.rest("GET", path, service="lambda", region=deployment.region)
            one = dict(answer.json()) if answer.status_code == 200 else {}
            found.append((one.get("Role"), (one.get("DeadLetterConfig") or {}).get("TargetArn")))
        if found[0] != found[1]:
            message = "Specified versions must be associated with the same execution role and dead-letter target"
            raise Ended(Status.FAILED, "INVALID_LAMBDA_CONFIGURATION", message)

    async def _alias(
        self, deployment: Deployment, method: str, document: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        path = f"/2015-03-31/functions/{quote(deployment.shift.function)}/aliases/{quote(deployment.shift.alias)}"
        content = json.dumps(document).encode() if document else b""
        answer = await self._backend.rest(method, path, service="lambda", region=deployment.region, content=content)
        return dict(answer.json()) if answer.status_code == 200 else None

    async def _hook(self, deployment: Deployment, event: str) -> None:
        function = deployment.shift.hooks.get(event)
        if function is None:
            return
        deployment.events[event] = "InProgress"
        execution = str(uuid.uuid4())
        reported: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._hooks[execution] = reported
        payload = {"DeploymentId": deployment.identifier, "LifecycleEventHookExecutionId": execution}
        name = quote(function.partition(":function:")[2] or function)
        try:
            invoking = asyncio.ensure_future(
                self._backend.rest(
                    "POST",
                    f"/2015-03-31/functions/{name}/invocations",
                    service="lambda",
                    region=deployment.region,
                    content=json.dumps(payload).encode(),
                )
            )
            await self._unless_stopped(
                deployment, asyncio.shield(reported), max(30.0, HOOK_LIMIT_S / 60 * self._minute_s)
            )
            await invoking
        finally:
            del self._hooks[execution]
        status = reported.result() if reported.done() and not reported.cancelled() else "Failed"
        deployment.events[event] = status
        if status != "Succeeded":
            raise Ended(Status.FAILED, "HOOK_EXECUTION_FAILURE", f"hook {function} for {event}: {status}")
