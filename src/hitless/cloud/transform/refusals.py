"""Changes that a release must not make, because requests would fail meanwhile: refusals, each with the way around."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hitless.cloud.transform import api
from hitless.cloud.transform.model import (
    RESOURCES_LIMIT,
    LiveState,
    Resource,
    Template,
    create_only,
    of_type,
    references,
    replacing,
)
from hitless.cloud.transform.updates import FUNCTION

_BESIDE_HINT = (
    "give the new one a logical id (and a name) of its own, ship both, and remove the old one with the release after"
)


_HINTS: Mapping[tuple[str, str], str] = {
    (FUNCTION, "FunctionName"): "rename the function's key under `functions` as well: the new one is then added beside "
    "the old one, which stays for one release more",
    ("AWS::IAM::Role", "Path"): "keep provider.iam.role.path; a new role for a function can be written in `resources` "
    "and named by the function's `role`",
    ("AWS::ApiGateway::Stage", "StageName"): "keep the stage's name; another stage is another stack",
}


_INDEX_FIXED = ("KeySchema", "Projection")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A change that would make requests or the update fail. `way` says how to make it safely."""

    what: str
    way: str


def refusals_of(live: LiveState, wanted: Template, before: Mapping[str, Resource]) -> Iterator[Refusal]:
    """The changes that are refused. `before`: the resources before the release's own updates."""
    now, new = live.resources, wanted["Resources"]
    for name in sorted(now.keys() & new.keys()):
        yield from _replaced(name, now[name], new[name])
        yield from _rebuilt_indexes(name, now[name], new[name])
    yield from _taken_names(now, new)
    yield from _moved_keys(now, new)
    yield from _flipped_conditions(live.template, wanted)
    most = len(new.keys() | {name for name, one in before.items() if one["Type"] not in api.DRAFT})
    if most > RESOURCES_LIMIT:
        yield Refusal(
            f"the stack would hold {most} resources while both releases exist, over CloudFormation's {RESOURCES_LIMIT}",
            "remove resources with one release, and add the new ones with the next",
        )


def _replaced(name: str, old: Resource, new: Resource) -> Iterator[Refusal]:
    kind = old["Type"]
    if kind in api.REPLACED_IN_DRAFT or not (by := replacing(old, new)):
        return
    properties = ", ".join(by)
    if by == ["Type"]:
        yield Refusal(f"{name} would become a {new['Type']}: it is a {kind}", _BESIDE_HINT)
        return
    said = f"function {old['Properties'].get('FunctionName')}" if kind == FUNCTION else f"{name} ({kind})"
    yield Refusal(
        f"{said} would be replaced, because {properties} cannot be changed in place: the live release still uses it",
        next((hint for one in by if (hint := _HINTS.get((kind, one)))), f"keep {properties}, or {_BESIDE_HINT}"),
    )


def _rebuilt_indexes(name: str, old: Resource, new: Resource) -> Iterator[Refusal]:
    if old["Type"] != "AWS::DynamoDB::Table":
        return
    before, after = (
        {one["IndexName"]: one for one in table.get("Properties", {}).get("GlobalSecondaryIndexes", [])}
        for table in (old, new)
    )
    for index in sorted(before.keys() & after.keys()):
        if any(before[index].get(key) != after[index].get(key) for key in _INDEX_FIXED):
            yield Refusal(
                f"index {index} of {name} would be built anew: the live release still uses it",
                "give the new index a name of its own; the old one is deleted one release after it is removed",
            )


def _taken_names(now: Mapping[str, Resource], new: Mapping[str, Resource]) -> Iterator[Refusal]:
    """CloudFormation creates the new resource first, and two cannot have one name."""
    held = {physical: name for name, one in now.items() if (physical := _physical(one))}
    for name, one in sorted(new.items()):
        physical = _physical(one)
        if physical is not None and (holder := held.get(physical, name)) != name and name not in now:
            said = physical.partition(" ")[2]
            yield Refusal(
                f"{name} would have the name {said}, which {holder} has in the live release",
                f"keep the logical id {holder} (a function's is its key under `functions`), or choose another name",
            )


def _physical(resource: Resource) -> str | None:
    """The type and the name that the template gives a resource; None if CloudFormation chooses the name."""
    kind = resource["Type"]
    if kind in api.REPLACED_IN_DRAFT:
        return None
    of_kind = f"{kind.rpartition('::')[2]}Name"
    names = [one for one in (of_kind, "Name") if one in create_only().get(kind, ())]
    if kind in ("AWS::Lambda::Alias", "AWS::ApiGateway::ApiKey", "AWS::Lambda::LayerVersion") or not names:
        return None
    value = resource.get("Properties", {}).get(names[0])
    if value is None:
        return None
    return f"{kind} {value if isinstance(value, str) else json.dumps(value, sort_keys=True)}"


def _moved_keys(now: Mapping[str, Resource], new: Mapping[str, Resource]) -> Iterator[Refusal]:
    """A key has one usage plan per stage: API Gateway adds it to a second plan only after it has left the first."""
    kind = "AWS::ApiGateway::UsagePlanKey"
    held = {json.dumps(one["Properties"].get("KeyId")): name for name, one in of_type(now, kind).items()}
    for name, one in sorted(of_type(new, kind).items()):
        key = json.dumps(one["Properties"].get("KeyId"))
        if name not in now and held.get(key) not in (None, name):
            api_key = new.get(one["Properties"]["KeyId"].get("Ref", ""), {}).get("Properties", {})
            yield Refusal(
                f"API key {api_key.get('Name', key)} would move to another usage plan: its clients would be refused "
                "in between",
                "create a new key in the other plan, give it to the clients, then remove the old one",
            )


def _flipped_conditions(live: Template, wanted: Template) -> Iterator[Refusal]:
    before, after = live.get("Conditions", {}), wanted.get("Conditions", {})
    used = json.dumps([live.get("Resources", {}), before])
    defaults = (one.get("Parameters", {}) for one in (live, wanted))
    old, new = ({name: one.get("Default") for name, one in parameters.items()} for parameters in defaults)
    asked = {name for name in references(before) if name in old and old[name] != new.get(name, old[name])}
    for name in sorted(before.keys() & after.keys()):
        if f'"{name}"' in used and (before[name] != after[name] or asked & set(references(before[name]))):
            yield Refusal(
                f"condition {name} changes: resources that the live release uses could be deleted at once",
                "give the new condition another name, or remove the condition from resources that must stay",
            )


def shown_name(resource: Resource) -> str:
    properties = resource["Properties"]
    part = properties.get("PathPart") or properties.get("HttpMethod") or properties.get("ResponseType")
    return f"{resource['Type'].rpartition('::')[2].lower()} {part}"
