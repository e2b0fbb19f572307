"""Rewrites CloudFormation calls: templates get stand-ins on their way in, responses show the real types on their way
out.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.aws.front.intrinsics import Resolver, without_conditions
from tests.aws.front.standins import PREFIX, STAND_IN_TYPE, replace_refused
from tests.aws.front.taken import FAILING_TYPE, with_failing

TEMPLATE_OPERATIONS: Final = frozenset({"CreateStack", "UpdateStack", "CreateChangeSet", "ValidateTemplate"})
BODY_LIMIT_BYTES: Final = 51_200
_SUBSTITUTES: Final = (STAND_IN_TYPE, "AWS::IAM::Policy", FAILING_TYPE)
_ORIGINAL: Final = "TemplateAsSent"
_NAMESPACE: Final = "http://cloudformation.amazonaws.com/doc/2010-05-15/"


class _ShortTags(yaml.SafeLoader):
    """YAML with !Ref, !GetAtt, !Sub … as CloudFormation reads it; dates stay text."""


def _tagged(loader: _ShortTags, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = str(value).split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_ShortTags.add_multi_constructor("!", _tagged)
_ShortTags.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: str(node.value))


def template_of(text: str) -> dict[str, Any]:
    """A template as sent, in JSON or YAML with CloudFormation's short tags."""
    try:
        document = json.loads(text)
    except ValueError:
        document = yaml.load(text, _ShortTags)
    return dict(document)


def object_of(template_url: str) -> str:
    """`/BUCKET/KEY` of a TemplateURL, for both forms of S3's addresses."""
    parts = urlsplit(template_url)
    host = (parts.hostname or "").split(".")
    bucket = "" if host[0] in ("s3", "127", "localhost") or host[0].startswith("s3-") else f"/{host[0]}"
    return bucket + parts.path


class StackCalls:
    """Remembers the real type of each logical id, for responses."""

    def __init__(self) -> None:
        self._types: dict[str, str] = {}
        self._taken: dict[str, str] = {}

    def forget(self) -> None:
        self._types.clear()
        self._taken.clear()

    @property
    def replaced(self) -> Mapping[str, str]:
        """Logical id → real type of every stand-in so far."""
        return dict(self._types)

    def rewritten(
        self, original: str, resolver: Callable[[Mapping[str, Any]], Resolver] | None, taken: Mapping[str, str]
    ) -> str | None:
        """The template for the emulator, with the original in its Metadata; None where it can stay as it is.

        Without a resolver, as for ValidateTemplate, no condition is decided. `taken`: Stages that stand already.
        """
        sent = template_of(original)
        pruned = without_conditions(sent, resolver(sent)) if resolver and "Conditions" in sent else sent
        template, types = replace_refused(with_failing(pruned, taken) if taken else pruned)
        types |= dict.fromkeys(taken, "AWS::ApiGateway::Stage")
        self._types |= types
        self._taken |= taken
        if not types and pruned is sent:
            return None
        template["Metadata"] = {**template.get("Metadata", {}), _ORIGINAL: json.dumps(sent)}
        return json.dumps(template)

    def coming_out(self, operation: str, body: bytes) -> bytes:
        """The response, which shows the real resources in place of their stand-ins."""
        if operation == "GetTemplate":
            return self._template(body)
        if not any(kind.encode() in body for kind in _SUBSTITUTES):
            return body
        ET.register_namespace("", _NAMESPACE)
        root = ET.fromstring(body)
        for element in root.iter():
            names = {re.sub(r"\{.*\}", "", child.tag): child for child in element}
            logical, kind = names.get("LogicalResourceId"), names.get("ResourceType")
            if logical is None or kind is None or kind.text not in _SUBSTITUTES:
                continue
            if kind.text == FAILING_TYPE and logical.text in self._taken and "ResourceStatusReason" in names:
                names["ResourceStatusReason"].text = f"{self._taken[logical.text]} already exists."
            kind.text = self._types.get(logical.text or "", kind.text)
            physical = names.get("PhysicalResourceId")
            if kind.text == "AWS::CloudWatch::Alarm" and physical is not None:
                physical.text = (physical.text or "").removeprefix(PREFIX).replace("/", "-")
        return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))

    def _template(self, body: bytes) -> bytes:
        if _ORIGINAL.encode() not in body:
            return body
        ET.register_namespace("", _NAMESPACE)
        root = ET.fromstring(body)
        for element in root.iter(f"{{{_NAMESPACE}}}TemplateBody"):
            element.text = json.dumps(_original(template_of(element.text or "{}")))
        return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _original(template: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(template["Metadata"][_ORIGINAL]))


def parameters_of(form: Mapping[str, str], previous: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a request; those with UsePreviousValue have the stack's present value."""
    found: dict[str, str] = {}
    for key, name in form.items():
        if not re.fullmatch(r"Parameters\.member\.\d+\.ParameterKey", key):
            continue
        stem = key.removesuffix("ParameterKey")
        kept = form.get(stem + "UsePreviousValue", "").lower() == "true"
        found[name] = previous.get(name, "") if kept else form.get(stem + "ParameterValue", "")
    return found


def form_of(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
