"""Asks npm's @cloud-copilot/iam-simulate, and reads a role's deployed policies."""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NODE = Path(__file__).resolve().parents[3] / "node"


@dataclass(frozen=True)
class Role:
    """A role and its policies."""

    arn: str
    policies: tuple[Mapping[str, Any], ...]
    boundary: Mapping[str, Any] | None = None

    def allowed_actions(self) -> set[str]:
        """Every action that its Allow statements list."""
        return {
            action
            for policy in self.policies
            for statement in policy["Statement"]
            if statement["Effect"] == "Allow"
            for action in _several(statement["Action"])
        }


@dataclass(frozen=True)
class Question:
    """Whether the role may do this action to this resource. `trust` is the trust policy of a role to be assumed."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict, hash=False)
    trust: Mapping[str, Any] | None = field(default=None, hash=False)


def _several(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def read_role(iam: Any, arn: str) -> Role:
    """The role's own policies, attached ones and boundary, from IAM."""
    name = arn.rpartition("/")[2]
    inline = [
        iam.get_role_policy(RoleName=name, PolicyName=one)["PolicyDocument"]
        for one in iam.list_role_policies(RoleName=name)["PolicyNames"]
    ]
    attached = [
        _document(iam, one["PolicyArn"]) for one in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    ]
    boundary = iam.get_role(RoleName=name)["Role"].get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    return Role(arn, (*inline, *attached), _document(iam, boundary) if boundary else None)


def _document(iam: Any, arn: str) -> Mapping[str, Any]:
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document: Mapping[str, Any] = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    return document


def verdicts(role: Role, questions: Sequence[Question]) -> dict[Question, str]:
    """`Allowed`, `ImplicitlyDenied`, `ExplicitlyDenied`, or the simulator's error about the question."""
    asked = [
        {
            "policies": role.policies,
            "boundary": role.boundary,
            "principal": role.arn,
            "action": question.action,
            "resource": question.resource,
            "context": dict(question.context),
            "trust": question.trust,
        }
        for question in questions
    ]
    simulator = _simulator()
    assert simulator.stdin is not None
    assert simulator.stdout is not None
    simulator.stdin.write(json.dumps(asked) + "\n")
    simulator.stdin.flush()
    return dict(zip(questions, json.loads(simulator.stdout.readline()), strict=True))


@functools.cache
def _simulator() -> subprocess.Popen[str]:
    """One for this process, because Node takes half a second to start."""
    command = ["node", str(Path(__file__).with_name("simulate.mjs")), str(NODE)]
    simulator = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(simulator.communicate)
    return simulator


def refused(role: Role, questions: Iterable[Question]) -> list[str]:
    """The questions whose action the role is not allowed, one line each."""
    found = verdicts(role, list(dict.fromkeys(questions)))
    return [f"{one.action} on {one.resource}: {verdict}" for one, verdict in found.items() if verdict != "Allowed"]
