"""CodeDeploy's HTTP API (JSON 1.1) for Lambda, in as much as hitless and its hooks call it.

Applications, groups and configurations come from the stand-ins of CloudFormation's resources, or by API calls.
A second deployment of a group that has an active one is refused as by AWS (DeploymentLimitExceededException).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

from starlette.responses import Response

from tests.aws.front.alarms import Alarms
from tests.aws.front.backend import Backend
from tests.aws.front.calls import Operation, Request, decoded_body
from tests.aws.front.deployments import ENDED, Deployment, Runner, Shift, Status, Traffic

Document = dict[str, Any]
_TYPES: Final = (
    "AWS::CodeDeploy::Application",
    "AWS::CodeDeploy::DeploymentGroup",
    "AWS::CodeDeploy::DeploymentConfig",
)


class ApiError(Exception):
    """An error of CodeDeploy's API, by its name in the API."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _predefined() -> dict[str, Document]:
    """The configurations that AWS ships for Lambda (deployment-configurations, "predefined … AWS Lambda")."""
    found: dict[str, Document] = {"CodeDeployDefault.LambdaAllAtOnce": {"type": "AllAtOnce"}}
    for minutes in (5, 10, 15, 30):
        name = f"CodeDeployDefault.LambdaCanary10Percent{minutes}Minutes"
        found[name] = {
            "type": "TimeBasedCanary",
            "timeBasedCanary": {"canaryPercentage": 10, "canaryInterval": minutes},
        }
    for minutes in (1, 2, 3, 10):
        name = f"CodeDeployDefault.LambdaLinear10PercentEvery{minutes}Minute{'s' if minutes > 1 else ''}"
        found[name] = {
            "type": "TimeBasedLinear",
            "timeBasedLinear": {"linearPercentage": 10, "linearInterval": minutes},
        }
    return {name: _config(name, routing) for name, routing in found.items()}


def _config(name: str, routing: Mapping[str, Any]) -> Document:
    return {"deploymentConfigName": name, "computePlatform": "Lambda", "trafficRoutingConfig": dict(routing)}


def lower_camel(value: Any) -> Any:
    """Renames CloudFormation's property names to the API's."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: lower_camel(inner) for key, inner in value.items()}
    return [lower_camel(inner) for inner in value] if isinstance(value, list) else value


class CodeDeploy:
    """`clock_factor` is how many times faster minutes pass than on AWS."""

    def __init__(self, backend: Backend, *, clock_factor: float) -> None:
        self._backend = backend
        self.clock_factor = clock_factor
        self.alarms = Alarms(backend, minute_s=60 / clock_factor)
        self._runner = Runner(backend, self.alarms, minute_s=60 / clock_factor)
        self.deployments: dict[str, Deployment] = {}
        self._applications: set[tuple[str, str]] = set()
        self._groups: dict[tuple[str, str, str], Document] = {}
        self._configs: dict[tuple[str, str], Document] = {}

    async def forget(self) -> None:
        """Ends every deployment in its present state."""
        tasks = [one.task for one in self.deployments.values() if one.task]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.deployments.clear()
        self._applications.clear()
        self._groups.clear()
        self._configs.clear()
        self._runner.bakes_held = False
        self._runner.role_refusals = 0

    @contextlib.contextmanager
    def held_bakes(self) -> Iterator[None]:
        """Inside the block no bake ends by time, so that a test can act during a shift on any machine."""
        self._runner.bakes_held = True
        try:
            yield
        finally:
            self._runner.bakes_held = False

    def refuse_role(self, deployments: int) -> None:
        """Let the next deployments fail because the role of their group is too new."""
        self._runner.role_refusals = deployments

    async def answer(self, request: Request, operation: Operation) -> Response:
        region = request.scope[1] if request.scope else "us-east-1"
        handlers = {
            "BatchGetDeployments": self._batch_get,
            "BatchGetDeploymentTargets": self._targets,
            "CreateApplication": self._create_application,
            "CreateDeployment": self._create_deployment,
            "CreateDeploymentConfig": self._create_config,
            "CreateDeploymentGroup": self._create_group,
            "DeleteApplication": self._delete_application,
            "DeleteDeploymentGroup": self._delete_group,
            "GetApplication": self._get_application,
            "GetDeployment": self._get_deployment,
            "GetDeploymentConfig": self._get_config,
            "GetDeploymentGroup": self._get_group,
            "GetDeploymentTarget": self._target,
            "ListApplications": self._list_applications,
            "ListDeploymentGroups": self._list_groups,
            "ListDeploymentTargets": self._list_targets,
            "ListDeployments": self._list_deployments,
            "PutLifecycleEventHookExecutionStatus": self._hook_status,
            "StopDeployment": self._stop,
        }
        try:
            if operation.name not in handlers:
                raise ApiError("InvalidOperationException", f"{operation.name} is not answered here")
            document = await handlers[operation.name](region, decoded_body(request))
        except ApiError as error:
            return _json({"__type": error.code, "message": str(error)}, 400)
        return _json(document)

    # applications, groups, configurations

    async def _held(self, region: str, kind: str) -> list[tuple[str, Document]]:
        found = await self._backend.stand_ins(region, f"AWS::CodeDeploy::{kind}")
        return [(path.replace("/", "-"), lower_camel(properties)) for path, properties in found]

    async def _all_applications(self, region: str) -> set[str]:
        held = {str(one.get("applicationName", path)) for path, one in await self._held(region, "Application")}
        return held | {name for where, name in self._applications if where == region}

    async def _create_application(self, region: str, given: Document) -> Document:
        self._applications.add((region, given["applicationName"]))
        return {"applicationId": secrets.token_hex(8)}

    async def _delete_application(self, region: str, given: Document) -> Document:
        self._applications.discard((region, given["applicationName"]))
        return {}

    async def _get_application(self, region: str, given: Document) -> Document:
        name = given["applicationName"]
        if name not in await self._all_applications(region):
            raise ApiError("ApplicationDoesNotExistException", f"No application found for name: {name}")
        return {"application": {"applicationName": name, "computePlatform": "Lambda"}}

    async def _list_applications(self, region: str, given: Document) -> Document:
        return {"applications": sorted(await self._all_applications(region))}

    async def _groups_of(self, region: str, application: str) -> dict[str, Document]:
        found = {
            name: group
            for (where, owner, name), group in self._groups.items()
            if (where, owner) == (region, application)
        }
        for path, properties in await self._held(region, "DeploymentGroup"):
            if properties.get("applicationName") == application:
                name = str(properties.get("deploymentGroupName", path))
                found[name] = properties | {"deploymentGroupName": name}
        return found

    async def _group(self, region: str, given: Document) -> Document:
        await self._get_application(region, given)
        found = (await self._groups_of(region, given["applicationName"])).get(given["deploymentGroupName"])
        if found is None:
            message = f"No Deployment Group found for name: {given['deploymentGroupName']}"
            raise ApiError("DeploymentGroupDoesNotExistException", message)
        return found

    async def _create_group(self, region: str, given: Document) -> Document:
        self._groups[region, given["applicationName"], given["deploymentGroupName"]] = given
        return {"deploymentGroupId": secrets.token_hex(8)}

    async def _delete_group(self, region: str, given: Document) -> Document:
        self._groups.pop((region, given["applicationName"], given["deploymentGroupName"]), None)
        return {"hooksNotCleanedUp": []}

    async def _get_group(self, region: str, given: Document) -> Document:
        return {"deploymentGroupInfo": await self._group(region, given) | {"computePlatform": "Lambda"}}

    async def _list_groups(self, region: str, given: Document) -> Document:
        groups = sorted(await self._groups_of(region, given["applicationName"]))
        return {"applicationName": given["applicationName"], "deploymentGroups": groups}

    async def _config_of(self, region: str, name: str) -> Document:
        held = {
            str(one.get("deploymentConfigName", path)): one
            for path, one in await self._held(region, "DeploymentConfig")
        }
        made = {known: one for (where, known), one in self._configs.items() if where == region}
        try:
            return (_predefined() | held | made)[name]
        except KeyError:
            raise ApiError("DeploymentConfigDoesNotExistException", f"No deployment configuration {name}") from None

    async def _create_config(self, region: str, given: Document) -> Document:
        name = given["deploymentConfigName"]
        with contextlib.suppress(ApiError):
            await self._config_of(region, name)
            raise ApiError("DeploymentConfigAlreadyExistsException", f"{name} exists already") from None
        self._configs[region, name] = _config(name, given.get("trafficRoutingConfig") or {"type": "AllAtOnce"})
        return {"deploymentConfigId": secrets.token_hex(8)}

    async def _get_config(self, region: str, given: Document) -> Document:
        return {"deploymentConfigInfo": await self._config_of(region, given["deploymentConfigName"])}

    # deployments

    async def _create_deployment(self, region: str, given: Document) -> Document:
        group = await self._group(region, given)
        configured = group.get("deploymentConfigName", "CodeDeployDefault.LambdaAllAtOnce")
        name = str(given.get("deploymentConfigName") or configured)
        config = await self._config_of(region, name)
        self._refuse_a_second(region, given["applicationName"], given["deploymentGroupName"])
        revision = given.get("revision") or {}
        deployment = Deployment(
            _identifier(),
            region,
            given["applicationName"],
            _overridden(group, given),
            name,
            Traffic.from_config(config),
            _shift_of(revision),
            revision,
            description=given.get("description", ""),
        )
        self._start(deployment)
        return {"deploymentId": deployment.identifier}

    def _refuse_a_second(self, region: str, application: str, group: str) -> None:
        for other in self.deployments.values():
            same = (other.region, other.application, other.group["deploymentGroupName"]) == (region, application, group)
            if same and other.status not in ENDED:
                message = f"The Deployment Group '{group}' already has an active Deployment '{other.identifier}'"
                raise ApiError("DeploymentLimitExceededException", message)

    def _start(self, deployment: Deployment) -> None:
        self.deployments[deployment.identifier] = deployment
        deployment.task = asyncio.create_task(self._runner.run(deployment, self._rollback))

    async def _rollback(self, failed: Deployment, event: str) -> None:
        configuration = failed.group.get("autoRollbackConfiguration") or {}
        wanted = configuration.get("enabled") and event in configuration.get("events", [])
        if not wanted and not failed.group.get("rollBackAnyway"):
            return
        back = Shift(failed.shift.function, failed.shift.alias, failed.shift.target, failed.shift.current, {})
        deployment = Deployment(
            _identifier(),
            failed.region,
            failed.application,
            failed.group,
            failed.config_name,
            Traffic(()),
            back,
            failed.revision,
            creator="codeDeployRollback",
        )
        deployment.rollback = {"rollbackTriggeringDeploymentId": failed.identifier}
        failed.rollback = {"rollbackDeploymentId": deployment.identifier, "rollbackMessage": event}
        self._start(deployment)

    def _deployment(self, identifier: str) -> Deployment:
        try:
            return self.deployments[identifier]
        except KeyError:
            message = f"The deployment {identifier} could not be found"
            raise ApiError("DeploymentDoesNotExistException", message) from None

    async def _get_deployment(self, region: str, given: Document) -> Document:
        return {"deploymentInfo": self._deployment(given["deploymentId"]).info()}

    async def _batch_get(self, region: str, given: Document) -> Document:
        return {"deploymentsInfo": [self._deployment(one).info() for one in given["deploymentIds"]]}

    async def _list_deployments(self, region: str, given: Document) -> Document:
        wanted = (given.get("applicationName"), given.get("deploymentGroupName"))
        statuses = given.get("includeOnlyStatuses") or [status.value for status in Status]
        found = [
            one.identifier
            for one in reversed(self.deployments.values())
            if one.region == region
            and wanted[0] in (None, one.application)
            and wanted[1] in (None, one.group["deploymentGroupName"])
            and one.status.value in statuses
        ]
        return {"deployments": found}

    async def _list_targets(self, region: str, given: Document) -> Document:
        return {"targetIds": [self._deployment(given["deploymentId"]).target()["lambdaTarget"]["targetId"]]}

    async def _target(self, region: str, given: Document) -> Document:
        return {"deploymentTarget": self._deployment(given["deploymentId"]).target()}

    async def _targets(self, region: str, given: Document) -> Document:
        return {"deploymentTargets": [self._deployment(given["deploymentId"]).target()]}

    async def _stop(self, region: str, given: Document) -> Document:
        deployment = self._deployment(given["deploymentId"])
        if deployment.status in ENDED:
            raise ApiError("DeploymentAlreadyCompletedException", f"{deployment.identifier} has ended")
        if given.get("autoRollbackEnabled"):
            deployment.group = dict(deployment.group) | {"rollBackAnyway": True}
        deployment.stop.set()
        return {"status": "Pending", "statusMessage": "Stopping"}

    async def _hook_status(self, region: str, given: Document) -> Document:
        execution = given.get("lifecycleEventHookExecutionId", "")
        if not self._runner.hook_reported(execution, given.get("status", "")):
            raise ApiError("InvalidLifecycleEventHookExecutionIdException", f"no hook waits under {execution}")
        return {"lifecycleEventHookExecutionId": execution}


def _overridden(group: Document, given: Document) -> Document:
    """The group with the overrides of this one deployment."""
    merged = group | {key: given[key] for key in ("autoRollbackConfiguration",) if key in given}
    if "overrideAlarmConfiguration" in given:
        merged["alarmConfiguration"] = given["overrideAlarmConfiguration"]
    return merged


def _shift_of(revision: Document) -> Shift:
    content = (revision.get("appSpecContent") or revision.get("string") or {}).get("content", "")
    try:
        return Shift.from_appspec(content)
    except (ValueError, TypeError) as error:
        raise ApiError("InvalidRevisionException", str(error)) from error


def _identifier() -> str:
    return f"d-{secrets.token_hex(5)[:9].upper()}"


def _json(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(document), status, media_type="application/x-amz-json-1.1")
