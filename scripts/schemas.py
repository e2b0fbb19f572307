"""Writes the JSON Schemas that `hitless schema` prints: run `.venv/bin/python -m scripts.schemas` after a change.

serverless.yml: the keys of `hitless.service.keys`, and the settings as their readers describe them. The schema never
refuses what `load` accepts. `load` refuses more: a schema cannot compare two values or follow a variable.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from hitless.cli.schema import FOLDER, Document
from hitless.drill.requests import RequestLine
from hitless.pipeline.buildspec.spec import Buildspec
from hitless.service.functions import ARCHITECTURES, RUNTIMES
from hitless.service.keys import KEYS, Here, Key
from hitless.service.model import ENDED_RUNTIMES
from hitless.service.reader import TEXT, Schema, or_variable, whole
from hitless.service.settings import SETTINGS

_SETTINGS_OF_A_FUNCTION: dict[str, Schema] = {
    "runtime": {"enum": sorted({*RUNTIMES, *ENDED_RUNTIMES})},
    "architecture": {"enum": list(ARCHITECTURES)},
    "memorySize": whole(128, 10240).schema,
    "timeout": whole(1, 900).schema,
}
_VALUES: dict[str, Schema] = {
    "functions.*.handler": TEXT.schema,
    "functions.*.ephemeralStorageSize": whole(512, 10240).schema,
    **{f"{at}.{key}": schema for at in ("provider", "functions.*") for key, schema in _SETTINGS_OF_A_FUNCTION.items()},
}
"""Key path → what its value may be; other values of the framework's keys are not described."""


def service_schema() -> dict[str, Any]:
    """The schema of a whole file."""
    root: dict[str, Any] = {}
    for key in KEYS:
        _place(root, key.path).update(_described(key))
    functions = _place(root, "functions")
    functions["items"] = {"additionalProperties": functions["additionalProperties"]}  # the framework allows a list
    hitless = {key: or_variable(schema) for key, schema in SETTINGS.items()}
    _place(root, "custom.hitless").update(
        or_variable({"type": "object", "properties": hitless, "additionalProperties": False})
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "serverless.yml as hitless reads it",
        "type": "object",
        "required": ["service", "provider", "functions"],
        "$defs": {"variable": {"type": ["null", "string"], "pattern": r"\$\{"}},
        **root,
    }


def _place(root: dict[str, Any], path: str) -> dict[str, Any]:
    """Where the schema of a key is; `*` is any entry of a map, or any item of `events`."""
    at, above = root, ""
    for part in path.split("."):
        if part == "*":
            at = at.setdefault("items" if above == "events" else "additionalProperties", {})
        else:
            at = at.setdefault("properties", {}).setdefault(part, {})
        above = part
    return at


def _described(key: Key) -> Schema:
    match key.here:
        case Here.REFUSED:
            return {"not": {}, "description": key.effect}
        case Here.NOTICED:
            return {"description": f"On the engine: {key.effect}."}
        case Here.AWS:
            return {"description": "Concerns only the deployment to AWS."}
        case Here.USED:
            return or_variable(_VALUES[key.path]) if key.path in _VALUES else {}


def schemas() -> dict[Document, dict[str, Any]]:
    """The schema of each kind of file, in JSON's own types."""
    made = {
        Document.SERVERLESS: service_schema(),
        Document.BUILDSPEC: msgspec.json.schema(Buildspec),
        Document.DRILL_REQUESTS: msgspec.json.schema(RequestLine),
    }
    return {name: json.loads(json.dumps(schema)) for name, schema in made.items()}


if __name__ == "__main__":
    for name, schema in schemas().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n")
