"""Routes that a release takes from a function, kept with the version that is live until the API moves, or goes.

An alias takes all of a function's routes to the new version at once, the Stage shows the new routes only after that. In
between a route that is taken out, moves to another function, or has another path parameter would reach a version
that knows it no more. So before anything else the live API is shown anew, with just these routes at a second alias of
the function (`held`), which stays at the live version whatever CodeDeploy does to the first. It goes with the release
after, as all that a release no longer wants.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hitless.cloud.transform import api
from hitless.cloud.transform.desired import functions_of, version_ids
from hitless.cloud.transform.model import STAGE_ID, FunctionIds, LiveState, Resource, Template, of_type, rewritten
from hitless.cloud.transform.steps import ALIAS_TYPE, RETIRED, clean_template, pinned

HELD = "held"
PERMISSION = "AWS::Lambda::Permission"


def hold(wanted: Template, live: LiveState) -> Template | None:
    """The update that comes before all others. None where no route is taken from a function whose version changes, or
    where the live API cannot be shown anew: its draft is not what is served, as after a release that failed.
    """
    losing = held_routes(wanted, live)
    if not losing:
        return None
    template = copy.deepcopy(live.template)
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
                allowed = {**copy.deepcopy(one["Properties"]), "FunctionName": {"Ref": ids.held}}
                resources[f"{name}{HELD.title()}"] = {"Type": PERMISSION, "Properties": allowed}
                permissions.append(f"{name}{HELD.title()}")
        for method in methods.values():
            resources[method]["Properties"] = _at(resources[method]["Properties"], ids.alias, ids.held)
    deployment, shows = api.deployment_of(_wanted_by_live(resources))
    resources[deployment] = shows
    stage = resources[STAGE_ID]
    stage["Properties"]["DeploymentId"] = {"Ref": deployment}
    stage["DependsOn"] = [*api.depends_on(stage), *permissions]
    return clean_template(template)


def held(live: LiveState, update: Template | None) -> LiveState:
    """What is live once that update is done: the same versions at the same aliases."""
    if update is None:
        return live
    at = {name: one["Properties"]["FunctionVersion"] for name, one in of_type(update["Resources"], ALIAS_TYPE).items()}
    return replace(live, template=update, aliases={**live.aliases, **at})


def held_routes(wanted: Template, live: LiveState) -> dict[FunctionIds, dict[str, str]]:
    """Function → the routes that are held, each with its method's logical id."""
    if STAGE_ID not in live.resources or not _shows_its_draft(live.resources):
        return {}
    found: dict[FunctionIds, dict[str, str]] = {}
    before, after = api.routes(live.resources), api.routes(wanted["Resources"])
    shifting = {ids.alias: ids for ids in shifted(wanted, live)}
    for route, (method, alias) in before.items():
        if alias in shifting and not _still_answers(route, alias, after):
            found.setdefault(shifting[alias], {})[route] = method
    return found


def shifted(wanted: Template, live: LiveState) -> list[FunctionIds]:
    """The functions of both releases that get another version."""
    versions, at = version_ids(wanted), live.aliases
    return [
        ids
        for ids in functions_of(live.template)
        if ids in versions and ids.alias in at and str(live.versions.get(versions[ids])) != at[ids.alias]
    ]


def _still_answers(route: str, alias: str, after: Mapping[str, tuple[str, str | None]]) -> bool:
    own = after.get(route) or after.get(f"ANY {route.partition(' ')[2]}")
    return own is not None and own[1] == alias


def _shows_its_draft(now: Mapping[str, Resource]) -> bool:
    deployment, _ = api.deployment_of(_wanted_by_live(now))
    return bool(now[STAGE_ID]["Properties"].get("DeploymentId") == {"Ref": deployment})


def _wanted_by_live(now: Mapping[str, Resource]) -> dict[str, Resource]:
    """Without what is there for one release more."""
    return {name: one for name, one in now.items() if RETIRED not in one.get("Metadata", {})}


def _at(properties: Any, alias: str, held: str) -> Any:
    return rewritten(properties, lambda node: {"Ref": held} if node == {"Ref": alias} else node)
