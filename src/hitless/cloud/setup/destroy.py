"""Deletes a stage from AWS, in reverse order: service, pipeline, core.

Data and the domain stay unless named. A service stack that holds data is not touched at all. A core stack with a domain
stays, without NAT gateways, so that it costs next to nothing. The artifact bucket stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hitless.aws.buckets import delete_bucket, empty_bucket
from hitless.aws.follow import Stack
from hitless.aws.lambdas import Autoscaling
from hitless.aws.session import Aws
from hitless.aws.stacks import Imports, Stacks
from hitless.cloud.setup.stacks import core_stack, names_of, tags_of
from hitless.errors import ConflictError
from hitless.service.model import Nat, Service

DATA_TYPES = frozenset(
    {
        "AWS::Cognito::UserPool",
        "AWS::DocDB::DBCluster",
        "AWS::DynamoDB::GlobalTable",
        "AWS::DynamoDB::Table",
        "AWS::EFS::FileSystem",
        "AWS::KMS::Key",
        "AWS::Kinesis::Stream",
        "AWS::OpenSearchService::Domain",
        "AWS::RDS::DBCluster",
        "AWS::RDS::DBInstance",
        "AWS::S3::Bucket",
        "AWS::SQS::Queue",
        "AWS::SecretsManager::Secret",
    }
)
"""Types in a service's own `resources` with data that no deploy restores."""


@dataclass(frozen=True, slots=True)
class DestroyPlan:
    """What destroying would do: the stacks that are deleted, and sentences on what stays."""

    goes: tuple[str, ...]
    stays: tuple[str, ...]
    keeps_core: bool
    core: Stack | None

    def to_json(self) -> dict[str, Any]:
        return {"deleted": list(self.goes), "kept": list(self.stays)}


class Destroy:
    """Deletes one stage. Repeating it finishes a run that was cut off."""

    def __init__(self, service: Service, aws: Aws, stacks: Stacks, *, say: Callable[[str], None]) -> None:
        self._service, self._aws, self._stacks, self._say = service, aws, stacks, say
        self._names, self._tags = names_of(service), tags_of(service)

    def plan(self, *, with_data: bool, with_domain: bool) -> DestroyPlan:
        """Raise ConflictError if the service's stack has data that was not named."""
        core = self._stacks.find(self._names.core)
        domain = core.outputs.get("ApiDomainName", "") if core else ""
        bucket = core.outputs.get("ArtifactBucketName", "") if core else ""
        found = [name for name in (self._names.service, self._names.pipeline) if self._stacks.find(name)]
        if self._names.service in found and not with_data:
            self._refuse_data()
        keeps_core = bool(domain) and not with_domain
        if core and not keeps_core:
            self._refuse_shared()
        stays: list[str] = []
        if keeps_core:
            stays.append(
                f"{self._names.core}, because it holds {domain}; without NAT gateways (--with-domain deletes it, too)"
            )
        if bucket and (keeps_core or not with_data):
            stays.append(f"the artifact bucket {bucket}" + ("" if keeps_core else " (--with-data deletes it)"))
        goes = (*found, *((self._names.core,) if core and not keeps_core else ()))
        return DestroyPlan(goes, tuple(stays), keeps_core, core)

    def run(self, plan: DestroyPlan, *, with_data: bool) -> None:
        """Carry the plan out; the person has agreed. CloudError names what could not be deleted."""
        self._scale_no_more()
        self._delete(self._names.service)
        pipeline = self._stacks.find(self._names.pipeline)
        if pipeline and (sources := pipeline.outputs.get("PipelineBucketName")):
            empty_bucket(self._aws.client("s3"), sources)  # passing copies of what git holds
        self._delete(self._names.pipeline)
        if plan.core is None:
            return
        if plan.keeps_core:
            self._shrink()
            return
        self._delete(self._names.core)
        if with_data and (bucket := plan.core.outputs.get("ArtifactBucketName")):
            delete_bucket(self._aws.client("s3"), bucket)
            self._say(f"the artifact bucket {bucket} is deleted")

    def _scale_no_more(self) -> None:
        """Remove the scaling of versions: it would outlive them, with alarms that cost money."""
        if not any(function.max_provisioned for function in self._service.functions):
            return
        autoscaling = Autoscaling(self._aws.client("application-autoscaling"))
        for function, version in autoscaling.scaled(f"{self._names.service}-"):
            autoscaling.stop_scaling(function, version)

    def _delete(self, name: str) -> None:
        if self._stacks.find(name) is None:
            return
        self._say(f"{name} is deleted")
        self._stacks.delete(name, tags=self._tags)

    def _shrink(self) -> None:
        """Update the core stack to have no NAT gateways: the rest costs nothing by the hour."""
        spec = core_stack(self._service, cidr=None, zone_id=None)
        kept = {**spec.parameters, "Nat": Nat.NONE.value, "DomainName": None, "HostedZoneId": None}
        self._stacks.deploy(replace(spec, parameters=kept, protected=True))

    def _refuse_shared(self) -> None:
        users = Imports(self._aws.client("cloudformation"), self._stacks).importers(f"{self._names.core}-VpcId")
        if users:
            raise ConflictError(
                f"{self._names.core}: its network is used by {', '.join(users)}",
                hint="give those stages another network first, or destroy them",
                details={"stacks": users},
            )

    def _refuse_data(self) -> None:
        held = self._stacks.resources(self._names.service)
        data = [f"{name} ({kind})" for name, (kind, _) in sorted(held.items()) if kind in DATA_TYPES]
        if data:
            raise ConflictError(
                f"{self._names.service} still contains data: {', '.join(data)}",
                hint="to keep it, give these resources `DeletionPolicy: Retain`, deploy, remove them, deploy again; "
                "to delete it, use --with-data",
                details={"resources": data},
            )
