"""What CloudFormation cannot say of a network and its name: the VPC's default group closed, the zone of a domain."""

from __future__ import annotations

from typing import Any

from hitless.errors import UsageError


def close_default_group(ec2: Any, group_id: str) -> int:
    """Take every rule from a VPC's default security group; how many there were.

    A group is created with the VPC and belongs to no template: CloudFormation can add rules to it and remove those
    again, never the two that AWS puts there. Idempotent.
    """
    found = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"][0]
    incoming, outgoing = found.get("IpPermissions", []), found.get("IpPermissionsEgress", [])
    if incoming:
        ec2.revoke_security_group_ingress(GroupId=group_id, IpPermissions=incoming)
    if outgoing:
        ec2.revoke_security_group_egress(GroupId=group_id, IpPermissions=outgoing)
    return len(incoming) + len(outgoing)


def find_zone(route53: Any, domain: str) -> str:
    """The id of the public hosted zone that holds the domain, of several the closest. UsageError without one."""
    zones = [
        zone
        for page in route53.get_paginator("list_hosted_zones").paginate()
        for zone in page["HostedZones"]
        if not zone.get("Config", {}).get("PrivateZone", False)
    ]
    holding = [zone for zone in zones if f".{domain}.".endswith(f".{zone['Name'].rstrip('.')}.")]
    if not holding:
        raise UsageError(
            f"no public hosted zone of this account holds {domain}",
            hint="make the zone in Route 53 and delegate to it, or name it with --zone-id, or take `domain` out",
        )
    closest = max(holding, key=lambda zone: len(zone["Name"]))
    return str(closest["Id"]).rpartition("/")[2]
