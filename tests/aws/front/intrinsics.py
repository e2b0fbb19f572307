"""Resolves CloudFormation's intrinsics and conditions outside CloudFormation; an unknown one is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.aws.front.calls import ACCOUNT

_ABSENT: Any = object()
_NO_VALUE = {"Ref": "AWS::NoValue"}


class Resolver:
    """`physical` has the ids of the deployed resources by logical id; `attributes` answers GetAtt."""

    def __init__(
        self,
        template: Mapping[str, Any],
        parameters: Mapping[str, str],
        physical: Mapping[str, str],
        attributes: Mapping[tuple[str, str], str],
        *,
        region: str,
        stack: str,
    ) -> None:
        declared: Mapping[str, Mapping[str, Any]] = template.get("Parameters", {})
        given = {name: str(one["Default"]) for name, one in declared.items() if "Default" in one} | dict(parameters)
        lists = {name for name, one in declared.items() if one["Type"].startswith(("List<", "CommaDelimitedList"))}
        values = {name: value.split(",") if name in lists else value for name, value in given.items()}
        pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": region,
            "AWS::StackName": stack,
            "AWS::URLSuffix": "amazonaws.com",
        }
        self._conditions: Mapping[str, Any] = template.get("Conditions", {})
        self._values: dict[str, Any] = {**physical, **values, **pseudo, "AWS::NoValue": _ABSENT}
        self._attributes = attributes

    def condition(self, name: str) -> bool:
        return self._true(self._conditions[name])

    def _true(self, rule: Mapping[str, Any]) -> bool:
        ((kind, given),) = rule.items()
        match kind:
            case "Condition":
                return self.condition(given)
            case "Fn::Equals":
                return bool(self.value(given[0]) == self.value(given[1]))
            case "Fn::Not":
                return not self._true(given[0])
            case "Fn::And":
                return all(self._true(one) for one in given)
            case "Fn::Or":
                return any(self._true(one) for one in given)
        raise ValueError(f"condition {kind}")

    def value(self, node: Any) -> Any:
        """The node with every intrinsic resolved; AWS::NoValue is removed from its list or mapping."""
        if isinstance(node, list):
            return [one for one in map(self.value, node) if one is not _ABSENT]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((kind, given),) = node.items()
            if kind == "Ref":
                return self._values[given]
            if kind.startswith("Fn::"):
                return self._function(kind, given)
        return {key: one for key, inner in node.items() if (one := self.value(inner)) is not _ABSENT}

    def _function(self, kind: str, given: Any) -> Any:
        match kind:
            case "Fn::If":
                return self.value(given[1] if self.condition(given[0]) else given[2])
            case "Fn::Sub":
                return self._sub(given)
            case "Fn::Split":
                return str(self.value(given[1])).split(given[0])
            case "Fn::Join":
                return given[0].join(map(str, self.value(given[1])))
            case "Fn::GetAtt":
                target, attribute = given.split(".", 1) if isinstance(given, str) else given
                return self._attributes[target, attribute]
        raise ValueError(f"{kind} is not resolved here")

    def _sub(self, given: Any) -> str:
        text, own = (given, {}) if isinstance(given, str) else (given[0], self.value(given[1]))

        def put(match: re.Match[str]) -> str:
            name = match.group(1)
            if name in own:
                return str(own[name])
            if name in self._values:
                return str(self._values[name])
            target, _, attribute = name.partition(".")
            return self._attributes[target, attribute]

        return re.sub(r"\$\{([^!}]+)\}", put, text)


def without_conditions(template: Mapping[str, Any], resolver: Resolver) -> dict[str, Any]:
    """The template with what its conditions leave out left out, and the branch of each Fn::If that holds.

    ministack's change sets compare templates without regard to conditions: a parameter that turns one on would be "no
    change".
    """
    made = {
        section: {
            name: one
            for name, one in template.get(section, {}).items()
            if "Condition" not in one or resolver.condition(one["Condition"])
        }
        for section in ("Resources", "Outputs")
    }
    pruned: dict[str, Any] = _branches({**template, **{key: one for key, one in made.items() if one}}, resolver)
    for resource in pruned["Resources"].values():
        if "DependsOn" in resource:
            wanted = resource["DependsOn"]
            names = [wanted] if isinstance(wanted, str) else wanted
            resource["DependsOn"] = [name for name in names if name in pruned["Resources"]]
    return pruned


def _branches(node: Any, resolver: Resolver) -> Any:
    if isinstance(node, list):
        return [found for one in node if (found := _branches(one, resolver)) != _NO_VALUE]
    if not isinstance(node, dict):
        return node
    if len(node) == 1 and "Fn::If" in node:
        condition, then, other = node["Fn::If"]
        return _branches(then if resolver.condition(condition) else other, resolver)
    return {key: found for key, one in node.items() if (found := _branches(one, resolver)) != _NO_VALUE}
