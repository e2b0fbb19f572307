"""What API Gateway keeps once for an account and region: the role by which it writes access logs.

Without it the first Stage with access logs fails ("CloudWatch Logs role ARN must be set in account settings"). It
belongs to no stage's stack: the last stage to go would take it from all others.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hitless.errors import MachineError

ROLE_NAME = "hitless-api-gateway-logs"
POLICY = "service-role/AmazonAPIGatewayPushToCloudWatchLogs"
PROPAGATION_TRIES, PROPAGATION_PAUSE_S = 15, 2.0
"""A new role is unknown to other services for some seconds (IAM user guide, "eventual consistency")."""

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "apigateway.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}


def lacks_log_role(apigateway: Any) -> bool:
    """Whether the account has no role for API Gateway's logs yet, so that a bootstrap makes one."""
    return not apigateway.get_account().get("cloudwatchRoleArn")


def ensure_log_role(
    apigateway: Any, iam: Any, *, partition: str, sleep: Callable[[float], None], boundary: str = ""
) -> str | None:
    """Give API Gateway a role for logs where the account has none; the ARN where one was set now, None where one stood.

    A role that somebody else set is left alone. `boundary` is the ARN of a policy. MachineError where API Gateway does
    not take the new role.
    """
    if not lacks_log_role(apigateway):
        return None
    try:
        arn = str(iam.get_role(RoleName=ROLE_NAME)["Role"]["Arn"])
    except iam.exceptions.NoSuchEntityException:
        made = iam.create_role(
            RoleName=ROLE_NAME,
            AssumeRolePolicyDocument=json.dumps(_TRUST),
            Description="API Gateway writes access logs by it, for every API of this account",
            **({"PermissionsBoundary": boundary} if boundary else {}),
        )
        arn = str(made["Role"]["Arn"])
    iam.attach_role_policy(RoleName=ROLE_NAME, PolicyArn=f"arn:{partition}:iam::aws:policy/{POLICY}")
    operations = [{"op": "replace", "path": "/cloudwatchRoleArn", "value": arn}]
    for attempt in range(PROPAGATION_TRIES):
        try:
            apigateway.update_account(patchOperations=operations)
        except apigateway.exceptions.BadRequestException as error:
            if attempt == PROPAGATION_TRIES - 1:
                said = error.response.get("Error", {}).get("Message", error)
                raise MachineError(
                    f"API Gateway does not take {arn} for its logs: {said}",
                    hint="repeat `hitless aws bootstrap` in a minute: it continues from here",
                ) from error
            sleep(PROPAGATION_PAUSE_S)
        else:
            break
    return arn
