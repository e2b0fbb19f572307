"""CloudFormation's schemas of its types, as cfn-lint brings them: which properties are create-only."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

FILE = Path(__file__).parents[2] / "src" / "hitless" / "cloud" / "transform" / "create_only.json"
REGION = "us-east-1"


def create_only_of_schemas() -> dict[str, list[str]]:
    """Type → the properties (`A`, or `A/B` within one) whose change replaces the resource, always or at times."""
    found = importlib.util.find_spec("cfnlint")
    assert found is not None
    assert found.submodule_search_locations
    schemas = Path(found.submodule_search_locations[0]) / "data" / "schemas"
    hashes = json.loads((schemas / "providers" / f"{REGION}.json").read_text("utf-8"))
    made = {}
    for kind, digest in sorted(hashes.items()):
        schema = json.loads((schemas / "resources" / f"{digest}.json").read_text("utf-8"))
        pointers = [*schema.get("createOnlyProperties", []), *schema.get("conditionalCreateOnlyProperties", [])]
        if pointers:
            made[kind] = sorted({pointer.removeprefix("/properties/") for pointer in pointers})
    return made


def written() -> str:
    """The file's text: a type a line."""
    lines = [f"{json.dumps(kind)}: {json.dumps(names)}" for kind, names in create_only_of_schemas().items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"
