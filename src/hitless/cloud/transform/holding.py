"""Keeps routes at the live version until the API moves, while their function's other routes move by the strategy.

An alias moves all of a function's routes at once, and the Stage moves later. A route that a release takes from a
function, or whose settings it changes, would reach a version that does not know it, or that relies on the new settings.
So these routes get a second alias (`held`), which stays at the live version until the API moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hitless.cloud.transform import api
from hitless.cloud.transform.desired import functions_of, version_ids
from hitless.cloud.transform.model import (
    STAGE_ID,
    FunctionIds,
    LiveState,
    Resource,
    Template,
    copied,
    depends_on,
    of_type,
    references,
    rewritten,
)
from hitless.cloud.transform.updates import (
    ALIAS_TYPE,
    PERMISSION,
    RETIRED,
    clean_template,
    clear,
    missing,
    parameters_of,
    pinned,
)

HELD = "held"
"""The second alias of a function, which keeps routes that a release takes from it at the live version."""


def with_draft_of(live: LiveState, recorded: Template) -> LiveState:
    """The live state with the API's draft that `recorded`, the live release's template, wants: clients are served that.
    After a release that failed, the stack has that release's draft.
    """
    theirs = api.draft_of(recorded.get("Resources", {}))
    mine = api.draft_of(_wanted_by_live(live.resources))
    if not recorded or STAGE_ID not in live.resources or mine == theirs:
        return live
    template = copied(live.template)
    resources: dict[str, Resource] = template["Resources"]
    for name in mine.keys() - theirs.keys():
        del resources[name]
    resources |= copied({name: recorded["Resources"][name] for name in theirs})
    while dangling := [
        name
        for name, one in resources.items()
        if name not in recorded["Resources"]
        and set(references({**one, "DependsOn": []})) & missing(resources, parameters_of(live.template))
    ]:
        for name in dangling:
            del resources[name]
    return replace(live, template=clean_template(template))


def hold_updates(
    live: LiveState, served: LiveState, held: Mapping[FunctionIds, Mapping[str, str]]
) -> tuple[Template | None, Template | None]:
    """The updates that hold the routes, None if one is not needed: the first empties the draft of what the second must
    not show, because a Deployment shows what the same update removes.
    """
    update = _hold_update(served, held)
    if update is None or _is_held_already(live, update, served):
        return None, None
    draft = {name for name, one in live.resources.items() if one["Type"] in api.DRAFT}
    return clear(update, live, draft - update["Resources"].keys()), update


def _hold_update(live: LiveState, losing: Mapping[FunctionIds, Mapping[str, str]]) -> Template | None:
    """The update before all others, which shows the live API with the `held_routes` at the alias `held`. None if there
    are none.
    """
    if not losing:
        return None
    template = copied(live.template)
    resources: dict[str, Resource] = template["Resources"]
    for name, resource in list(resources.items()):
        if resource["Type"] == ALIAS_TYPE:
            resources[name] = pinned(resource, live.aliases.get(name))
    permissions: list[str] = []
    for ids, methods in losing.items():
        function = {"Ref": ids.function}
        properties = {"Name": HELD, "FunctionName": function, "FunctionVersion": live.aliases[ids.alias]}
        resources[ids.held] = {"Type": ALIAS_TYPE, "Properties": properties}
        for name, one in of_type(live.resources, PERMISSION).items():
            if one["Properties"]["FunctionName"] == {"Ref": ids.alias}:
                allowed = {**copied(one["Properties"]), "FunctionName": {"Ref": ids.held}}
                resources[f"{name}{HELD.title()}"] = {"Type": PERMISSION, "Properties": allowed}
                permissions.append(f"{name}{HELD.title()}")
        for method in methods.values():
            resources[method]["Properties"] = _at(resources[method]["Properties"], ids.alias, ids.held)
    deployment, shows = api.deployment_of(_wanted_by_live(resources))
    resources[deployment] = shows
    stage = resources[STAGE_ID]
    stage["Properties"]["DeploymentId"] = {"Ref": deployment}
    stage["DependsOn"] = [*(one for one in depends_on(stage) if one not in permissions), *permissions]
    return clean_template(template)


def _is_held_already(live: LiveState, update: Template, before: LiveState) -> bool:
    """Whether the Stage shows already what that hold, made from the state `before`, would show: a release that failed
    held the same routes.
    """
    changed = {name: one for name, one in update["Resources"].items() if before.resources.get(name) != one}
    return all(live.resources.get(name) == one for name, one in changed.items() if one["Type"] not in api.DRAFT)


def held_routes(
    wanted: Template, live: LiveState, back_to: Mapping[str, str] | None = None
) -> dict[FunctionIds, dict[str, str]]:
    """Function → the routes that are held, each with its method's logical id. `live` has the draft that is served."""
    if STAGE_ID not in live.resources:
        return {}
    found: dict[FunctionIds, dict[str, str]] = {}
    now, new = live.resources, wanted["Resources"]
    before, after = api.routes(now), api.routes(new)
    shifting = {ids.alias: ids for ids in shifted(wanted, live, back_to)}
    for route, (method, alias) in before.items():
        own = after.get(route) or after.get(f"ANY {route.partition(' ')[2]}")
        stays = own is not None and own[1] == alias and api.settings_of(method, now) == api.settings_of(own[0], new)
        if alias in shifting and not stays:
            found.setdefault(shifting[alias], {})[route] = method
    return found


def shifted(wanted: Template, live: LiveState, back_to: Mapping[str, str] | None = None) -> list[FunctionIds]:
    """The functions of both releases whose version changes; `back_to` as in a rollback's plan."""
    versions, at = version_ids(wanted), live.aliases
    to = back_to if back_to is not None else {ids.alias: str(live.versions.get(one)) for ids, one in versions.items()}
    return [
        ids
        for ids in functions_of(live.template)
        if ids.alias in at and to.get(ids.alias, at[ids.alias]) != at[ids.alias]
    ]


def shows_its_draft(now: Mapping[str, Resource]) -> bool:
    """Whether clients are served the API's draft as the stack has it."""
    deployment, _ = api.deployment_of(_wanted_by_live(now))
    return bool(now[STAGE_ID]["Properties"].get("DeploymentId") == {"Ref": deployment})


def _wanted_by_live(now: Mapping[str, Resource]) -> dict[str, Resource]:
    """The resources that the live release wants, without those that stay for one more release."""
    return {name: one for name, one in now.items() if RETIRED not in one.get("Metadata", {})}


def _at(properties: Any, alias: str, held: str) -> Any:
    return rewritten(properties, lambda node: {"Ref": held} if node == {"Ref": alias} else node)
