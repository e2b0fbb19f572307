"""Reads CloudFormation templates in YAML with short tags, and writes them as JSON, the same bytes each time.

Only CloudFormation's own tags are understood; nothing in a template is executed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

Template = dict[str, Any]

FOLDER = Path(__file__).resolve().parent.parent / "templates" / "cloudformation"

_BARE = ("Ref", "Condition")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as CloudFormation reads it: short tags, and timestamps (`2012-10-17`) as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _tagged(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in _BARE else f"Fn::{suffix}"
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = str(value).split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {name: value}


_Loader.add_multi_constructor("!", _tagged)


def load_template(name: str) -> Template:
    """The template with that name in the package: `core`, `pipeline`."""
    return parse_template((FOLDER / f"{name}.yml").read_text())


def parse_template(text: str) -> Template:
    """YAML (or JSON) of a template, short tags written out. ValueError if it is no template."""
    loader = _Loader(text)
    try:
        template = loader.get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"not a template: {error}") from error
    finally:
        loader.dispose()
    if not isinstance(template, dict) or "Resources" not in template:
        raise ValueError("not a template: it has no Resources")
    return template


def dump_template(template: Template, *, indent: int | None = None) -> str:
    """Its JSON: the same bytes for the same template. Compact unless `indent` is given."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(template, indent=indent, separators=separators, ensure_ascii=False)
