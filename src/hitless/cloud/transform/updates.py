"""The updates of a release, made by merging what it wants with what is live.

*Hold* keeps routes that the release takes from a function, or whose settings it changes, at the live version. An alias
moves all of a function's routes at once, and the Stage moves later: such a route would reach a version that does not
know it, or that relies on the new settings. So these routes get a second alias (`held`), which stays at the live
version until the API moves.

*Clear* removes resources of the API's draft whose place another resource will take.

*Expand* adds and widens: new versions, alarms, permissions, roles. Aliases stay at their literal versions, Deployment
and Stage stay as they are, nothing that serves is removed. Only the API's draft becomes the new one.

*Contract* records the end of the shift: aliases at their new literal versions, the Stage at the new Deployment.
Resources that the release no longer wants are marked, and are removed in the contract step of the next release.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from hitless.cloud.transform import api
from hitless.cloud.transform.desired import COMMIT_VARIABLE, functions_of, version_ids
from hitless.cloud.transform.guard import ROLE_ID, against_live
from hitless.cloud.transform.model import (
    PREVIOUS_OUTPUT,
    RELEASE_OUTPUT,
    STAGE_ID,
    FunctionIds,
    LiveState,
    Resource,
    Template,
    depends_on,
    of_type,
    references,
    rewritten,
)
from hitless.cloud.transform.widening import allowing, narrowed, widened

VERSION, ALIAS_TYPE, FUNCTION = "AWS::Lambda::Version", "AWS::Lambda::Alias", "AWS::Lambda::Function"
RETIRED = "hitless:retired"
HELD = "held"
"""The second alias of a function, which keeps routes that a release takes from it at the live version."""

_SECTIONS = ("Conditions", "Mappings", "Parameters")
TRIGGERS = frozenset(
    {
        "AWS::Events::Rule",
        "AWS::IoT::TopicRule",
        "AWS::Lambda::EventSourceMapping",
        "AWS::Logs::SubscriptionFilter",
        "AWS::SNS::Subscription",
        "AWS::Scheduler::Schedule",
    }
)
"""Resources that call functions by themselves. No client waits for them, so the release that does not want them removes
them.
"""

PERMISSION = "AWS::Lambda::Permission"
GUARDED = (ALIAS_TYPE, PERMISSION)
"""Types that the stack policy protects from deletion and replacement."""

POLICY = {
    "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "Update:*", "Resource": "*"},
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["Update:Delete", "Update:Replace"],
            "Resource": "*",
            "Condition": {"StringEquals": {"ResourceType": list(GUARDED)}},
        },
    ]
}
LIFTED_POLICY = {"Statement": [POLICY["Statement"][0]]}


def expand(wanted: Template, live: LiveState) -> Template:
    """The update that adds the release's versions beside the live ones."""
    resources: dict[str, Resource] = {}
    now = live.resources
    late = _served(wanted["Resources"]) | _triggers(wanted["Resources"])
    for name, resource in _settled(wanted, live).items():
        if name in late:
            if name in now:
                resources[name] = _wanted_again(now[name])
        elif name in now and resource["Type"] == ALIAS_TYPE:
            resources[name] = pinned(resource, live.aliases.get(name))
        elif name in now and name != ROLE_ID:
            if (wide := widened(now[name], resource)) is not None:
                resources[name] = wide
        elif (made := allowing(resource)) is not None:
            resources[name] = made
    for name, resource in now.items():
        if name in wanted["Resources"] or resource["Type"] in api.DRAFT:
            continue
        if (kept := allowing(resource)) is not None:
            resources[name] = pinned(kept, live.aliases.get(name)) if resource["Type"] == ALIAS_TYPE else kept
    outputs = live.template.get("Outputs", {})
    known = resources.keys() | _parameters(wanted, live.template)
    return _template(
        wanted, resources, {name: value for name, value in outputs.items() if _holds(value, known)}, live.template
    )


def contract(wanted: Template, live: LiveState, versions: Mapping[str, str]) -> Template:
    """The last update. `versions`: alias (logical id) → the literal version at which it is after the shift.

    `live` is what was live before the release. An alias that is not in `versions` follows its Version resource.
    """
    now = live.resources
    resources = _settled(wanted, live)
    for name, resource in resources.items():
        if resource["Type"] == ALIAS_TYPE:
            resources[name] = pinned(resource, versions.get(name))
        elif name in now and name != ROLE_ID:
            resources[name] = narrowed(now[name], resource)
    for name, resource in now.items():
        if name in resources or resource["Type"] in api.DRAFT:
            continue
        if resource["Type"] == VERSION:
            function = resource["Properties"]["FunctionName"].get("Ref")
            leaves = function not in resources and RETIRED in now.get(function, {}).get("Metadata", {})
            if not leaves and _is_recent(name, resource, live):
                resources[name] = copy.deepcopy(resource)
        elif RETIRED not in resource.get("Metadata", {}) and resource["Type"] not in TRIGGERS:
            retired = allowing(resource)
            if retired is None:
                continue
            retired.setdefault("Metadata", {})[RETIRED] = wanted["Outputs"]["HitlessRelease"]["Value"]
            resources[name] = retired
    _drop_dangling(resources, _parameters(wanted, live.template))
    return _template(wanted, resources, wanted["Outputs"], live.template)


def clear(expanded: Template, live: LiveState, also: Collection[str] = ()) -> Template | None:
    """The update before expand that empties places of the API's draft, for example of a renamed path parameter, and
    removes the resources of the draft that `also` names. None if nothing is removed.

    CloudFormation would add the new resource before it deletes the old one.
    """
    gone = api.blocking_resources(live.resources, expanded["Resources"]) | set(also)
    if not gone:
        return None
    template = copy.deepcopy(live.template)
    resources = template["Resources"]
    while gone:
        for name in gone:
            resources.pop(name, None)
        gone = {
            name
            for name, one in resources.items()
            if one["Type"] in api.DRAFT and set(references(one)) & _missing(resources, _parameters(live.template))
        }
    for name, resource in list(resources.items()):
        if resource["Type"] == ALIAS_TYPE:
            resources[name] = pinned(resource, live.aliases.get(name))
    return clean_template(template)


def removes_guarded(before: Template, after: Template) -> bool:
    """Whether the update removes an alias or a permission, for which the stack policy must be lifted."""
    gone = before.get("Resources", {}).keys() - after["Resources"].keys()
    return any(before["Resources"][name]["Type"] in GUARDED for name in gone)


def _settled(wanted: Template, live: LiveState) -> dict[str, Resource]:
    """The wanted resources. A function that publishes nothing new keeps the commit of its version."""
    resources: dict[str, Resource] = copy.deepcopy(wanted["Resources"])
    now = live.resources
    functions = functions_of(wanted)
    at = {name: live.aliases[ids.alias] for ids, name in functions.items() if ids.alias in live.aliases}
    against_live(resources, at)
    for ids in functions:
        version = resources[ids.alias]["Properties"]["FunctionVersion"]["Fn::GetAtt"][0]
        if version in now and ids.function in now:
            resources[version] = copy.deepcopy(now[version])
            mine = resources[ids.function]["Properties"].get("Environment", {}).get("Variables", {})
            theirs = now[ids.function]["Properties"].get("Environment", {}).get("Variables", {})
            mine.pop(COMMIT_VARIABLE, None)
            if COMMIT_VARIABLE in theirs:
                mine[COMMIT_VARIABLE] = theirs[COMMIT_VARIABLE]
    return resources


def _served(resources: Mapping[str, Resource]) -> set[str]:
    """The Deployment, the Stage and everything that depends on them: they change in the contract step."""
    late = {name for name, one in resources.items() if one["Type"] == api.DEPLOYMENT} | {STAGE_ID} & resources.keys()
    while True:
        more = {name for name, one in resources.items() if name not in late and late & set(references(one))}
        if not more:
            return late
        late |= more


def _triggers(resources: Mapping[str, Resource]) -> set[str]:
    """Triggers of functions and their permissions: like routes, they are added once the new code is live."""
    found = {name for name, one in resources.items() if one["Type"] in TRIGGERS}
    by = {name: set(references(one)) & found for name, one in resources.items() if name not in found}
    needed = {name for user, used in by.items() if resources[user]["Type"] != PERMISSION for name in used}
    late = found - needed
    return late | {user for user, used in by.items() if used & late}


def pinned(alias: Resource, version: str | None) -> Resource:
    """The alias at that literal version; unchanged if there is none."""
    made = copy.deepcopy(alias)
    if version is not None:
        made["Properties"]["FunctionVersion"] = version
    return made


def _wanted_again(resource: Resource) -> Resource:
    """The resource without the mark of a retired one."""
    kept = copy.deepcopy(resource)
    kept.get("Metadata", {}).pop(RETIRED, None)
    if not kept.get("Metadata", True):
        del kept["Metadata"]
    return kept


def _is_recent(name: str, version: Resource, live: LiveState) -> bool:
    """Whether a Version that is no longer wanted stays: the live release's, and any published after it.

    Lambda refuses to publish the bytes of its newest version again. While that version is in the stack, a release that
    returns to these bytes finds it there. A version that leaves the stack stays in Lambda.
    """
    function = version["Properties"]["FunctionName"].get("Ref")
    at = next(
        (
            int(live.aliases[alias])
            for alias, one in of_type(live.resources, ALIAS_TYPE).items()
            if one["Properties"]["FunctionName"] == {"Ref": function} and live.aliases.get(alias, "").isdecimal()
        ),
        0,
    )
    return live.versions.get(name, 0) >= at


def _drop_dangling(resources: dict[str, Resource], parameters: set[str]) -> None:
    """Remove retired resources that name a missing one."""
    while dangling := [
        name
        for name, one in resources.items()
        if RETIRED in one.get("Metadata", {})
        and set(references({**one, "DependsOn": []})) & _missing(resources, parameters)
    ]:
        for name in dangling:
            del resources[name]


def _missing(resources: Mapping[str, Resource], parameters: Collection[str]) -> set[str]:
    named = {name for one in resources.values() for name in references(one)}
    return {name for name in named - resources.keys() - set(parameters) if not name.startswith("AWS::")}


def _parameters(*templates: Template) -> set[str]:
    return {name for template in templates for name in template.get("Parameters", {})}


def _holds(output: object, known: Collection[str]) -> bool:
    return all(name in known or name.startswith("AWS::") for name in references(output))


def clean_template(template: Template) -> Template:
    """The template without dependencies on missing resources."""
    _template(template, template["Resources"], {}, {})
    return template


def _template(
    wanted: Template, resources: dict[str, Resource], outputs: Mapping[str, object], live: Template
) -> Template:
    """The whole template, without dependencies on missing resources.

    A resource that stays for one more release keeps the conditions, parameters and mappings of its own template.
    """
    for resource in resources.values():
        kept = [name for name in depends_on(resource) if name in resources]
        resource.pop("DependsOn", None)
        if kept:
            resource["DependsOn"] = kept
    made = {key: value for key, value in wanted.items() if key not in ("Resources", "Outputs")}
    named = json.dumps(resources)
    theirs = {key: {n: one for n, one in live.get(key, {}).items() if n not in made.get(key, {})} for key in _SECTIONS}
    if any(f'"{name}"' in named for section in theirs.values() for name in section):
        made |= {key: {**made.get(key, {}), **section} for key, section in theirs.items() if section}
    made["Resources"] = dict(sorted(resources.items()))
    if outputs:
        made["Outputs"] = dict(outputs)
    return made


def with_draft_of(live: LiveState, recorded: Template) -> LiveState:
    """The live state with the API's draft that `recorded`, the live release's template, wants: clients are served that.
    After a release that failed, the stack has that release's draft.
    """
    theirs = api.draft_of(recorded.get("Resources", {}))
    mine = api.draft_of(_wanted_by_live(live.resources))
    if not theirs or STAGE_ID not in live.resources or mine == theirs:
        return live
    template = copy.deepcopy(live.template)
    resources: dict[str, Resource] = template["Resources"]
    for name in mine.keys() - theirs.keys():
        del resources[name]
    resources |= copy.deepcopy({name: recorded["Resources"][name] for name in theirs})
    while dangling := [
        name
        for name, one in resources.items()
        if name not in recorded["Resources"]
        and set(references({**one, "DependsOn": []})) & _missing(resources, _parameters(live.template))
    ]:
        for name in dangling:
            del resources[name]
    return replace(live, template=clean_template(template))


def hold(live: LiveState, losing: Mapping[FunctionIds, Mapping[str, str]]) -> Template | None:
    """The update before all others, which shows the live API with the `held_routes` at the alias `held`. None if there
    are none.
    """
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
    stage["DependsOn"] = [*(one for one in depends_on(stage) if one not in permissions), *permissions]
    return clean_template(template)


def state_after(live: LiveState, update: Template | None) -> LiveState:
    """What is live after that update: the same versions at the same aliases."""
    if update is None:
        return live
    at = {name: one["Properties"]["FunctionVersion"] for name, one in of_type(update["Resources"], ALIAS_TYPE).items()}
    return replace(live, template=update, aliases={**live.aliases, **at})


def is_held_already(live: LiveState, update: Template, before: LiveState) -> bool:
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


def numbered(template: Template, number: int, previous: int | None) -> Template:
    """The release's template with its own number and the number of the release that it follows."""
    made = copy.deepcopy(template)
    made["Outputs"][RELEASE_OUTPUT]["Value"] = str(number)
    made["Outputs"].pop(PREVIOUS_OUTPUT, None)
    if previous is not None and previous != number:
        made["Outputs"][PREVIOUS_OUTPUT] = {"Value": str(previous)}
    return made
