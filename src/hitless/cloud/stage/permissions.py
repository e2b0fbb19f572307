"""What CloudFormation's role of a stage may make, and what a template needs beyond that.

The core stack grants the types of a plain release, and rules, schedules, event source mappings and function URLs of the
stage's own name. Everything else comes by `bootstrap --policies`. `permissions.json` has the actions that
CloudFormation's own schemas name for other types; `scripts/create-only` writes it. Policies are compared by actions
alone: a resource or a condition may still deny one.
"""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from hitless.aws.session import is_denied
from hitless.aws.template import load_template
from hitless.cloud.transform.model import Resource, Template
from hitless.errors import ServiceFileError

_FILE = Path(__file__).with_name("permissions.json")
_NAMED_BY_STAGE = ("AWS::Events::Rule", "AWS::Scheduler::Schedule")
"""Types that core grants by the stage's name."""


@dataclass(frozen=True, slots=True)
class Granted:
    """Patterns of actions: `own` of the role's inline policies, which core writes, `added` of attached ones."""

    own: tuple[str, ...]
    added: tuple[str, ...] = ()

    def allows(self, action: str, *, by_name: bool) -> bool:
        """Whether some statement allows the action; with `by_name` core's own do not count."""
        patterns = self.added if by_name else (*self.own, *self.added)
        return any(fnmatch.fnmatchcase(action.lower(), one.lower()) for one in patterns)


class StackPermissions:
    """The policies of CloudFormation's role, read through botocore's `iam` client."""

    def __init__(self, iam: Any, role_arn: str) -> None:
        self._iam, self._role = iam, role_arn.rpartition("/")[2]

    def read(self) -> Granted | None:
        """What the role is granted; None if it may not be read."""
        iam, role = self._iam, self._role
        try:
            inline = [
                iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
                for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
            ]
            attached = [
                self._document(one["PolicyArn"])
                for one in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
            ]
        except ClientError as error:
            if not is_denied(error):
                raise
            return None
        return Granted(tuple(_actions(inline)), tuple(_actions(attached)))

    def _document(self, arn: str) -> Mapping[str, Any]:
        version = self._iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        found = self._iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        return dict(found)


def granted_by_core() -> Granted:
    """What a core stack of this version grants without `--policies`."""
    (policy,) = load_template("core")["Resources"]["CloudFormationRole"]["Properties"]["Policies"]
    return Granted(tuple(_actions([policy["PolicyDocument"]])))


@functools.cache
def permissions_of_types() -> dict[str, list[str]]:
    """Type → the actions of its service that CloudFormation uses; the first makes the resource."""
    found: dict[str, list[str]] = json.loads(_FILE.read_text("utf-8"))
    return found


def missing(wanted: Template, live: Mapping[str, Resource], granted: Granted, prefix: str) -> dict[str, list[str]]:
    """Type → missing actions, of the resources that the release adds or changes. `prefix` is SERVICE-STAGE-.

    Only the action that makes a resource decides, because the schemas' lists are supersets.
    """
    found: dict[str, list[str]] = {}
    for name, resource in sorted(wanted["Resources"].items()):
        kind, needs = resource["Type"], permissions_of_types().get(resource["Type"])
        unchanged = name in live and live[name].get("Properties") == resource.get("Properties")
        if needs is None or unchanged:
            continue
        physical = resource.get("Properties", {}).get("Name")
        by_name = kind in _NAMED_BY_STAGE and isinstance(physical, str) and not physical.startswith(prefix)
        if not granted.allows(needs[0], by_name=by_name):
            found[kind] = [one for one in needs if not granted.allows(one, by_name=by_name)]
    return found


def policy_for(needed: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """The policy document that grants the actions. Its resources are for its author to narrow."""
    statements = [{"Effect": "Allow", "Action": list(actions), "Resource": "*"} for actions in needed.values()]
    return {"Version": "2012-10-17", "Statement": statements}


def check(needed: Mapping[str, list[str]], stage: str) -> None:
    """Raise ServiceFileError if CloudFormation may not make some resources. Its details hold the policy."""
    if not needed:
        return
    kinds = ", ".join(f"{kind} ({actions[0]})" for kind, actions in needed.items())
    raise ServiceFileError(
        f"CloudFormation's role may not make these resources of the release: {kinds}",
        hint=f"`hitless deploy --home aws --stage {stage} --dry-run` writes the policy that is missing; "
        f"create it and repeat `hitless aws bootstrap --stage {stage} --policies ARN`",
        details={"missing": dict(needed), "policy": policy_for(needed)},
    )


def _actions(documents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for document in documents:
        statements = document["Statement"]
        for statement in [statements] if isinstance(statements, dict) else statements:
            if statement["Effect"] == "Allow":
                actions = statement.get("Action", "*")  # NotAction: the rest of AWS
                yield from [actions] if isinstance(actions, str) else actions
