"""The outputs of a stage's core stack that a release reads: from the stack, or from a file for a dry run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hitless.errors import UsageError

FILE = "core-outputs.json"

_PLACEHOLDERS = {
    "VpcId": "vpc-00000000000000000",
    "PrivateSubnetIds": "subnet-0000000000000000a,subnet-0000000000000000b,subnet-0000000000000000c",
    "LambdaSecurityGroupId": "sg-00000000000000000",
    "ArtifactBucketName": "placeholder-artifact-bucket",
    "AlarmTopicArn": "arn:aws:sns:us-east-1:000000000000:placeholder-alarms",
}


@dataclass(frozen=True, slots=True)
class CoreOutputs:
    """The outputs of core that a release reads. Empty if core has none."""

    private_subnet_ids: tuple[str, ...]
    security_group_id: str
    bucket: str
    domain: str = ""
    cloudformation_role_arn: str = ""
    permissions_boundary_arn: str = ""
    alarm_topic_arn: str = ""
    raw: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, outputs: Mapping[str, str], where: str) -> CoreOutputs:
        """Raises UsageError if a required output is missing; the message names `where`."""
        bucket = str(outputs.get("ArtifactBucketName", ""))
        if not bucket:
            raise UsageError(
                f"{where} has no ArtifactBucketName", hint="create the core stack with `hitless aws bootstrap`"
            )
        return cls(
            private_subnet_ids=tuple(filter(None, str(outputs.get("PrivateSubnetIds", "")).split(","))),
            security_group_id=str(outputs.get("LambdaSecurityGroupId", "")),
            bucket=bucket,
            domain=str(outputs.get("ApiDomainName", "")),
            cloudformation_role_arn=str(outputs.get("CloudFormationRoleArn", "")),
            permissions_boundary_arn=str(outputs.get("PermissionsBoundaryArn", "")),
            alarm_topic_arn=str(outputs.get("AlarmTopicArn", "")),
            raw=tuple(sorted((key, str(value)) for key, value in outputs.items())),
        )

    def params(self) -> dict[str, str]:
        """The values of `${param:…}` in serverless.yml: each output's name in lower camel case."""
        return {key[0].lower() + key[1:]: value for key, value in self.raw if value}


def read_core_outputs(folder: Path, named: Path | None) -> CoreOutputs:
    """Outputs for a dry run: from the given file, else core-outputs.json in the service's folder, else placeholders."""
    path = named or folder / FILE
    if named is None and not path.is_file():
        return CoreOutputs.of(_PLACEHOLDERS, "the placeholders")
    try:
        outputs = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", hint="write one JSON object that maps output names to values"
        ) from error
    if not isinstance(outputs, dict):
        raise UsageError(f"{path} is not a JSON object", hint="write one JSON object that maps output names to values")
    return CoreOutputs.of(outputs, str(path))
