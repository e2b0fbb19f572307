"""The updates of a release, made by merging what it wants with what is live.

*Hold* keeps routes at the live version (`holding`).

*Clear* removes resources of the API's draft whose place another resource will take.

*Expand* adds and widens: new versions, alarms, permissions, roles. Aliases stay at their literal versions, Deployment
and Stage stay as they are, nothing that serves is removed. Only the API's draft becomes the new one.

*Contract* records the end of the shift: aliases at their new literal versions, the Stage at the new Deployment.
Resources that the release no longer wants are marked, and are removed in the contract step of the next release.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace

from hitless.cloud.transform import api
from hitless.cloud.transform.desired import COMMIT_VARIABLE, functions_of
from hitless.cloud.transform.guard import ROLE_ID, against_live
from hitless.cloud.transform.model import (
    PREVIOUS_OUTPUT,
    RELEASE_OUTPUT,
    STAGE_ID,
    LiveState,
    Resource,
    Template,
    copied,
    depends_on,
    of_type,
    references,
)
from hitless.cloud.transform.widening import allowing, narrowed, widened

VERSION, ALIAS_TYPE, FUNCTION = "AWS::Lambda::Version", "AWS::Lambda::Alias", "AWS::Lambda::Function"
RETIRED = "hitless:retired"

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
    known = resources.keys() | parameters_of(wanted, live.template)
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
                resources[name] = copied(resource)
        elif RETIRED not in resource.get("Metadata", {}) and resource["Type"] not in TRIGGERS:
            retired = allowing(resource)
            if retired is None:
                continue
            retired.setdefault("Metadata", {})[RETIRED] = wanted["Outputs"]["HitlessRelease"]["Value"]
            resources[name] = retired
    _drop_dangling(resources, parameters_of(wanted, live.template))
    return _template(wanted, resources, wanted["Outputs"], live.template)


def clear(expanded: Template, live: LiveState, also: Collection[str] = ()) -> Template | None:
    """The update before expand that empties places of the API's draft, for example of a renamed path parameter, and
    removes the resources of the draft that `also` names. None if nothing is removed.

    CloudFormation would add the new resource before it deletes the old one.
    """
    gone = api.blocking_resources(live.resources, expanded["Resources"]) | set(also)
    if not gone:
        return None
    template = copied(live.template)
    resources = template["Resources"]
    while gone:
        for name in gone:
            resources.pop(name, None)
        gone = {
            name
            for name, one in resources.items()
            if one["Type"] in api.DRAFT and set(references(one)) & missing(resources, parameters_of(live.template))
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
    resources: dict[str, Resource] = copied(wanted["Resources"])
    now = live.resources
    functions = functions_of(wanted)
    at = {name: live.aliases[ids.alias] for ids, name in functions.items() if ids.alias in live.aliases}
    against_live(resources, at)
    for ids in functions:
        version = resources[ids.alias]["Properties"]["FunctionVersion"]["Fn::GetAtt"][0]
        if version in now and ids.function in now:
            resources[version] = copied(now[version])
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
    made = copied(alias)
    if version is not None:
        made["Properties"]["FunctionVersion"] = version
    return made


def _wanted_again(resource: Resource) -> Resource:
    """The resource without the mark of a retired one."""
    kept = copied(resource)
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
        and set(references({**one, "DependsOn": []})) & missing(resources, parameters)
    ]:
        for name in dangling:
            del resources[name]


def missing(resources: Mapping[str, Resource], parameters: Collection[str]) -> set[str]:
    named = {name for one in resources.values() for name in references(one)}
    return {name for name in named - resources.keys() - set(parameters) if not name.startswith("AWS::")}


def parameters_of(*templates: Template) -> set[str]:
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


def state_after(live: LiveState, update: Template | None) -> LiveState:
    """What is live after that update: the same versions at the same aliases."""
    if update is None:
        return live
    at = {name: one["Properties"]["FunctionVersion"] for name, one in of_type(update["Resources"], ALIAS_TYPE).items()}
    return replace(live, template=update, aliases={**live.aliases, **at})


def numbered(template: Template, number: int, previous: int | None) -> Template:
    """The release's template with its own number and the number of the release that it follows."""
    made = copied(template)
    made["Outputs"][RELEASE_OUTPUT]["Value"] = str(number)
    made["Outputs"].pop(PREVIOUS_OUTPUT, None)
    if previous is not None and previous != number:
        made["Outputs"][PREVIOUS_OUTPUT] = {"Value": str(previous)}
    return made
