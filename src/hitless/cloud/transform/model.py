"""Templates and their parts: the input of a release, what is live, logical ids, and the changes between two templates.

A change replaces a resource if it changes a create-only property of CloudFormation's own schemas. `create_only.json` is
a copy of cfn-lint's; `scripts/create-only` writes it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hitless.service.model import AlarmSettings, Hooks, Throttle
from hitless.service.strategy import Strategy

Template = dict[str, Any]
Resource = dict[str, Any]
T = TypeVar("T")

ALIAS = "live"
"""The one alias of every function. Its name and its function's are create-only: they never change."""

SHIELD_PREFIX = "hitlessShield"
STAGE_ID = "ApiGatewayStage"
API_ID = "ApiGatewayRestApi"
APPLICATION_ID = "CodeDeployApplication"
BUCKET_ID = "ServerlessDeploymentBucket"
BUCKET_IDS = (BUCKET_ID, "ServerlessDeploymentBucketPolicy")
"""osls' own bucket for packages, which no release has."""
RELEASE_OUTPUT, PREVIOUS_OUTPUT, FINGERPRINT_OUTPUT = "HitlessRelease", "HitlessPrevious", "HitlessFingerprint"
URL_OUTPUT = "ApiUrl"
ADOPTION_OUTPUT = "HitlessAdoption"
"""An output of a stack while it is being adopted."""

STAGE_VARIABLE_LETTERS = 64
"""API Gateway's limit on the name of a stage variable."""

RESOURCES_LIMIT = 500
"""CloudFormation's, for one stack."""


@dataclass(frozen=True, slots=True)
class Code:
    """A function's artifact: the zip's SHA-256 in hex, and its key in the bucket."""

    sha256: str
    key: str
    unpacked_bytes: int = 0


STACK_TAGS = "hitless:stackTags"
"""The key of a template's metadata that holds the tags of serverless.yml for the stack."""


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How the API's stage logs, counts and traces. `log_format` None is hitless' own, `level` None no execution log."""

    traced: bool = True
    metrics: bool = True
    access_log: bool = True
    log_format: str | None = None
    level: str | None = None
    throttle: Throttle | None = None
    whole_requests: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseInput:
    """A release before anything happens. `code` is by the function's name in serverless.yml."""

    service: str
    stage: str
    code: Mapping[str, Code]
    function_names: Mapping[str, str]
    """Lambda's name of a function → its name in serverless.yml."""
    bucket: str
    strategy: Strategy
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    number: int = 1
    previous: int | None = None
    commit: str | None = None
    subnets: tuple[str, ...] = ()
    security_group: str = ""
    domain: str = ""
    base_path: str = ""
    """`/orders`, or "" for the root of the domain."""
    permissions_boundary: str = ""
    alarm_topic: str = ""
    log_retention_days: int = 30
    hooks: Hooks = field(default_factory=Hooks)
    layer: Code | None = None
    """The wrapper's; without it no handler is wrapped."""
    shield: bool = True
    scaled: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Function → the maximum of environments, and the target use in percent."""
    api: ApiSettings = field(default_factory=ApiSettings)
    traced: bool = True
    """Whether functions are traced unless they say otherwise."""
    stack_tags: Mapping[str, str] = field(default_factory=dict)
    idempotent: tuple[str, ...] = ()
    """Routes that may run twice, as `PUT /items/{id}`."""

    @property
    def asked(self) -> frozenset[str]:
        """The hooks, by their names in serverless.yml, that CodeDeploy calls before or after a shift."""
        return frozenset(name for name in (self.hooks.pre_traffic, self.hooks.post_traffic) if name)


@dataclass(frozen=True, slots=True)
class LiveState:
    """What is live, by logical id. `aliases` → the version of each, `versions` → the number of each."""

    template: Template = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)

    @property
    def resources(self) -> dict[str, Resource]:
        return dict(self.template.get("Resources", {}))

    def output(self, name: str) -> str | None:
        """A literal output of the stack's template; None if there is none."""
        value = self.template.get("Outputs", {}).get(name, {}).get("Value")
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class FunctionIds:
    """Logical ids of one function's resources. `base` is osls' own: `Zones` of `ZonesLambdaFunction`."""

    base: str

    @property
    def function(self) -> str:
        return f"{self.base}LambdaFunction"

    @property
    def alias(self) -> str:
        return f"{self.base}AliasLive"

    @property
    def held(self) -> str:
        """The second alias, for routes that a release takes from the function."""
        return f"{self.base}AliasHeld"

    @property
    def role(self) -> str:
        return f"{self.base}Role"

    @property
    def group(self) -> str:
        return f"{self.base}DeploymentGroup"

    @property
    def shield_variable(self) -> str:
        """The stage variable that holds the live version's number while a shift is under way."""
        named = f"{SHIELD_PREFIX}{self.base}"
        return named if len(named) <= STAGE_VARIABLE_LETTERS else f"{SHIELD_PREFIX}{short_hash(self.base)}"

    def version(self, digest: str) -> str:
        return f"{self.base}Version{digest}"

    def alarm(self, digest: str, kind: str = "") -> str:
        return f"{self.base}{kind}Alarm{digest}"


def short_hash(what: object) -> str:
    """16 hexadecimal digits, equal for equal content, whatever the order of keys."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def of_type(resources: Mapping[str, Resource], kind: str) -> dict[str, Resource]:
    return {name: resource for name, resource in resources.items() if resource["Type"] == kind}


def copied(piece: T) -> T:
    """A copy of a piece of a template that shares nothing with it; `copy.deepcopy` takes fifteen times as long."""
    made: T = msgspec.to_builtins(piece)
    return made


def rewritten(node: Any, change: Callable[[Any], Any]) -> Any:
    """A piece of a template in which `change` has replaced nodes; it returns every other node as it is.

    Outer nodes come first. A replacement is not searched again.
    """
    if (changed := change(node)) is not node:
        return changed
    match node:
        case dict():
            return {key: rewritten(value, change) for key, value in node.items()}
        case list():
            return [rewritten(value, change) for value in node]
        case _:
            return node


def depends_on(node: Mapping[str, Any]) -> list[str]:
    """The names under `DependsOn`. A property of that name may hold other things, for example in a task of ECS."""
    value = node.get("DependsOn", [])
    return [one for one in ([value] if isinstance(value, str) else value) if isinstance(one, str)]


def references(node: object) -> list[str]:
    """Every logical id that a piece of a template names: Ref, GetAtt, Sub's `${Id}` and DependsOn."""
    found: list[str] = []
    ahead = [node]  # a loop, because a release asks about thousands of pieces
    while ahead:
        piece = ahead.pop()
        if isinstance(piece, list):
            ahead += reversed(piece)
        if not isinstance(piece, dict):
            continue
        if len(piece) == 1 and (target := piece.get("Ref") or piece.get("Fn::GetAtt")):
            name = target[0] if isinstance(target, list) else target
            if isinstance(name, str):
                found.append(name.split(".", 1)[0])
                continue
        if text := piece.get("Fn::Sub"):
            parts = (text if isinstance(text, str) else text[0]).split("${")[1:]
            found += (part.split("}", 1)[0].split(".", 1)[0] for part in parts)
        if "DependsOn" in piece:
            found += depends_on(piece)
        ahead += reversed(piece.values())
    return found


_FILE = Path(__file__).with_name("create_only.json")


@functools.cache
def create_only() -> Mapping[str, frozenset[str]]:
    """Type → the properties whose change makes CloudFormation replace the resource: `A`, or `A/B` for one within A."""
    return {kind: frozenset(names) for kind, names in json.loads(_FILE.read_text("utf-8")).items()}


def replacing(old: Resource, new: Resource) -> list[str]:
    """The properties whose change makes the update replace the resource; `Type` if its type changes."""
    if old["Type"] != new["Type"]:
        return ["Type"]
    before, after = old.get("Properties", {}), new.get("Properties", {})
    return sorted(
        name
        for name in create_only().get(old["Type"], ())
        if _at(before, name.split("/")) != _at(after, name.split("/"))
    )


@dataclass(frozen=True, slots=True)
class TemplateChange:
    """One resource that an update adds, changes or removes, as a dry run shows it."""

    action: str
    resource: str
    type: str
    replaces: bool = False
    properties: tuple[str, ...] = ()


def changes(before: Template, after: Template) -> list[TemplateChange]:
    """What an update from one template to the other changes, by resource."""
    old, new = before.get("Resources", {}), after["Resources"]
    found = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            found.append(TemplateChange("add", name, new[name]["Type"]))
        elif name not in new:
            found.append(TemplateChange("remove", name, old[name]["Type"]))
        elif differing := _differing(old[name], new[name]):
            replaces = bool(replacing(old[name], new[name]))
            found.append(TemplateChange("change", name, new[name]["Type"], replaces, differing))
    return found


def _differing(old: Resource, new: Resource) -> tuple[str, ...]:
    if old["Type"] != new["Type"]:
        return ("Type",)
    before, after = old.get("Properties", {}), new.get("Properties", {})
    return tuple(sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key)))


def _at(node: Any, path: list[str]) -> Any:
    """The value at a path; for a list (`*`), the values of all items."""
    if not path or node is None:
        return node
    if path[0] == "*":
        return [_at(item, path[1:]) for item in node] if isinstance(node, list) else node
    return _at(node.get(path[0]), path[1:]) if isinstance(node, dict) else node
