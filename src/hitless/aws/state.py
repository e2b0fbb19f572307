"""serverless-state.json, osls' record of a packaged service: read it, and write the one that `osls deploy` is given.

osls writes it json-cycle encoded: an object that occurs twice is written once, its second place holds
`{"$ref": "$[\"path\"]"}`. The state that goes to AWS is ours and small: osls keeps it in a bucket, and its own holds
every variable of the service resolved. It names no function, as the artifacts are in the bucket already, by digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hitless.errors import CloudError

STATE_FILE = "serverless-state.json"

_PATH = re.compile(r'\$(?:\[(?:\d+|"(?:[^\\"]|\\.)*")\])*')
_PART = re.compile(r'\[(?:(\d+)|("(?:[^\\"]|\\.)*"))\]')


@dataclass(frozen=True, slots=True)
class Packaged:
    """What `osls package` made: the compiled template, and of the service what the template does not say."""

    service: str
    stage: str
    region: str
    stack_name: str
    template: dict[str, Any]
    function_names: Mapping[str, str]
    """Lambda's name of a function → its name in serverless.yml."""


def decode(text: str) -> Any:
    """The document with each json-cycle reference replaced by what it refers to (the same object, as osls has it)."""
    root = json.loads(text)
    return _resolved(root, root)


def _resolved(node: Any, root: Any) -> Any:
    match node:
        case dict():
            for key, value in node.items():
                node[key] = _target(value, root) if _is_reference(value) else _resolved(value, root)
        case list():
            for at, value in enumerate(node):
                node[at] = _target(value, root) if _is_reference(value) else _resolved(value, root)
    return node


def _is_reference(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("$ref"), str) and bool(_PATH.fullmatch(node["$ref"]))


def _target(reference: dict[str, str], root: Any) -> Any:
    found = root
    for index, name in _PART.findall(reference["$ref"]):
        found = found[int(index)] if index else found[json.loads(name)]
    return _target(found, root) if _is_reference(found) else found


def read(text: str) -> Packaged:
    """The packaged service. Raises CloudError where the state is not of the form that osls 4 writes."""
    try:
        service = decode(text)["service"]
        provider = service["provider"]
        name, stage = str(service["service"]), str(provider["stage"])
        return Packaged(
            service=name,
            stage=stage,
            region=str(provider["region"]),
            stack_name=str(provider.get("stackName") or f"{name}-{stage}"),
            template=json.loads(json.dumps(provider["compiledCloudFormationTemplate"])),
            function_names={str(function["name"]): key for key, function in service["functions"].items()},
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CloudError(
            f"{STATE_FILE} is not of the form that is known: {error!r}", hint="install the pinned osls: scripts/setup"
        ) from error


def deployable(
    *, service: str, stage: str, region: str, bucket: str, template: Mapping[str, Any], role: str, directory: str
) -> dict[str, Any]:
    """The state that `osls deploy --package` deploys: that template, by UpdateStack, with the stack's service role."""
    provider: dict[str, Any] = {
        "name": "aws",
        "region": region,
        "stage": stage,
        "versionFunctions": False,
        "deploymentMethod": "direct",
        "deploymentBucket": bucket,
        # osls would delete its older templates, which the deploy role may not: the bucket's lifecycle rules do
        "deploymentBucketObject": {"name": bucket, "maxPreviousDeploymentArtifacts": 1_000_000},
        "stackTags": {"hitless:service": service, "hitless:stage": stage},
        "compiledCloudFormationTemplate": template,
        "coreCloudFormationTemplate": template,
    }
    if role:
        provider["iam"] = {"deploymentRole": role}
    return {
        "service": {"service": service, "provider": provider, "functions": {}, "layers": {}},
        "package": {"artifactDirectoryName": directory},
    }
