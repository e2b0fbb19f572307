"""Plans a release's changes to the stack and their order, before anything is changed. Pure.

`plan` compares what is live with what is wanted. Its `Transition` has the refused changes, the notes on changes that
users may notice, and the updates of the stack. Deploy, rollback, adopt and the dry run call it; `release.executor`
carries the updates out. docs/aws-releases.md lists the orders.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hitless.cloud.transform import api
from hitless.cloud.transform.desired import version_ids
from hitless.cloud.transform.holding import held_routes, hold_updates, shifted, shows_its_draft, with_draft_of
from hitless.cloud.transform.model import (
    RESOURCES_LIMIT,
    STAGE_ID,
    FunctionIds,
    LiveState,
    Resource,
    Template,
    create_only,
    of_type,
    references,
    replacing,
    rewritten,
)
from hitless.cloud.transform.updates import FUNCTION, RETIRED, TRIGGERS, clear, contract, expand, state_after
from hitless.cloud.transform.widening import misses_something, one_index_each
from hitless.errors import HitlessError, ServiceFileError

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


def refuse(refusals: Sequence[Refusal], kind: type[HitlessError]) -> None:
    """Raise the error if a change is refused. Its message is the first refusal; its details list all."""
    if refusals:
        first, *others = refusals
        more = f" (and {len(others)} more)" if others else ""
        details = [{"what": one.what, "way": one.way} for one in refusals]
        raise kind(first.what + more, hint=first.way, details={"refused": details})


@dataclass(frozen=True, slots=True)
class Transition:
    """The steps from the live state to the wanted one.

    `restore`, `hold`, `clear` and `expand` are updates of the stack, None if one is not needed. `contract` makes the
    last update, for which the versions must be known.
    """

    standing: Template
    """The stack's template before any update."""
    live: LiveState
    """What is live when `clear` and `expand` begin."""
    wanted: Template
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    restore: Template | None = None
    """Removes from the API's draft, after a release that failed, what `hold` must not show."""
    hold: Template | None = None
    clear: Template | None = None
    expand: Template | None = None
    moves_routes: bool = False
    """Routes that get other settings move to their function's new version with the Stage, not by the strategy."""
    expands_late: bool = False
    """Traffic moves between `hold` and `clear`: a rollback to versions that miss nothing."""

    @property
    def updates(self) -> tuple[Template, ...]:
        """All updates but the last, in order."""
        return tuple(one for one in (self.restore, self.hold, self.clear, self.expand) if one is not None)

    @property
    def before_traffic(self) -> tuple[Template, ...]:
        """The updates before traffic moves, in order."""
        late = (self.clear, self.expand) if self.expands_late else ()
        return tuple(one for one in self.updates if one not in late)

    def contract(self, versions: Mapping[str, str]) -> Template:
        """The last update. `versions`: alias (logical id) → the version to which it points now."""
        return contract(self.wanted, self.live, versions)

    def check(self) -> None:
        """Raise ServiceFileError if a change is refused."""
        refuse(self.refusals, ServiceFileError)


def plan(
    live: LiveState, wanted: Template, *, recorded: Template | None = None, back_to: Mapping[str, str] | None = None
) -> Transition:
    """The transition from `live` to `wanted`, a desired template with its release's number.

    `recorded` is the template that the live release wanted: after a release that failed, the stack has that one's API.
    Traffic moves by the strategy, before the last update. A rollback moves it at once to `back_to`, alias (logical id)
    → version, as early as no request fails for it.
    """
    served = with_draft_of(live, recorded or {})
    held = held_routes(wanted, served, back_to)
    restore, before = hold_updates(live, served, held)
    after_hold = state_after(live, before)
    moved = replace(after_hold, aliases={**after_hold.aliases, **(back_to or {})})
    bare = wanted if back_to is None else without_publishing(wanted, live, back_to)
    after = api.routes(wanted["Resources"])
    moves_routes = any(after.get(route, ("", None))[1] == ids.alias for ids, routes in held.items() for route in routes)
    made = Transition(live.template, moved, bare, restore=restore, hold=before, moves_routes=moves_routes)
    first = back_to is None or misses_something(after_hold.resources, bare["Resources"])
    # the next Deployment must not show the later release's routes
    if first or _api(bare) != _api(after_hold.template):
        expanded = expand(bare, after_hold if first else moved)
        cleared = clear(expanded, after_hold if first else moved)
        made = replace(made, clear=cleared, expand=expanded, expands_late=not first)
    if not live.template:
        return made
    refusals = (*_unknown_api(served, recorded, held), *_refusals(live, wanted, made.live.resources))
    notes = (*_notes(live, wanted, served, held, shifts=back_to is None), *_index_updates(made))
    return replace(made, refusals=refusals, notes=notes)


def _unknown_api(
    served: LiveState, recorded: Template | None, held: Mapping[FunctionIds, Mapping[str, str]]
) -> Iterator[Refusal]:
    """After a release that failed, what clients are served is known from the live release's template alone."""
    if held and not recorded and not shows_its_draft(served.resources):
        yield Refusal(
            "routes cannot be kept at the live version: the stack has the API of a release that failed, and the live "
            "release's template is missing in the bucket",
            "deploy the live release's commit with --force, then this one",
        )


def without_publishing(template: Template, live: LiveState, versions: Mapping[str, str]) -> Template:
    """The template in which each Version that the stack does not hold is replaced by its literal number."""
    made = copy.deepcopy(template)
    numbers = {
        version: versions[ids.alias] for ids, version in version_ids(template).items() if version not in live.versions
    }

    def literal(node: Any) -> Any:
        match node:
            case {"Fn::GetAtt": [str(name), "Version"]} if name in numbers:
                return numbers[name]
            case _:
                return node

    for version in numbers:
        del made["Resources"][version]
    for resource in of_type(made["Resources"], "AWS::CloudWatch::Alarm").values():
        resource["Properties"] = rewritten(resource["Properties"], literal)
    return made


def _api(template: Template) -> dict[str, Resource]:
    return {name: one for name, one in template["Resources"].items() if one["Type"].startswith("AWS::ApiGateway::")}


def _refusals(live: LiveState, wanted: Template, before: Mapping[str, Resource]) -> Iterator[Refusal]:
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


def _notes(
    live: LiveState, wanted: Template, served: LiveState, held: Mapping[FunctionIds, Mapping[str, str]], *, shifts: bool
) -> Iterator[str]:
    """Sentences on changes that take effect late or need their own update. `shifts`: traffic moves by the strategy;
    `served`: with the API that clients are served.
    """
    now, new = live.resources, wanted["Resources"]
    yield from _two_updates(served if held else live, wanted)
    yield from _routes(served, wanted, held, shifts=shifts)
    yield from _authorizers(now, new)
    yield from _late(now, new, "the shift" if shifts else "traffic has gone back")
    if shifts:
        yield from _at_once(live, wanted)
    going = [name for name, one in now.items() if name not in new and RETIRED not in one.get("Metadata", {})]
    for name in sorted(going):
        match now[name]["Type"]:
            case "AWS::Lambda::Function":
                said = now[name]["Properties"].get("FunctionName", name)
                yield f"function {said} is removed with the release after this one"
            case "AWS::ApiGateway::ApiKey":
                said = now[name]["Properties"].get("Name", name)
                yield f"API key {said} is valid until the release after this one"
            case "AWS::ApiGateway::BasePathMapping":
                domain = now[name]["Properties"]["DomainName"]
                yield f"{domain} leads to the API until the release after this one"
            case "AWS::ApiGateway::Stage":
                yield "the whole API is removed with the release after this one; its URL does not come back"


def _index_updates(transition: Transition) -> Iterator[str]:
    """The note on updates that the order of `one_index_each` adds."""
    every = (transition.standing, *transition.updates, transition.contract({}))
    more = sum(len(one_index_each(before, after)) - 1 for before, after in itertools.pairwise(every))
    if more:
        yield (
            f"a table changes several indexes: DynamoDB changes one an update, so {more} more "
            f"update{'s are' if more > 1 else ' is'} made"
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


def _two_updates(live: LiveState, wanted: Template) -> Iterator[str]:
    taken = api.blocking_resources(live.resources, wanted["Resources"])
    said = {_shown(live.resources[name]) for name in taken}
    for one in sorted(said):
        yield f"{one} occupies the place of a new one: one more update removes it from the API's draft first"


def _shown(resource: Resource) -> str:
    properties = resource["Properties"]
    part = properties.get("PathPart") or properties.get("HttpMethod") or properties.get("ResponseType")
    return f"{resource['Type'].rpartition('::')[2].lower()} {part}"


def _routes(
    served: LiveState, wanted: Template, held: Mapping[FunctionIds, Mapping[str, str]], *, shifts: bool
) -> Iterator[str]:
    if STAGE_ID not in served.resources:
        return
    stays = STAGE_ID in wanted["Resources"]
    when = "once the new code is live" if shifts else "once the earlier code is live"
    when = when if stays else "with the API by the release after this one"
    before, after = api.routes(served.resources), api.routes(wanted["Resources"])
    stay = {route for routes in held.values() for route in routes}
    for route, (_, was) in sorted(before.items()):
        _, becomes = after.get(route, ("", None))
        if was is None or (was == becomes and route not in stay):
            continue
        does = "gets other settings" if was == becomes else f"moves to {becomes}" if becomes else "is removed"
        said = f"{route} {does} {when}"
        yield (
            f"{said}: until then the live version of {was} responds, which takes one more update"
            if route in stay
            else said
        )


def _at_once(live: LiveState, wanted: Template) -> Iterator[str]:
    """Lambda splits an alias's traffic only between versions with the same role and dead-letter target."""
    for ids in shifted(wanted, live):
        before, after = (one[ids.function]["Properties"] for one in (live.resources, wanted["Resources"]))
        differing = [name for name in ("Role", "DeadLetterConfig") if before.get(name) != after.get(name)]
        if differing:
            yield (
                f"{after['FunctionName']} gets another {differing[0]}: its traffic moves at once, after all other "
                "functions', and is watched for as long as the strategy bakes"
            )


def _authorizers(now: Mapping[str, Resource], new: Mapping[str, Resource]) -> Iterator[str]:
    kind = "AWS::ApiGateway::Authorizer"
    for name, one in sorted(of_type(now, kind).items()):
        if name in new and new[name].get("Properties") != one.get("Properties"):
            seconds = one["Properties"].get("AuthorizerResultTtlInSeconds", 300)
            said = one["Properties"].get("Name", name)
            yield f"authorizer {said} changes: its earlier responses stay in API Gateway's cache for {seconds} s"


def _late(now: Mapping[str, Resource], new: Mapping[str, Resource], moment: str) -> Iterator[str]:
    for name, one in sorted(of_type(now, FUNCTION).items()):
        before, after = (
            each.get("Properties", {}).get("ReservedConcurrentExecutions") for each in (one, new.get(name, {}))
        )
        if name in new and after is not None and (before is None or int(after) < int(before)):
            yield f"{name}: reservedConcurrency goes down to {after} after {moment}: until then both releases need it"
    for name in sorted(of_type(now, "AWS::IAM::Role").keys() & of_type(new, "AWS::IAM::Role").keys()):
        before, after = (each[name].get("Properties", {}).get("PermissionsBoundary") for each in (now, new))
        if before and after and before != after:
            yield f"{name} gets another boundary after {moment}: until then the old one limits both releases"
    for name in sorted(now.keys() & new.keys()):
        denied = [one for one in _denials(new[name]) if one not in _denials(now[name])]
        if denied:
            yield f"{name} denies more after {moment}, not before: the live release runs under it"
    for name in sorted(name for name, one in now.items() if one["Type"] in TRIGGERS and name not in new):
        yield f"{name} is removed after {moment}: until then it calls the function"


def _denials(node: Any) -> list[Any]:
    match node:
        case {"Effect": "Deny"}:
            return [node]
        case dict():
            return [one for value in node.values() for one in _denials(value)]
        case list():
            return [one for value in node for one in _denials(value)]
        case _:
            return []
