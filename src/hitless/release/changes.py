"""What differs between the documents of two releases, for people: a dry run, and an approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hitless.service.value import child_path


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Changed settings, one line each: `functions.api.memory_mb: 512 → 1024`. Values of secrets are not shown. Pure."""
    if path in ("commit", "message", "artifacts", "promoted_from"):
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in differences(old.get(key), new.get(key), child_path(path, str(key)))]
    if isinstance(old, list) and isinstance(new, list) and all(_named(one) for one in (*old, *new)):
        return differences({one["name"]: one for one in old}, {one["name"]: one for one in new}, path)
    if old == new:
        return []
    if path.endswith("notify"):
        return [f"{path}: changed"]
    if isinstance(old, list) and isinstance(new, list) and any(isinstance(one, Mapping) for one in (*old, *new)):
        changed = [f"{path}: removed {_shown(one)}" for one in old if one not in new]
        return [*changed, *(f"{path}: added {_shown(one)}" for one in new if one not in old)] or [f"{path}: new order"]
    if path.endswith(".environment"):
        before, now = dict(old or ()), dict(new or ())
        added = [f"{path}.{name}: added" for name in now if name not in before]
        removed = [f"{path}.{name}: removed" for name in before if name not in now]
        changed = [f"{path}.{name}: changed" for name in before if now.get(name, before[name]) != before[name]]
        return [*added, *removed, *changed]
    return [f"{path}: {_shown(old)} → {_shown(new)}"]


def _named(one: object) -> bool:
    return isinstance(one, Mapping) and "name" in one


def _shown(value: object) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    if isinstance(value, Mapping):
        line = " ".join(value[key] for key in ("method", "path") if key in value)
        rest = [f"{key} {one}" for key, one in value.items() if key not in ("method", "path") and one]
        value = ", ".join(filter(None, (line, *rest)))
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
