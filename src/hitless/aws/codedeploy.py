"""CodeDeploy's deployments of Lambda aliases: started, looked at, stopped. One deployment a group at a time is its law.

A deployment moves one alias from one literal version to another by its group's configuration, watches the group's
alarms, and moves the alias back by itself where it fails or is stopped.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from hitless.aws.session import Ignoring, error_code
from hitless.errors import ConflictError

AT_ONCE = "CodeDeployDefault.LambdaAllAtOnce"
ENDED_WELL = "Succeeded"
ENDED = frozenset({ENDED_WELL, "Failed", "Stopped"})
HOOKS = ("BeforeAllowTraffic", "AfterAllowTraffic")
UNDER_WAY = ["Created", "Queued", "InProgress"]
"""What a deployment of a Lambda alias is before its end."""

_STOPPED_BY_HAND = frozenset({"MANUAL_STOP", "DEPLOYMENT_STOPPED"})


@dataclass(frozen=True, slots=True)
class Move:
    """One alias's way. `function` is Lambda's name, `group` the deployment group's. `at_once`: without shares, whatever
    the configuration says.
    """

    function: str
    group: str
    alias: str
    current: str
    target: str
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Deployment:
    """How a deployment stands; `reason` in CodeDeploy's words, empty while all is well."""

    status: str
    reason: str = ""
    by_hand: bool = False
    began: datetime | None = None
    """Wall time in UTC."""

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class CodeDeploy:
    """Deployments of one application. botocore's errors leave as they are: callers are inside `aws_errors`."""

    def __init__(self, client: Any, application: str) -> None:
        self._codedeploy = client
        self.application = application

    def start(
        self,
        move: Move,
        *,
        configuration: str,
        description: str,
        hooks: Mapping[str, str],
        ignoring: Collection[str] = (),
    ) -> str:
        """Begin the move and return the deployment's id. ConflictError where the group has one under way.

        Alarms of the group that `ignoring` names are not watched: one that rings already would stop it at once.
        """
        watched = {"overrideAlarmConfiguration": self._alarms(move.group, ignoring)} if ignoring else {}
        content = {
            "version": 0.0,
            "Resources": [
                {
                    "live": {
                        "Type": "AWS::Lambda::Function",
                        "Properties": {
                            "Name": move.function,
                            "Alias": move.alias,
                            "CurrentVersion": move.current,
                            "TargetVersion": move.target,
                        },
                    }
                }
            ],
            **({"Hooks": [{event: function} for event, function in hooks.items()]} if hooks else {}),
        }
        try:
            answer = self._codedeploy.create_deployment(
                applicationName=self.application,
                deploymentGroupName=move.group,
                deploymentConfigName=AT_ONCE if move.at_once else configuration,
                description=description,
                **watched,
                revision={"revisionType": "AppSpecContent", "appSpecContent": {"content": json.dumps(content)}},
            )
        except ClientError as error:
            if error_code(error) == "DeploymentLimitExceededException":
                raise ConflictError(
                    f"{move.function}: another deployment is under way",
                    hint="await it, or end it by `hitless aws abort`",
                ) from error
            raise
        return str(answer["deploymentId"])

    def _alarms(self, group: str, ignoring: Collection[str]) -> dict[str, Any]:
        """The group's alarms but those."""
        found = self._codedeploy.get_deployment_group(applicationName=self.application, deploymentGroupName=group)
        alarms = found["deploymentGroupInfo"].get("alarmConfiguration", {}).get("alarms", [])
        kept = [{"name": alarm["name"]} for alarm in alarms if alarm["name"] not in ignoring]
        return {"enabled": True, "alarms": kept}

    def look(self, deployment: str) -> Deployment:
        """How the deployment stands."""
        info = self._codedeploy.get_deployment(deploymentId=deployment)["deploymentInfo"]
        error = info.get("errorInformation") or {}
        reason = str(error.get("message") or error.get("code") or "")
        return Deployment(str(info["status"]), reason, error.get("code") in _STOPPED_BY_HAND, info.get("createTime"))

    def hooks(self, deployment: str, move: Move) -> dict[str, str]:
        """How each hook ended that was asked: lifecycle event → status; none where CodeDeploy does not tell, for only
        a receipt wants to know.
        """
        try:
            answer = self._codedeploy.get_deployment_target(
                deploymentId=deployment, targetId=f"{move.function}:{move.alias}"
            )
        except ClientError:
            return {}
        events = answer["deploymentTarget"]["lambdaTarget"].get("lifecycleEvents", ())
        asked = {str(one["lifecycleEventName"]): str(one["status"]) for one in events}
        return {name: status for name, status in asked.items() if name in HOOKS}

    def stop(self, deployment: str) -> None:
        """End the deployment and let it move the alias back; nothing where it has ended already."""
        with Ignoring("DeploymentAlreadyCompletedException", "DeploymentDoesNotExistException"):
            self._codedeploy.stop_deployment(deploymentId=deployment, autoRollbackEnabled=True)

    def under_way(self, group: str) -> list[str]:
        """The ids of the group's deployments that have not ended; none where there is no such group yet."""
        with Ignoring("ApplicationDoesNotExistException", "DeploymentGroupDoesNotExistException"):
            pages = self._codedeploy.get_paginator("list_deployments").paginate(
                applicationName=self.application, deploymentGroupName=group, includeOnlyStatuses=UNDER_WAY
            )
            return [str(each) for page in pages for each in page["deployments"]]
        return []
