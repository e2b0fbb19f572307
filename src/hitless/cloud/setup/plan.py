"""Previews a bootstrap: changes of the stacks, quotas that are too low, missing permissions.

Asks AWS and changes nothing: change sets are created, read and deleted. A question that fails (no permission to
simulate, no quota service) is reported and left open; only missing credentials fail a plan.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from hitless.aws.account import NUMBER_OF_ZONES, find_zone, needs_log_role, usable_zones
from hitless.aws.changes import Change
from hitless.aws.follow import StackStep, next_step
from hitless.aws.session import Aws
from hitless.aws.stacks import Stacks, StackSpec
from hitless.cloud.setup.domain import LookUp, check_domain
from hitless.cloud.setup.options import BootstrapOptions
from hitless.cloud.setup.stacks import dry_run, names_of
from hitless.cloud.transform.functions import concurrency_needed
from hitless.service.model import Home, Nat, Service

ACTIONS: Mapping[str, list[str]] = json.loads(Path(__file__).with_name("actions.json").read_text("utf-8"))
"""The actions that each part of a bootstrap needs, as far as a plan checks them."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of a limit is used, and how much more is needed. `limit` is None if AWS does not tell."""

    name: str
    used: int
    needed: int
    limit: int | None

    @property
    def enough(self) -> bool:
        return self.limit is None or self.used + self.needed <= self.limit

    def __str__(self) -> str:
        bound = "?" if self.limit is None else self.limit
        verdict = "" if self.enough else ": NOT ENOUGH, ask for more in Service Quotas"
        return f"{self.name}: {self.used} of {bound} used, {self.needed} needed{verdict}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "enough": self.enough}


@dataclass(frozen=True, slots=True)
class StackPlan:
    """The changes of one stack. `exists` is False if all of it is new."""

    name: str
    exists: bool
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "exists": self.exists, "changes": [change.to_json() for change in self.changes]}


@dataclass(frozen=True, slots=True)
class Findings:
    """The results. `missing_permissions` is None if the caller may not simulate policies."""

    stacks: tuple[StackPlan, ...]
    quotas: tuple[Quota, ...]
    missing_permissions: tuple[str, ...] | None

    @property
    def well(self) -> bool:
        return all(quota.enough for quota in self.quotas) and not self.missing_permissions


class Planner:
    """Previews one stage of one service. `say` reports questions that failed."""

    def __init__(self, service: Service, aws: Aws, stacks: Stacks, *, say: Callable[[str], None]) -> None:
        self._service, self._aws, self._stacks, self._say = service, aws, stacks, say

    def look(self, options: BootstrapOptions) -> Findings:
        """Ask AWS. Raises botocore's errors only if credentials or CloudFormation fail."""
        plans = tuple(self._stack(spec) for spec in dry_run(self._service, options))
        return replace(self.check(options), stacks=plans)

    def check(self, options: BootstrapOptions) -> Findings:
        """Quotas and permissions alone. Raises as `look`."""
        exists = self._stacks.find(names_of(self._service).core) is not None
        new_network = not exists and self._service.settings.network.own
        return Findings((), self._quotas(new_network=new_network), self._missing(options))

    def check_domain(self, look_up: LookUp) -> None:
        """Raise HitlessError if the domain has no hosted zone, or cannot get a certificate."""
        if domain := self._service.settings.domain:
            route53 = self._aws.client("route53")
            check_domain(route53, domain, find_zone(route53, domain), look_up, self._say)

    def _stack(self, spec: StackSpec) -> StackPlan:
        """The preview of an existing stack, by a change set that is deleted again. A new stack has none."""
        stack = self._stacks.find(spec.name)
        step = next_step(stack.status if stack else None)
        if stack is None or step in (StackStep.CREATE, StackStep.RECREATE):
            return StackPlan(spec.name, False, ())
        if step is not StackStep.UPDATE:
            self._say(f"{spec.name} is {stack.status}: its changes cannot be previewed; a bootstrap repairs it")
            return StackPlan(spec.name, True, ())
        kept = {key: self._kept(key, value, stack.parameters) for key, value in spec.parameters.items()}
        prepared = self._stacks.prepare(replace(spec, parameters=kept))
        self._stacks.drop(prepared)
        return StackPlan(spec.name, True, prepared.changes)

    @staticmethod
    def _kept(key: str, value: str | None, present: Mapping[str, str]) -> str | None:
        """A plan compares the service's file and its own options. Parameters from options of earlier bootstraps keep
        the stack's values.
        """
        if key == "MakeNetwork" and value == "no":  # a network that exists stays
            return None
        filed = ("Nat", "DomainName", "Branch", "Approval", "Tests", "BuildImage", "BuildType", "LogRetentionDays")
        told = ("Boundary", "TrustedAccounts", "TrustedRoles", "TrustedRoleAccounts", "ExternalId")
        own = key in filed or key in told or "Network" in key
        return value if own or key not in {**present, "Zones": ""} else None

    def _quotas(self, *, new_network: bool) -> tuple[Quota, ...]:
        found: list[Quota] = []
        per_stage = {Nat.NONE: 0, Nat.SINGLE: 1, Nat.PER_AZ: NUMBER_OF_ZONES}
        own, stages = self._service.settings, self._service.stages
        every = sum(per_stage[one.nat] for one in stages if one.network.own and (one.home is Home.AWS or one is own))
        addresses = f"Elastic IP addresses (all stages on AWS take {every})"
        ec2 = self._aws.client("ec2")
        for name, code, needed, count in (
            ("networks (VPCs) in the region", "L-F678F1CE", 1, lambda: len(ec2.describe_vpcs()["Vpcs"])),
            (addresses, "L-0263D0A3", per_stage[own.nat], lambda: len(ec2.describe_addresses()["Addresses"])),
        ):
            used = self._ask(f"how many {name} are used", count)
            if used is not None:
                service = "vpc" if code == "L-F678F1CE" else "ec2"
                limit = self._ask(f"the quota of {name}", partial(self._limit, service, code))
                found.append(Quota(name, used, needed if new_network else 0, limit))
        zones = self._ask("the availability zones", lambda: len(usable_zones(ec2, self._service.region)))
        if zones is not None:
            needed = NUMBER_OF_ZONES if own.network.own else 0
            found.append(Quota("availability zones with Lambda and NAT gateways", 0, needed, zones))
        concurrency = self._ask(
            "Lambda's concurrency",
            lambda: self._aws.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"],
        )
        if concurrency is not None:
            functions = [
                (one.max_provisioned or one.provisioned_concurrency, one.reserved_concurrency)
                for one in self._service.functions
            ]
            needed = concurrency_needed(functions)
            found.append(Quota("concurrent executions of Lambda (new accounts: 10)", 0, needed, concurrency))
        return tuple(found)

    def _limit(self, service: str, code: str) -> int:
        answer = self._aws.client("service-quotas").get_service_quota(ServiceCode=service, QuotaCode=code)
        return int(answer["Quota"]["Value"])

    def _missing(self, options: BootstrapOptions) -> tuple[str, ...] | None:
        log_role = self._ask(
            "whether API Gateway has a role for its logs", lambda: needs_log_role(self._aws.client("apigateway"))
        )
        domain, network = self._service.settings.domain is not None, self._service.settings.network.own
        actions = needed_actions(options, domain=domain, network=network, log_role=bool(log_role))
        principal = principal_of(self._aws.identity().arn)
        if principal is None:
            return ()
        answers = self._ask("which permissions are missing", lambda: self._simulate(principal, actions))
        return None if answers is None else tuple(answers)

    def _simulate(self, principal: str, actions: list[str]) -> list[str]:
        pages = self._aws.client("iam").get_paginator("simulate_principal_policy")
        return [
            each["EvalActionName"]
            for page in pages.paginate(PolicySourceArn=principal, ActionNames=actions)
            for each in page["EvaluationResults"]
            if each["EvalDecision"] != "allowed"
        ]

    def _ask(self, what: str, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (BotoCoreError, ClientError, KeyError) as error:
            self._say(f"{what}: not known ({type(error).__name__}: {error})")
            return None


def needed_actions(
    options: BootstrapOptions, *, domain: bool, network: bool = True, log_role: bool = False
) -> list[str]:
    """The actions that a bootstrap needs, as far as a plan checks them. `log_role`: a role must be created."""
    told = options.identity
    parts = {
        "network": network,
        "always": True,
        "log_role": log_role,
        "pipeline": options.pipeline is not None,
        "domain": domain,
        "github": told.github,
        "trust": any(one is not None for one in (told.trust, told.external_id, told.github, told.environment)),
        "boundary": told.boundary,
        "no_boundary": told.boundary == "",
    }
    return [action for part, needs in parts.items() if needs for action in ACTIONS[part]]


def principal_of(arn: str) -> str | None:
    """The user or role whose policies can be simulated; None for an account's root, which may do anything."""
    prefix, _, rest = arn.partition(":sts:")
    if not rest:
        return None if arn.endswith(":root") else arn
    account, role = rest.split(":")[1], rest.split("/")[1]
    return f"{prefix}:iam::{account}:role/{role}"
