"""Describes a change set in plain words. Pure: reads CloudFormation's documents, calls nothing.

A replacement creates a new resource and deletes the old one, so requests to the old one fail. CloudFormation reports it
as `Replacement: True`. `Conditional` means that it decides during the update; it counts as a replacement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Action(StrEnum):
    """What happens to a resource."""

    ADD = "add"
    CHANGE = "change"
    REPLACE = "replace"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One resource of a change set. `reasons` are the properties that differ. `certain` is False if CloudFormation
    decides only during the update whether it replaces the resource.
    """

    action: Action
    resource: str
    kind: str
    reasons: tuple[str, ...] = ()
    certain: bool = True

    @property
    def replaces(self) -> bool:
        return self.action is Action.REPLACE

    def to_json(self) -> dict[str, Any]:
        """The JSON that the command line shows: its documented keys, plus `type` and `reasons`."""
        return {
            "action": self.action.value,
            "resource": self.resource,
            "type": self.kind,
            "replaces": self.replaces,
            "reasons": list(self.reasons),
        }

    def __str__(self) -> str:
        word = {"add": "added", "change": "changed", "delete": "deleted"}.get(self.action, "REPLACED")
        if not self.certain:
            word = "perhaps REPLACED"
        why = f" ({', '.join(self.reasons)})" if self.reasons else ""
        return f"{self.resource} {word}{why}"


NOT_SERVING = frozenset(
    {
        "AWS::ApiGateway::Deployment",
        "AWS::CodeBuild::Project",
        "AWS::EC2::FlowLog",
        "AWS::IAM::Policy",
        "AWS::Lambda::Version",
        "AWS::SNS::Subscription",
        "AWS::SNS::TopicPolicy",
    }
)
"""Types whose replacement fails no request: the new resource exists before the old one is deleted."""

SERVING = frozenset(
    {
        "AWS::ApiGateway::BasePathMapping",
        "AWS::ApiGateway::DomainName",
        "AWS::ApiGateway::RestApi",
        "AWS::ApiGateway::Stage",
        "AWS::CertificateManager::Certificate",
        "AWS::DynamoDB::Table",
        "AWS::EC2::NatGateway",
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::Subnet",
        "AWS::EC2::VPC",
        "AWS::Lambda::Alias",
        "AWS::Lambda::Function",
        "AWS::Lambda::Permission",
        "AWS::RDS::DBCluster",
        "AWS::RDS::DBInstance",
        "AWS::Route53::RecordSet",
        "AWS::S3::Bucket",
    }
)
"""Types for which even a possible replacement is refused: requests, names or data depend on the resource."""


KEPT = SERVING - {"AWS::EC2::NatGateway", "AWS::Lambda::Function", "AWS::Lambda::Alias", "AWS::Lambda::Permission"}
"""Types that an update may not delete either: names, networks and data."""


def read_changes(pages: Iterable[Mapping[str, Any]]) -> tuple[Change, ...]:
    """The changes in the pages of `describe_change_set`, most dangerous first."""
    found = [
        _read(change["ResourceChange"])
        for page in pages
        for change in page.get("Changes", ())
        if change.get("ResourceChange")
    ]
    order = [Action.REPLACE, Action.DELETE, Action.CHANGE, Action.ADD]
    return tuple(sorted(found, key=lambda change: (order.index(change.action), change.resource)))


def _read(change: Mapping[str, Any]) -> Change:
    details = [detail.get("Target", {}) for detail in change.get("Details", ())]
    reasons = {str(target.get("Name") or target.get("Attribute", "")) for target in details} - {""}
    action, certain = Action.CHANGE, True
    match change["Action"], change.get("Replacement", "False"):
        case (("Add" | "Import"), _):
            action = Action.ADD
        case "Remove", _:
            action = Action.DELETE
        case _, "True":
            action = Action.REPLACE
        case (_, "Conditional") | ("Dynamic", _):
            action, certain = Action.REPLACE, False
    return Change(action, change["LogicalResourceId"], change.get("ResourceType", ""), tuple(sorted(reasons)), certain)


def harmful(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes that may make requests fail or lose data.

    These are certain replacements of types that are not known to be harmless, possible replacements of types that
    serve, and deletions of types that are kept.
    """
    return tuple(
        one
        for one in changes
        if (one.action is Action.DELETE and one.kind in KEPT)
        or (one.replaces and (one.kind in SERVING or (one.certain and one.kind not in NOT_SERVING)))
    )
