"""What one template changes in another, without asking AWS: add, change, replace, remove.

Whether a change replaces is told by the create-only properties of CloudFormation's own schemas (`create_only.json`, a
copy of what cfn-lint brings; `scripts/create-only` writes it anew).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hitless.cloud.transform.model import Resource, Template

_FILE = Path(__file__).with_name("create_only.json")


@functools.cache
def create_only() -> Mapping[str, frozenset[str]]:
    """Type → the properties whose change makes CloudFormation replace the resource: `A`, or `A/B` for one within A."""
    return {kind: frozenset(names) for kind, names in json.loads(_FILE.read_text("utf-8")).items()}


def replacing(old: Resource, new: Resource) -> list[str]:
    """The properties by which an update from one to the other replaces the resource; `Type` where it is another."""
    if old["Type"] != new["Type"]:
        return ["Type"]
    before, after = old.get("Properties", {}), new.get("Properties", {})
    return sorted(
        name
        for name in create_only().get(old["Type"], ())
        if _at(before, name.split("/")) != _at(after, name.split("/"))
    )


def changes(before: Template, after: Template) -> list[dict[str, Any]]:
    """The contract's list: {"action", "resource", "replaces"}, with the type and the properties besides."""
    old, new = before.get("Resources", {}), after["Resources"]
    found = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            found.append(_change("add", name, new[name], [], replaces=False))
        elif name not in new:
            found.append(_change("remove", name, old[name], [], replaces=False))
        elif differing := _differing(old[name], new[name]):
            replaces = bool(replacing(old[name], new[name]))
            found.append(_change("change", name, new[name], differing, replaces=replaces))
    return found


def _change(action: str, name: str, resource: Resource, properties: list[str], *, replaces: bool) -> dict[str, Any]:
    return {
        "action": action,
        "resource": name,
        "type": resource["Type"],
        "replaces": replaces,
        "properties": properties,
    }


def _differing(old: Resource, new: Resource) -> list[str]:
    if old["Type"] != new["Type"]:
        return ["Type"]
    before, after = old.get("Properties", {}), new.get("Properties", {})
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _at(node: Any, path: list[str]) -> Any:
    """What stands at a path; all of the list's items where it goes through one (`*`)."""
    if not path or node is None:
        return node
    if path[0] == "*":
        return [_at(item, path[1:]) for item in node] if isinstance(node, list) else node
    return _at(node.get(path[0]), path[1:]) if isinstance(node, dict) else node
