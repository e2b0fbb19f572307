"""Settings of an account and region that no stage's stack may own: the role for API Gateway's access logs, the provider
for GitHub's tokens, the connection to GitHub, a VPC's default security group, a domain's zone, availability zones.

They are shared: if a stage's stack owned one, deleting the last stage would delete it for all other users.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hitless.aws.session import Identity
from hitless.errors import ConflictError, UsageError

ROLE_NAME = "hitless-api-gateway-logs"
POLICY = "service-role/AmazonAPIGatewayPushToCloudWatchLogs"

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "apigateway.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}


def needs_log_role(apigateway: Any) -> bool:
    """Whether the account has no role for API Gateway's logs yet, so that a bootstrap makes one."""
    return not apigateway.get_account().get("cloudwatchRoleArn")


def ensure_log_role(apigateway: Any, iam: Any, *, partition: str, boundary: str = "") -> str | None:
    """Give API Gateway a role for logs if the account has none. Returns the ARN if it was set now, else None.

    Without the role the first Stage with access logs fails ("CloudWatch Logs role ARN must be set in account
    settings"). A role that somebody else set is left alone. `boundary` is the ARN of a policy.
    """
    if not needs_log_role(apigateway):
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
    apigateway.update_account(patchOperations=operations)  # repeated until IAM's change has reached it
    return arn


HOST = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"


def provider_arn(partition: str, account: str) -> str:
    """An account's provider for GitHub: its ARN is made of the URL."""
    return f"arn:{partition}:iam::{account}:oidc-provider/{HOST}"


def ensure_provider(iam: Any, identity: Identity) -> tuple[str, bool]:
    """Returns the provider's ARN, and whether it was created now.

    An existing one is used as it is. Raises ConflictError if it does not accept tokens for AWS: changing it would
    change what other roles trust.
    """
    arn = provider_arn(identity.partition, identity.account)
    try:
        found = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    except iam.exceptions.NoSuchEntityException:
        try:
            iam.create_open_id_connect_provider(Url=f"https://{HOST}", ClientIDList=[AUDIENCE])
        except iam.exceptions.EntityAlreadyExistsException:  # another stage's bootstrap, a moment ago
            return arn, False
        return arn, True
    if AUDIENCE not in found.get("ClientIDList", []):
        raise ConflictError(
            f"the account's provider for GitHub does not accept tokens for {AUDIENCE}",
            hint="check that every role that trusts this provider checks the audience, then run: "
            f"aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn {arn} "
            f"--client-id {AUDIENCE}",
            details={"provider": arn},
        )
    return arn, False


def close_default_group(ec2: Any, group_id: str) -> int:
    """Remove every rule from a VPC's default security group. Returns the number of rules removed.

    AWS creates the group with the VPC. CloudFormation can add rules to it and remove those, but not the two that AWS
    adds.
    """
    found = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"][0]
    incoming, outgoing = found.get("IpPermissions", []), found.get("IpPermissionsEgress", [])
    if incoming:
        ec2.revoke_security_group_ingress(GroupId=group_id, IpPermissions=incoming)
    if outgoing:
        ec2.revoke_security_group_egress(GroupId=group_id, IpPermissions=outgoing)
    return len(incoming) + len(outgoing)


NUMBER_OF_ZONES = 3
WITHOUT_NAT = frozenset({"apne1-az3"})
"""Ids of zones that take subnets but no NAT gateway (aws/aws-cdk#5847). EC2 has no call that tells."""


def usable_zones(ec2: Any, region: str) -> list[str]:
    """The names of the region's availability zones that have Lambda and NAT gateways, sorted.

    Lambda has an interface endpoint in each of its zones. If AWS does not list it, all zones count as Lambda's.
    """
    wanted = {"state": "available", "zone-type": "availability-zone", "opt-in-status": "opt-in-not-required"}
    filters = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
    zones = ec2.describe_availability_zones(Filters=filters)["AvailabilityZones"]
    endpoint = [{"Name": "service-name", "Values": [f"com.amazonaws.{region}.lambda"]}]
    listed = ec2.describe_vpc_endpoint_services(Filters=endpoint)["ServiceDetails"]
    of_lambda = listed[0]["AvailabilityZones"] if listed else [zone["ZoneName"] for zone in zones]
    with_nat = {zone["ZoneName"] for zone in zones if zone.get("ZoneId") not in WITHOUT_NAT}
    return sorted(with_nat & set(of_lambda))


def find_zone(route53: Any, domain: str) -> str:
    """The id of the closest public hosted zone that holds the domain. Raises UsageError if there is none."""
    zones = [
        zone
        for page in route53.get_paginator("list_hosted_zones").paginate()
        for zone in page["HostedZones"]
        if not zone.get("Config", {}).get("PrivateZone", False)
    ]
    holding = [zone for zone in zones if f".{domain}.".endswith(f".{zone['Name'].rstrip('.')}.")]
    if not holding:
        raise UsageError(
            f"this account has no public hosted zone for {domain}",
            hint="create the zone in Route 53 and delegate to it, name it with --zone-id, or remove `domain`",
        )
    closest = max(holding, key=lambda zone: len(zone["Name"]))
    return str(closest["Id"]).rpartition("/")[2]


_CONSOLES = {"aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}


@dataclass(frozen=True, slots=True)
class GitHubConnection:
    """`status` is PENDING until a person authorises it, then AVAILABLE, and ERROR if GitHub revoked it."""

    arn: str
    name: str
    status: str

    @property
    def available(self) -> bool:
        return self.status == "AVAILABLE"


class GitHubConnections:
    """Connections to GitHub of one account and region, through botocore's `codeconnections` client."""

    def __init__(self, codeconnections: Any) -> None:
        self._client = codeconnections

    def get(self, arn: str) -> GitHubConnection:
        return _connection(self._client.get_connection(ConnectionArn=arn)["Connection"])

    def named(self, name: str) -> GitHubConnection | None:
        """The connection to GitHub of that name, or None; names are unique in an account and region."""
        token: dict[str, str] = {}
        while True:
            page = self._client.list_connections(ProviderTypeFilter="GitHub", **token)
            for each in page.get("Connections", ()):
                if each["ConnectionName"] == name:
                    return _connection(each)
            if not page.get("NextToken"):
                return None
            token = {"NextToken": page["NextToken"]}


def console_url(arn: str) -> str:
    """Where a person authorises the connection (Developer Tools → Settings → Connections)."""
    _, partition, _, region, account, rest = arn.split(":", 5)
    host = _CONSOLES.get(partition, "console.aws.amazon.com")
    identifier = rest.partition("/")[2]
    return f"https://{region}.{host}/codesuite/settings/{account}/{region}/codeconnections/connections/{identifier}"


def _connection(found: dict[str, Any]) -> GitHubConnection:
    return GitHubConnection(found["ConnectionArn"], found["ConnectionName"], found["ConnectionStatus"])
