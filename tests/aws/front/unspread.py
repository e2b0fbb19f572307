"""Refusals that AWS gives for some seconds after a change, until the change has reached the service that is called.

IAM User Guide, "Troubleshoot IAM": "Changes that I make are not always immediately visible"; "We recommend that you do
not include such IAM changes in the critical, high-availability code paths". What CloudFormation makes is not here: it
checks each resource itself before the next one (User Guide, "Understand CloudFormation stack creation events":
"A significant portion of the stack creation time is spent performing an eventual consistency check").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_NOT_FOUND = (
    404,
    "ResourceNotFoundException",
    "Function not found: arn:aws:lambda:us-west-2:203867187697:function:dev:3",
)

REFUSALS: Final[Mapping[str, tuple[int, str, str]]] = {
    # hashicorp/terraform-provider-aws#41617, "when role principal is created too recently"
    "lambda:AddPermission": (
        400,
        "InvalidParameterValueException",
        "The provided principal was invalid. Please check the principal and try again.",
    ),
    # hashicorp/terraform-provider-aws#7214 and #25440 (label eventual-consistency), right after "Creation complete"
    "lambda:GetFunctionConfiguration": _NOT_FOUND,
    "lambda:Invoke": _NOT_FOUND,
    # hashicorp/terraform-provider-aws#6566: "After the creation of a role, it cannot be assumed for 10-30 seconds"
    "sts:AssumeRole": (
        403,
        "AccessDenied",
        "User: arn:aws:iam::1:user/ada is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::1:role/r",
    ),
    # tmobile/jazz-installer#597
    "apigateway:UpdateAccount": (
        400,
        "BadRequestException",
        "The role ARN does not have required permissions configured. "
        "Please grant trust permission for API Gateway and add the required role policy.",
    ),
    # IAM API Reference, AttachRolePolicy, Errors: NoSuchEntity
    "iam:AttachRolePolicy": (404, "NoSuchEntity", "The role with name hitless-api-gateway-logs cannot be found."),
    # AWS re:Post knowledge center, cloudformation-role-arn-error
    "cloudformation:CreateStack": (
        400,
        "ValidationError",
        "Role arn:aws:iam::1:role/r is invalid or cannot be assumed",
    ),
    "cloudformation:UpdateStack": (
        400,
        "ValidationError",
        "Role arn:aws:iam::1:role/r is invalid or cannot be assumed",
    ),
}
"""service:Operation → HTTP status, code and message."""

ROLE_PERMISSIONS: Final = ("IAM_ROLE_PERMISSIONS", "The service role does not have the correct permissions.")
"""How a deployment fails whose group's role CodeDeploy cannot use yet (API Reference, ErrorInformation)."""
