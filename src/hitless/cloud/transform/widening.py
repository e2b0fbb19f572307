"""What both releases may use while both run: permissions, rules, indexes, and settings that a release may lower.

A resource that changes in place would take from the live version what the next one no longer asks for. So *expand*
gives it what either release asks for. *Contract* gives it what the release asks for and, for one more release, what the
previous one had: requests in progress and a roll-back need that. Statements that deny are added in contract, and are
not kept after it. The metadata `hitless:beside` is the number of a list's last items that only the other release needs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from hitless.cloud.transform.model import Resource, Template, copied, of_type

BESIDE = "hitless:beside"
NEXT_POLICY, PREVIOUS_POLICY = "next-release", "previous-release"
ROLE, TABLE = "AWS::IAM::Role", "AWS::DynamoDB::Table"
INDEXES = "GlobalSecondaryIndexes"

LISTS: Mapping[str, tuple[str, ...]] = {
    ROLE: ("ManagedPolicyArns", "AssumeRolePolicyDocument/Statement"),
    "AWS::IAM::Policy": ("PolicyDocument/Statement", "Roles"),
    "AWS::IAM::ManagedPolicy": ("PolicyDocument/Statement", "Roles"),
    "AWS::IAM::RolePolicy": ("PolicyDocument/Statement",),
    "AWS::S3::BucketPolicy": ("PolicyDocument/Statement",),
    "AWS::SQS::QueuePolicy": ("PolicyDocument/Statement",),
    "AWS::SNS::TopicPolicy": ("PolicyDocument/Statement",),
    "AWS::SecretsManager::ResourcePolicy": ("ResourcePolicy/Statement",),
    "AWS::KMS::Key": ("KeyPolicy/Statement",),
    "AWS::EC2::SecurityGroup": ("SecurityGroupIngress", "SecurityGroupEgress"),
    TABLE: (INDEXES, "AttributeDefinitions"),
}
"""Type → its lists of which a live version may use each item. A role's inline policies are handled apart."""

_NEVER_LEFT_OUT = (ROLE, "AWS::IAM::ManagedPolicy", "AWS::KMS::Key")
"""Types that other resources may name, so that they stay even if they only deny."""

_KEYS = {INDEXES: "IndexName", "AttributeDefinitions": "AttributeName"}
"""Lists whose items have names: two of one name are one item."""


LOWERED: Mapping[str, Mapping[str, Callable[[Any, Any], bool]]] = {
    "AWS::Lambda::Function": {
        "ReservedConcurrentExecutions": lambda live, wanted: (
            wanted is not None and (live is None or int(live) > int(wanted))
        )
    },
    ROLE: {"PermissionsBoundary": lambda live, wanted: wanted is not None and live != wanted},
    "AWS::KMS::Key": {"Enabled": lambda live, wanted: str(wanted).lower() == "false" != str(live).lower()},
    TABLE: {"StreamSpecification": lambda live, wanted: live is not None and wanted is None},
    "AWS::ApiGateway::RestApi": {"EndpointConfiguration": operator.ne, "DisableExecuteApiEndpoint": operator.ne},
}
"""Type → property → whether the change takes something from the live version: then it waits for contract."""


_NOT_OF_A_VERSION = tuple(
    f"AWS::{area}::" for area in ("ApiGateway", "CloudWatch", "CodeDeploy", "Events", "Lambda", "Logs")
)
"""Resources that no version uses while it runs. A version keeps its layers when the stack deletes them."""


def widened(live: Resource, wanted: Resource) -> Resource | None:
    """The resource in the expand step: as the release wants it, plus everything that the live one uses.

    None for a policy of which nothing is left without its denials: it waits for contract.
    """
    kind = wanted["Type"]
    made = _bare(wanted)
    if live["Type"] != kind:
        return made
    was = _bare(live)
    counts = {}
    for path in LISTS.get(kind, ()):
        mine, theirs = _items(was, path), _items(made, path)
        if mine is not None and theirs is not None:
            kept = [one for one in mine if not _denies(one) or one in theirs]
            added = [one for one in _others(path, theirs, than=kept) if not _denies(one)]
            if path.endswith("/Statement") and not kept and not added and (mine or theirs):
                if kind in _NEVER_LEFT_OUT:
                    _set(made, path, mine or theirs)
                    continue
                return None
            _set(made, path, [*_newest(path, kept, theirs), *added])
            counts[path] = len(added)
    if kind == ROLE:
        _widen_policies(was, made)
    for name, takes in LOWERED.get(kind, {}).items():
        before, after = (one.get("Properties", {}).get(name) for one in (live, wanted))
        if takes(before, after):
            made["Properties"].pop(name, None)
            if before is not None:
                made["Properties"][name] = copied(before)
    return _marked(made, counts)


def narrowed(live: Resource, wanted: Resource) -> Resource:
    """The resource in the contract step: as the release wants it, plus what the previous one was allowed."""
    kind = wanted["Type"]
    made = _bare(wanted)
    if live["Type"] != kind:
        return made
    was = _bare(live)
    counts = {}
    for path in LISTS.get(kind, ()):
        before, mine = _items(was, path), _items(made, path)
        if before is not None and mine is not None:
            kept = [one for one in _others(path, before, than=mine) if not _denies(one)]
            _set(made, path, [*mine, *kept])
            counts[path] = len(kept)
    if kind == ROLE:
        _add_policy(made, PREVIOUS_POLICY, _statements(was), than=_statements(made))
    return _marked(made, counts)


def misses_something(now: Mapping[str, Resource], new: Mapping[str, Resource]) -> bool:
    """Whether the stack gives an earlier release's versions less than they need: a role's rights, an index, a group."""
    used = {name for name, one in new.items() if not one["Type"].startswith(_NOT_OF_A_VERSION)}
    if used - now.keys():
        return True
    functions = of_type(new, "AWS::Lambda::Function").keys() & now.keys()
    if any(_gives_less(now[name], new[name]) for name in used | functions):
        return True
    others = [one for name, one in now.items() if name not in new and one["Type"] != ROLE]
    return any(
        _gives_less(one, {"Type": one["Type"]}) for one in others if not one["Type"].startswith(_NOT_OF_A_VERSION)
    )


def _gives_less(live: Resource, wanted: Resource) -> bool:
    """Whether the live resource gives a version less than the wanted one would."""
    kind = wanted["Type"]
    lists = [(path, _items(live, path), _items(wanted, path)) for path in LISTS.get(kind, ())]
    if kind == ROLE:
        lists.append(("Policies", _statements(live), _statements(wanted)))
    for path, have, want in lists:
        missing = _others(path, want, than=have) if have is not None and want is not None else []
        denied = [one for one in have or [] if _denies(one) and one not in (want or [])]
        if denied or any(not _denies(one) for one in missing):
            return True
    stands, needs = live.get("Properties", {}), wanted.get("Properties", {})
    return any(takes(needs.get(name), stands.get(name)) for name, takes in LOWERED.get(kind, {}).items())


def one_index_each(before: Template, after: Template) -> list[Template]:
    """The updates from one template to the next: `after`, and others before it if a table changes several indexes.

    DynamoDB creates or deletes one global secondary index an update ("AWS::DynamoDB::Table" in CloudFormation's
    template reference). Indexes are deleted first, because a table has 20 at most. Only tables differ from `before`;
    aliases are where `after` has them.
    """
    steps, standing = [], before
    while moved := _tables_moved_on(standing, after):
        standing = copied(standing)
        standing["Resources"] |= moved
        for name, alias in of_type(standing["Resources"], "AWS::Lambda::Alias").items():
            at = after["Resources"].get(name, {}).get("Properties", {}).get("FunctionVersion")
            if isinstance(at, str):
                alias["Properties"]["FunctionVersion"] = at
        steps.append(standing)
    return [*steps, after]


def _tables_moved_on(before: Template, after: Template) -> dict[str, Resource]:
    """The tables that still have several indexes to change, each with one of them changed."""
    moved = {}
    for name, live in of_type(before.get("Resources", {}), TABLE).items():
        wanted = after["Resources"].get(name, {"Type": ""})
        if wanted["Type"] == TABLE and (made := _one_index_on(live, wanted)) is not None:
            moved[name] = made
    return moved


def _one_index_on(live: Resource, wanted: Resource) -> Resource | None:
    """The live table with one index deleted or added; None if at most one change is left, or it cannot be told."""
    have, want = (_items(one, INDEXES) for one in (live, wanted))
    if have is None or want is None:
        return None
    gone, new = _others(INDEXES, have, than=want), _others(INDEXES, want, than=have)
    if len(gone) + len(new) < 2:
        return None
    indexes = [one for one in have if one != gone[0]] if gone else [*have, new[0]]
    tables = live["Properties"], wanted["Properties"]
    known = {one["AttributeName"]: one for table in tables[::-1] for one in table.get("AttributeDefinitions", [])}
    keyed = [live["Properties"], *live["Properties"].get("LocalSecondaryIndexes", []), *indexes]
    used = {key["AttributeName"] for one in keyed for key in one["KeySchema"]}
    made, counts = _bare(live), {}
    for path, items in ((INDEXES, indexes), ("AttributeDefinitions", [known[one] for one in known if one in used])):
        own = [one for one in _items(made, path) or [] if one in items]
        beside = [one for one in items if one not in own]
        _set(made, path, [*own, *beside])
        counts[path] = len(beside)
    return _marked(made, counts)


def allowing(resource: Resource) -> Resource | None:
    """A policy of one of the releases without its denials; None if nothing is left."""
    made = _bare(resource)
    for path in LISTS.get(resource["Type"], ()):
        statements = _items(made, path) if path.endswith("/Statement") and resource["Type"] != ROLE else None
        if statements and any(_denies(one) for one in statements):
            kept = [one for one in statements if not _denies(one)]
            if not kept:
                return made if resource["Type"] in _NEVER_LEFT_OUT else None
            _set(made, path, kept)
    return made


def _bare(resource: Resource) -> Resource:
    """The resource without items that only the other release needs."""
    made = copied(resource)
    metadata = made.get("Metadata", {})
    for path, count in metadata.pop(BESIDE, {}).items():
        if (items := _items(made, path)) is not None and count:
            _set(made, path, items[:-count])
    if "Metadata" in made and not metadata:
        del made["Metadata"]
    if resource["Type"] == ROLE and "Policies" in made.get("Properties", {}):
        policies = made["Properties"]["Policies"]
        made["Properties"]["Policies"] = [
            one for one in policies if one["PolicyName"] not in (NEXT_POLICY, PREVIOUS_POLICY)
        ]
    return made


def _marked(resource: Resource, counts: Mapping[str, int]) -> Resource:
    if beside := {path: count for path, count in counts.items() if count}:
        resource.setdefault("Metadata", {})[BESIDE] = beside
    return resource


def _widen_policies(live: Resource, made: Resource) -> None:
    """The live inline policies without denials that the release does not have, and a policy of what it adds."""
    wanted = _statements(made)
    kept = []
    for policy in copied(live["Properties"].get("Policies", [])):
        document = policy["PolicyDocument"]
        document["Statement"] = [one for one in _listed(document["Statement"]) if not _denies(one) or one in wanted]
        if document["Statement"]:
            kept.append(policy)
    if kept or "Policies" in made["Properties"]:
        made["Properties"]["Policies"] = kept
    _add_policy(made, NEXT_POLICY, wanted, than=_statements(made))


def _add_policy(role: Resource, name: str, statements: list[Any], *, than: list[Any]) -> None:
    added = [one for one in statements if one not in than and not _denies(one)]
    if added:
        document = {"Version": "2012-10-17", "Statement": copied(added)}
        role["Properties"].setdefault("Policies", []).append({"PolicyName": name, "PolicyDocument": document})


def _statements(role: Resource) -> list[Any]:
    policies = role.get("Properties", {}).get("Policies", [])
    return [one for policy in policies for one in _listed(policy["PolicyDocument"]["Statement"])]


def _others(path: str, items: list[Any], *, than: list[Any]) -> list[Any]:
    """The items that are missing in the other list."""
    key = _KEYS.get(path)
    there = [one.get(key) for one in than] if key else than
    return [copied(one) for one in items if (one.get(key) if key else one) not in there]


def _newest(path: str, items: list[Any], newer: list[Any]) -> list[Any]:
    """The items, each in its newer form if both lists have one of its name."""
    key = _KEYS.get(path)
    by_name = {str(one.get(key)): one for one in newer} if key else {}
    return [by_name.get(str(one.get(key)), one) for one in items] if key else items


def _items(resource: Resource, path: str) -> list[Any] | None:
    """The list at a path, empty if it is missing; None if it is not literal."""
    node: Any = resource.get("Properties", {})
    for step in path.split("/"):
        if not isinstance(node, dict):
            return None
        node = node.get(step, [] if step == path.rpartition("/")[2] else {})
    if isinstance(node, dict) and path.endswith("Statement") and "Effect" in node:
        return [node]
    return node if isinstance(node, list) else None


def _set(resource: Resource, path: str, items: list[Any]) -> None:
    if not items and not _items(resource, path):
        return
    *steps, last = path.split("/")
    node = resource.setdefault("Properties", {})
    for step in steps:
        node = node.setdefault(step, {})
    node[last] = items


def _denies(item: Any) -> bool:
    return isinstance(item, dict) and item.get("Effect") == "Deny"


def _listed(statements: Any) -> list[Any]:
    return list(statements) if isinstance(statements, list) else [statements]
