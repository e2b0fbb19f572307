"""osls' own versions and aliases taken out of a template, and what they said of provisioned concurrency kept.

osls puts provisioned concurrency on an alias `provisioned`, which comes and goes with it and which it makes everything
call. AWS refuses weights on such an alias. Here it belongs to a version, and is moved by the tool: its number stands in
the function's metadata, and with it how far Application Auto Scaling may raise it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hitless.cloud.transform.model import FunctionIds, Resource, Template, of_type
from hitless.errors import ServiceFileError

PROVISIONED, SCALED = "hitless:provisioned", "hitless:scaled"


@dataclass(frozen=True, slots=True)
class Ready:
    """How many environments of a version are kept ready: `least`, and up to `most` where `target_percent` of them are
    in use.
    """

    least: int
    most: int | None = None
    target_percent: int = 0

    def nearest(self, number: int) -> int:
        """The number that may stand, next to this one."""
        return max(self.least, min(number, self.most or self.least))


def drop_versions(
    resources: dict[str, Resource], functions: Mapping[FunctionIds, str], scaled: Mapping[str, tuple[int, int]]
) -> None:
    """Take them out; what calls an alias of theirs calls the function. ServiceFileError where two versions' provisioned
    concurrency, as there is during a shift, goes over what the function has reserved.
    """
    ours = {ids.function: name for ids, name in functions.items()}
    for logical_id, resource in list(resources.items()):
        if resource["Type"] not in ("AWS::Lambda::Version", "AWS::Lambda::Alias"):
            continue
        function = resource["Properties"]["FunctionName"].get("Ref")
        if function not in ours:
            continue
        del resources[logical_id]
        config = resource["Properties"].get("ProvisionedConcurrencyConfig")
        if resource["Type"] == "AWS::Lambda::Alias":
            call_function(resources, logical_id, str(resource["Properties"]["Name"]), function)
        if config and resource["Type"] == "AWS::Lambda::Alias":
            number = int(config["ProvisionedConcurrentExecutions"])
            metadata = resources[function].setdefault("Metadata", {})
            metadata[PROVISIONED] = number
            most = number
            if ours[function] in scaled:
                most, target_percent = scaled[ours[function]]
                metadata[SCALED] = {"Max": most, "TargetPercent": target_percent}
            _check_reserved(resources[function], ours[function], most)


def kept_ready(template: Template) -> dict[FunctionIds, Ready]:
    """Function → how many environments its version is to have ready, where it says so."""
    found: dict[FunctionIds, Ready] = {}
    for name, resource in of_type(template.get("Resources", {}), "AWS::Lambda::Function").items():
        metadata = resource.get("Metadata", {})
        if PROVISIONED in metadata:
            number, scaled = int(metadata[PROVISIONED]), metadata.get(SCALED)
            ready = Ready(number, scaled["Max"], scaled["TargetPercent"]) if scaled else Ready(number)
            found[FunctionIds(name.removesuffix("LambdaFunction"))] = ready
    return found


def call_function(resources: dict[str, Resource], alias: str, name: str, function: str) -> None:
    """Have everything that calls this alias of the function call the function itself."""
    arn = {"Fn::GetAtt": [function, "Arn"]}

    def called(node: Any) -> Any:
        match node:
            case {"Ref": str(named), **rest} if not rest and named == alias:
                return arn
            case {"Fn::Join": [":", [first, last]], **rest} if not rest and (first, last) == (arn, name):
                return arn
            case dict():
                return {key: called(value) for key, value in node.items()}
            case list():
                return _without_suffix([called(value) for value in node], [arn, ":", name])
            case _:
                return node

    for resource in resources.values():
        resource["Properties"] = called(resource.get("Properties", {}))
        named = resource.pop("DependsOn", [])
        if left := [one for one in ([named] if isinstance(named, str) else named) if one != alias]:
            resource["DependsOn"] = left


def _without_suffix(nodes: list[Any], suffixed: list[Any]) -> list[Any]:
    """The list with `function ARN, ":", alias` cut down to the ARN."""
    for at in range(len(nodes) - len(suffixed) + 1):
        if nodes[at : at + len(suffixed)] == suffixed:
            return [*nodes[: at + 1], *_without_suffix(nodes[at + len(suffixed) :], suffixed)]
    return nodes


def _check_reserved(function: Resource, name: str, number: int) -> None:
    reserved = function["Properties"].get("ReservedConcurrentExecutions")
    if isinstance(reserved, int) and 2 * number > reserved:
        raise ServiceFileError(
            f"functions.{name}: provisionedConcurrency {number} is wanted twice during a shift, for the live version "
            f"and the next one; reservedConcurrency {reserved} has no room for that",
            hint=f"reserve {2 * number} or more, or provision {reserved // 2} or fewer",
        )


def concurrency_needed(functions: Iterable[tuple[int, int | None]], spare: int = 100) -> int:
    """How much of an account's concurrency a service takes during a shift, of (provisioned, reserved) of each function:
    two versions' provisioned concurrency, or what is reserved; and what AWS wants to be left unreserved.
    """
    return spare + sum(max(2 * number, reserved or 0) for number, reserved in functions)
