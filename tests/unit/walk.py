"""Releases one after another on the modelled AWS.

`Walk` ships definitions and asserts after each update that what is served, and what a live version uses, is all there.
It knows nothing of how the transform comes to its templates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hitless.cloud.transform.desired import desired, functions_of, version_ids
from hitless.cloud.transform.guard import ROLE_ID
from hitless.cloud.transform.model import STAGE_ID, FunctionIds, Resource, Template, copied, of_type, references
from hitless.cloud.transform.widening import one_index_each
from hitless.cloud.transition import Transition, plan
from tests.unit.definitions import Definition
from tests.unit.modelled_aws import ModelledAws, picture

USED_LISTS = ("GlobalSecondaryIndexes", "SecurityGroupIngress", "SecurityGroupEgress")


@dataclass(frozen=True)
class Rights:
    allowed: frozenset[str]
    denied: frozenset[str]


def rights(resources: Mapping[str, Resource], role: str) -> Rights:
    """The rights of a role: its own policies, those attached to it, and those that it names."""
    properties = resources[role]["Properties"]
    documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    documents += [
        one["Properties"]["PolicyDocument"]
        for one in of_type(resources, "AWS::IAM::Policy").values()
        if {"Ref": role} in one["Properties"]["Roles"]
    ]
    statements = [one for document in documents for one in document["Statement"]]
    managed = [str(arn) for arn in properties.get("ManagedPolicyArns", [])]
    said = {effect: {json.dumps(s, sort_keys=True) for s in statements if s["Effect"] == effect} for effect in _EFFECTS}
    return Rights(frozenset(said["Allow"] | set(managed)), frozenset(said["Deny"]))


_EFFECTS = ("Allow", "Deny")


def role_of(resources: Mapping[str, Resource], ids: FunctionIds) -> str:
    return str(resources[ids.function]["Properties"]["Role"]["Fn::GetAtt"][0])


def used(resources: Mapping[str, Resource], ids: FunctionIds) -> set[str]:
    """Everything in the stack that a function's configuration refers to, directly or indirectly."""
    found: set[str] = set()
    properties = resources[ids.function]["Properties"]
    ahead = set(references(properties))
    while ahead:
        name = ahead.pop()
        if name in resources and name not in found and resources[name]["Type"] != "AWS::Lambda::Function":
            found.add(name)
            ahead |= set(references(resources[name].get("Properties", {})))
    return found


def items(resource: Resource) -> set[str]:
    """The items in a resource's lists that a version may use: indexes by name, rules as written."""
    properties = resource.get("Properties", {})
    return {
        str(one.get("IndexName") or json.dumps(one, sort_keys=True))
        for key in USED_LISTS
        for one in properties.get(key, [])
    }


def concurrency(resources: Mapping[str, Resource], ids: FunctionIds) -> float:
    return float(resources[ids.function]["Properties"].get("ReservedConcurrentExecutions", math.inf))


@dataclass
class Walk:
    """Releases one after another. `said` has the notes of each release that began."""

    aws: ModelledAws = field(default_factory=ModelledAws)
    live: Template = field(default_factory=dict)
    """The wanted template of the release that is live."""
    number: int = 0
    said: list[str] = field(default_factory=list)
    updates: int = 0
    """Of the last release."""
    history: list[tuple[Template, dict[str, str]]] = field(default_factory=list)
    """The releases that were live, the last one at the end: wanted template, alias → version."""
    _passed: set[str] = field(default_factory=set)
    """What stands in the stack because of the live release and of failed ones since."""

    def ship(self, definition: Definition, *, shifts: bool = True) -> None:
        """Ships a whole release; with `shifts` false its shift fails. ServiceFileError if it is refused."""
        self.number += 1
        wanted = desired(definition.compiled(), definition.release(self.number))
        before = self.aws.live
        transition = plan(before, wanted, recorded=self.live or None)
        transition.check()
        self.said = list(transition.notes)
        self._passed |= wanted["Resources"].keys()
        pinned, picture_before = dict(self.aws.aliases), self._served()
        triggers = self._triggers()
        before = transition.live
        self._passed |= {name for name, one in before.resources.items() if self.aws.resources.get(name) != one}
        self.updates = len(transition.updates) + 1
        physical = dict(self.aws.physical)
        for update in transition.updates:
            self._apply(update)
            assert _by_function(self._served()) == _by_function(picture_before), "the Stage moved before the shift"
            assert self._triggers() == triggers, "what calls by itself came or went before the shift"
            for name, at in pinned.items():
                if name in self.aws.aliases and not name.endswith("AliasHeld"):
                    assert self.aws.aliases[name] == at, f"{name} moved before the shift"
            self._uses(self.live, physical)
            self._keeps_settings(self.live)
        self._uses(wanted, physical, strict=False)
        self._denies_no_more_than(wanted)
        if shifts:
            self._arrive(transition, physical, pinned)

    def back(self) -> None:
        """Rolls back to the release that was live before. ServiceFileError if it is refused."""
        wanted, versions = self.history[-2]
        transition = plan(self.aws.live, wanted, recorded=self.live, back_to=versions)
        transition.check()
        self.said, self.updates = list(transition.notes), len(transition.updates) + 1
        before = transition.live.resources
        self._passed |= {name for name, one in before.items() if self.aws.resources.get(name) != one} | before.keys()
        pinned, physical, picture_before = dict(self.aws.aliases), dict(self.aws.physical), self._served()
        for update in transition.before_traffic:
            self._apply(update)
            assert _by_function(self._served()) == _by_function(picture_before), "the Stage moved before traffic"
            self._uses(self.live, physical)
        self._uses(wanted, physical)
        self._denies_no_more_than(wanted)
        self.aws.aliases |= versions
        self._asks_no_version_for_what_it_does_not_know(wanted, pinned)
        for update in transition.updates[len(transition.before_traffic) :]:
            self._apply(update)
            self._uses(wanted, physical)
            self._asks_no_version_for_what_it_does_not_know(wanted, pinned)
        self._apply(transition.contract(versions))
        assert {name: self.aws.aliases[name] for name in versions} == versions
        self._uses(wanted, physical)
        self._is(transition.wanted)
        self.live, self._passed = wanted, set(wanted["Resources"]) | self.live["Resources"].keys()
        self.history.append((wanted, versions))

    def _arrive(self, transition: Transition, physical: Mapping[str, int], pinned: Mapping[str, str]) -> None:
        wanted = transition.wanted
        targets = {ids.alias: str(self.aws.versions[version]) for ids, version in version_ids(wanted).items()}
        self.aws.aliases |= targets
        self._asks_no_version_for_what_it_does_not_know(wanted, pinned)
        self._apply(transition.contract(targets))
        assert {name: self.aws.aliases[name] for name in targets} == targets
        self._uses(self.live, physical, lowered=True)
        self._uses(wanted, physical, lowered=True)
        self._is(wanted)
        self.live, self._passed = wanted, set(wanted["Resources"])
        self.history.append((wanted, targets))

    def _apply(self, update: Template) -> None:
        gone = {
            name: one
            for name, one in self.aws.resources.items()
            if name not in update["Resources"] and one["Type"] in _SERVING
        }
        for each in one_index_each(self.aws.template, update):
            self.aws.update(each)
        for name, one in gone.items():
            mine = self.live.get("Resources", {}).get(name)
            assert mine is None or _only_denies(mine) or _called_by_a_trigger(one), f"{name} of the live release went"
        self._answers()

    def is_settled(self) -> None:
        """Checks that after two releases of one definition nothing is wider than the definition."""
        mine, now = self.live["Resources"], self.aws.resources
        for ids in functions_of(self.live):
            role = role_of(mine, ids)
            assert rights(now, role) == rights(mine, role), f"{role} is still wider than the service asks"
            for name in used(mine, ids):
                assert items(now[name]) == items(mine[name]), f"{name} still has what nobody asks for"

    def _served(self) -> Any:
        return copied(self.aws.served) if STAGE_ID in self.aws.resources else None

    def _triggers(self) -> dict[str, Resource]:
        return copied(of_type(self.aws.resources, "AWS::Events::Rule"))

    def _answers(self) -> None:
        """Checks that each route of the Stage leads to an existing alias, at an existing version that may be
        invoked.
        """
        if STAGE_ID not in self.aws.resources:
            return
        resources = self.aws.resources
        allowed = {
            one["Properties"]["FunctionName"].get("Ref")
            for one in of_type(resources, "AWS::Lambda::Permission").values()
            if one["Properties"]["Principal"] == "apigateway.amazonaws.com"
        }
        for route, said in (self.aws.served or {}).items():
            for alias in _called(said):
                assert alias in self.aws.aliases, f"{route}: {alias} is gone"
                assert alias in allowed, f"{route}: {alias} may not be invoked"
                function = resources[resources[alias]["Properties"]["FunctionName"]["Ref"]]
                assert function["Type"] == "AWS::Lambda::Function"

    def _uses(
        self, template: Template, physical: Mapping[str, int], *, strict: bool = True, lowered: bool = False
    ) -> None:
        """Checks that everything the versions of a release use exists, is the same (`strict`), and is not narrower."""
        theirs, now = template.get("Resources", {}), self.aws.resources
        for ids in functions_of(template):
            assert ids.function in now, f"{ids.function} is gone"
            role = role_of(theirs, ids)
            mine, may = rights(theirs, role), rights(now, role)
            assert mine.allowed <= may.allowed, f"{role} is narrowed by {mine.allowed - may.allowed}"
            assert lowered or may.denied <= mine.denied, f"{role} is denied {may.denied - mine.denied}"
            assert lowered or concurrency(now, ids) >= concurrency(theirs, ids), f"{ids.function} has less room"
            for name in used(theirs, ids) | {role, ids.function, ids.alias}:
                assert name in now, f"{name} is gone"
                assert not strict or self.aws.physical[name] == physical.get(name, self.aws.physical[name]), name
                assert items(theirs[name]) <= items(now[name]), f"{name} lost {items(theirs[name]) - items(now[name])}"
        for kind in ("ApiKey", "UsagePlanKey", "BasePathMapping"):
            for name in of_type(theirs, f"AWS::ApiGateway::{kind}"):
                assert not strict or lowered or name in now or not self.live, f"{name} is gone"

    def _asks_no_version_for_what_it_does_not_know(self, wanted: Template, pinned: Mapping[str, str]) -> None:
        """While the aliases have moved and the Stage has not, a version of the next release is asked for what that
        release asks its function for, under the settings that this release's API has, and for nothing else; no more is
        asked for what the live version knows.
        """
        served = self._served()
        theirs_now = picture(self.live["Resources"]) if STAGE_ID in self.live.get("Resources", {}) else {}
        mine = picture(wanted["Resources"]) if served and STAGE_ID in wanted["Resources"] else {}
        for route, said in (served or {}).items():
            for alias in _called({"Integration": said.get("Integration")} if route[0].isupper() else {}):
                base = alias.removesuffix("AliasLive").removesuffix("AliasHeld")
                if _asked(mine, route, f"{base}AliasLive") and _seen(served, route) == _seen(mine, route):
                    continue
                if alias.endswith("AliasLive") and not _asked(theirs_now, route, alias):
                    continue
                stays = (pinned[f"{base}AliasLive"], pinned.get(alias))
                assert self.aws.aliases[alias] in stays, f"{route} reaches a version that does not expect it"

    def _keeps_settings(self, live: Template) -> None:
        """Checks that the live release's limits are not tightened, nothing it uses is switched off, its address is
        kept.
        """
        theirs, now = live.get("Resources", {}), self.aws.resources
        for name in theirs.keys() & now.keys():
            mine, other = theirs[name].get("Properties", {}), now[name].get("Properties", {})
            match theirs[name]["Type"]:
                case "AWS::IAM::Role" if name != ROLE_ID:
                    bounds = (mine.get("PermissionsBoundary"), None)
                    assert other.get("PermissionsBoundary") in bounds, f"{name} is bounded otherwise"
                case "AWS::KMS::Key":
                    assert other.get("Enabled") or not mine.get("Enabled"), f"{name} is switched off"
                case "AWS::DynamoDB::Table":
                    stream = mine.get("StreamSpecification")
                    assert stream is None or other.get("StreamSpecification") == stream, f"{name} has no stream"
                case "AWS::ApiGateway::RestApi":
                    for said in ("EndpointConfiguration", "DisableExecuteApiEndpoint"):
                        assert other.get(said) == mine.get(said), f"{name} has another address"

    def _denies_no_more_than(self, wanted: Template) -> None:
        for ids in functions_of(wanted):
            role = role_of(wanted["Resources"], ids)
            extra = rights(self.aws.resources, role).denied - rights(wanted["Resources"], role).denied
            assert not extra, f"the candidate's {role} is denied {extra}"
            bound = wanted["Resources"][role]["Properties"].get("PermissionsBoundary")
            assert bound or "PermissionsBoundary" not in self.aws.resources[role]["Properties"], f"{role} is bounded"

    def _is(self, wanted: Template) -> None:
        """Checks that the stack is exactly the wanted release, without leftovers older than the release before."""
        mine, now = wanted["Resources"], self.aws.resources
        for ids in functions_of(wanted):
            assert concurrency(now, ids) == concurrency(mine, ids)
            role = role_of(mine, ids)
            assert rights(now, role).denied == rights(mine, role).denied
        for name, setting in _LOWERED:
            for one in of_type(mine, name):
                assert now[one]["Properties"].get(setting) == mine[one]["Properties"].get(setting), f"{one}: {setting}"
        assert self._triggers() == of_type(mine, "AWS::Events::Rule")
        if STAGE_ID in mine:
            assert self.aws.served == picture(mine), "clients are served something else than the release"
        for name in mine:
            assert name in now, f"{name} is missing"
            assert "hitless:retired" not in now[name].get("Metadata", {}), f"{name} is wanted and marked as retired"
        versions = of_type(now, "AWS::Lambda::Version").keys()
        assert now.keys() - versions <= mine.keys() | self._passed | self.live.get("Resources", {}).keys()


_LOWERED = (
    ("AWS::IAM::Role", "PermissionsBoundary"),
    ("AWS::KMS::Key", "Enabled"),
    ("AWS::DynamoDB::Table", "StreamSpecification"),
    ("AWS::ApiGateway::RestApi", "EndpointConfiguration"),
    ("AWS::ApiGateway::RestApi", "DisableExecuteApiEndpoint"),
)
"""What waits for the end of the shift, and is as the release says then."""

_SERVING = (
    "AWS::Lambda::Function",
    "AWS::Lambda::Alias",
    "AWS::Lambda::Permission",
    "AWS::ApiGateway::RestApi",
    "AWS::ApiGateway::Stage",
    "AWS::ApiGateway::ApiKey",
    "AWS::ApiGateway::UsagePlan",
    "AWS::ApiGateway::UsagePlanKey",
    "AWS::ApiGateway::BasePathMapping",
    "AWS::IAM::Role",
    "AWS::IAM::Policy",
    "AWS::DynamoDB::Table",
    "AWS::EC2::SecurityGroup",
    "AWS::Logs::LogGroup",
)


def _only_denies(resource: Resource) -> bool:
    statements = resource.get("Properties", {}).get("PolicyDocument", {}).get("Statement", [])
    return bool(statements) and all(one["Effect"] == "Deny" for one in statements)


def _by_function(shown: Any) -> Any:
    """A picture in which aliases of the same function are not distinguished."""
    return json.loads(json.dumps(shown).replace("AliasHeld", "AliasLive"))


def _called_by_a_trigger(resource: Resource) -> bool:
    return bool(resource.get("Properties", {}).get("Principal") == "events.amazonaws.com")


def _asked(shown: Mapping[str, Any], route: str, alias: str) -> bool:
    """Whether a release's own API calls this alias for the route."""
    said = shown.get(route) or shown.get(f"ANY {route.partition(' ')[2]}") or {}
    return alias in _called({"Integration": said.get("Integration")})


def _seen(shown: Mapping[str, Any], route: str) -> Any:
    """What a function can tell of the settings under which it gets the route's requests."""
    said = shown.get(route) or shown.get(f"ANY {route.partition(' ')[2]}") or {}
    kept = {key: one for key, one in said.items() if key != "HttpMethod"}
    unseen = ("AuthorizerResultTtlInSeconds", "IdentitySource")
    checks = [{key: one for key, one in each.items() if key not in unseen} for each in kept.pop("AuthorizerId", [])]
    return _by_function({**kept, "authorizer": checks, "binary": shown["api"].get("BinaryMediaTypes")})


def _called(said: Any) -> Iterator[str]:
    """Aliases that a method's integration and authorizer call."""
    if isinstance(said, dict):
        for key in ("Integration", "AuthorizerId"):
            yield from (name for name in references(said.get(key)) if name.endswith(("AliasLive", "AliasHeld")))
