"""Changes one setting of a stage in the copy's serverless.yml.

On the tree of YAML's nodes, not on its values: CloudFormation's tags and the variables stay as they are. Comments and
layout are lost, which nobody misses in a throwaway copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from hitless.errors import UsageError

_MAP = "tag:yaml.org,2002:map"
_TEXT = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"


Setting = int | Sequence[object] | Mapping[str, int]


def with_stage_setting(text: str, stage: str, key: str, value: Setting) -> str:
    """The file with `custom.hitless.stages.STAGE.KEY: VALUE`. Raises UsageError where a variable stands in the way."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        raise UsageError("serverless.yml is empty", hint="`hitless init` makes one to start from")
    node = root
    path = ("custom", "hitless", "stages", stage)
    for depth, name in enumerate(path):
        node = _child(node, name, ".".join(path[: depth + 1]))
    _set(node, key, _node_of(value))
    return str(yaml.serialize(root))


def _node_of(value: Setting) -> yaml.Node:
    node = yaml.compose(yaml.safe_dump(value), Loader=yaml.SafeLoader)
    assert node is not None
    return node


def _child(node: yaml.Node, name: str, where: str) -> yaml.Node:
    value: yaml.Node
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(
            f"serverless.yml: {where} is not written out, so that a drill cannot change a setting in its copy",
            hint="write it as a map in serverless.yml, or leave the scenario out",
        )
    for key, value in node.value:
        if key.value == name and not (isinstance(value, yaml.ScalarNode) and value.tag == _NULL):
            return value
    return _set(node, name, yaml.MappingNode(_MAP, []))


def _set(node: yaml.Node, name: str, value: yaml.Node) -> yaml.Node:
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"serverless.yml: {name} has no map to stand in", hint="write the stage's settings as a map")
    node.value = [(key, old) for key, old in node.value if key.value != name]
    node.value.append((yaml.ScalarNode(_TEXT, name), value))
    return value
