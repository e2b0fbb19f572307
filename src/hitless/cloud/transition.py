"""Plans a release's changes to the stack and their order, before anything is changed. Pure.

`plan` compares what is live with what is wanted. Its `Transition` has the refused changes, the notes on changes that
users may notice, and the updates of the stack. Deploy, rollback, adopt and the dry run call it; `release.executor`
carries the updates out. docs/aws-releases.md lists the orders.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hitless.cloud.transform import api
from hitless.cloud.transform.desired import version_ids
from hitless.cloud.transform.holding import held_routes, hold_updates, shifted, shows_its_draft, with_draft_of
from hitless.cloud.transform.model import (
    STAGE_ID,
    FunctionIds,
    LiveState,
    Resource,
    Template,
    copied,
    of_type,
    rewritten,
)
from hitless.cloud.transform.refusals import Refusal, refusals_of, shown_name
from hitless.cloud.transform.updates import FUNCTION, RETIRED, TRIGGERS, clear, contract, expand, state_after
from hitless.cloud.transform.widening import misses_something, one_index_each
from hitless.errors import HitlessError, ServiceFileError


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
    refusals = (*_unknown_api(served, recorded, held), *refusals_of(live, wanted, made.live.resources))
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
    made = copied(template)
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


def _two_updates(live: LiveState, wanted: Template) -> Iterator[str]:
    taken = api.blocking_resources(live.resources, wanted["Resources"])
    said = {shown_name(live.resources[name]) for name in taken}
    for one in sorted(said):
        yield f"{one} occupies the place of a new one: one more update removes it from the API's draft first"


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
