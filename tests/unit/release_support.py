"""A release of worldclock, made of a recorded `osls package` (fixtures/worldclock-state.json), and a stack in memory:
the results that CloudFormation, Lambda and CodeDeploy produce from the transform's templates.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hitless.aws.osls import Packaged, read
from hitless.cloud.transform.desired import desired, version_ids
from hitless.cloud.transform.model import Code, LiveState, ReleaseInput, Template, copied, of_type, references
from hitless.cloud.transform.updates import clear, contract, expand
from hitless.service.strategy import parse

STATE = Path(__file__).parent / "fixtures" / "worldclock-state.json"
NAMES = ("zones", "convert", "meetings", "meta")


@functools.cache
def packaged() -> Packaged:
    """Worldclock for stage prod, as osls 4.3 compiled it."""
    return read(STATE.read_text("utf-8"))


def with_provisioned(compiled: Template, base: str, number: int) -> Template:
    """The template as osls compiles it if that function has provisionedConcurrency."""
    function, alias = f"{base}LambdaFunction", f"{base}ProvConcLambdaAlias"
    arn = {"Fn::GetAtt": [function, "Arn"]}

    def calls_alias(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: calls_alias(value) for key, value in node.items()}
        if isinstance(node, list):
            at = node.index(arn) + 1 if arn in node and node.index(arn) > 0 else 0
            return [*node[:at], ":", "provisioned", *node[at:]] if at else [calls_alias(one) for one in node]
        return node

    template = copied(compiled)
    resources: dict[str, Any] = template["Resources"]
    for one in of_type(resources, "AWS::ApiGateway::Method").values():
        one["Properties"] = calls_alias(one["Properties"])
    for one in of_type(resources, "AWS::Lambda::Permission").values():
        if one["Properties"]["FunctionName"] == arn:
            one["Properties"]["FunctionName"] = {"Fn::Join": [":", [arn, "provisioned"]]}
            one["DependsOn"] = alias
    (version,) = (
        name
        for name, one in of_type(resources, "AWS::Lambda::Version").items()
        if one["Properties"]["FunctionName"] == {"Ref": function}
    )
    resources[alias] = {
        "Type": "AWS::Lambda::Alias",
        "Properties": {
            "FunctionName": {"Ref": function},
            "FunctionVersion": {"Fn::GetAtt": [version, "Version"]},
            "Name": "provisioned",
            "ProvisionedConcurrencyConfig": {"ProvisionedConcurrentExecutions": number},
        },
        "DependsOn": function,
    }
    return template


def sha256(letter: str) -> str:
    return letter * 64


def release(number: int = 1, code: dict[str, str] | None = None, **changed: Any) -> ReleaseInput:
    """Release `number`; `code` gives functions bytes other than "a"."""
    digests = {name: sha256((code or {}).get(name, "a")) for name in NAMES}
    given: dict[str, Any] = {
        "service": "worldclock",
        "stage": "prod",
        "code": {name: Code(digest, f"artifacts/{digest}.zip", 4000) for name, digest in digests.items()},
        "function_names": packaged().function_names,
        "bucket": "artifact-bucket",
        "strategy": parse("Canary10Percent5Minutes"),
        "number": number,
        "previous": number - 1 or None,
        "commit": f"commit-{number}",
        "subnets": ("subnet-0000000000000000a", "subnet-0000000000000000b"),
        "security_group": "sg-0000000000000000a",
    }
    return ReleaseInput(**{**given, **changed})


@dataclass
class RememberedStack:
    """A stack in memory, by its templates. `log` has each update, `published` each version by number."""

    live: LiveState = field(default_factory=LiveState)
    log: list[Template] = field(default_factory=list)
    published: dict[str, list[str]] = field(default_factory=dict)

    def update(self, template: Template) -> None:
        """CloudFormation: publish new versions, refuse a reference to nothing."""
        resources = template["Resources"]
        named = {name for one in resources.values() for name in references(one) if not name.startswith("AWS::")}
        assert named <= resources.keys(), f"unresolved: {named - resources.keys()}"
        versions = dict(self.live.versions)
        for name, version in of_type(resources, "AWS::Lambda::Version").items():
            if name not in versions:
                function = version["Properties"]["FunctionName"]["Ref"]
                properties = resources[function]["Properties"]
                content = f"{properties['Code']['S3Key']} {properties['MemorySize']}"
                history = self.published.setdefault(function, [])
                assert not history or history[-1] != content, "A version for this Lambda function exists"
                history.append(content)
                versions[name] = len(history)
        aliases = {name: self._at(one, versions) for name, one in of_type(resources, "AWS::Lambda::Alias").items()}
        held = {name: number for name, number in versions.items() if name in resources}
        self.live = LiveState(copied(template), aliases, held)
        self.published = {name: history for name, history in self.published.items() if name in resources}
        self.log.append(template)

    def _at(self, alias: dict[str, Any], versions: dict[str, int]) -> str:
        version = alias["Properties"]["FunctionVersion"]
        return version if isinstance(version, str) else str(versions[version["Fn::GetAtt"][0]])

    def point(self, aliases: dict[str, str]) -> None:
        """Moves the aliases, as CodeDeploy does at the end of a shift."""
        self.live = LiveState(self.live.template, {**self.live.aliases, **aliases}, self.live.versions)

    def ship(self, compiled: Template, wanted: ReleaseInput, *, shifts: bool = True) -> None:
        """Ships a whole release; with `shifts` false its shift fails."""
        template, before = desired(compiled, wanted), self.live
        expanded = expand(template, before)
        cleared = clear(expanded, before)
        for update in (cleared, expanded):
            if update is not None:
                self.update(update)
        if not shifts:
            return
        targets = {ids.alias: str(self.live.versions[version]) for ids, version in version_ids(template).items()}
        self.point(targets)
        self.update(contract(template, before, targets))
