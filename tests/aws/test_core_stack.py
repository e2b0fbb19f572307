"""The core stack on an emulated CloudFormation: created, repeated, changed, refused and destroyed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hitless.cloud.setup.domain import SERVER_VARIABLE
from tests.aws.emulated import EmulatedAws
from tests.dns_server import dns_server

pytestmark = pytest.mark.aws

SERVICE = """\
service: clock
provider: {{name: aws, region: us-east-1, runtime: python3.11, stage: "${{opt:stage, 'dev'}}"}}
functions: {{api: {{handler: app.handler, events: [{{http: GET /time}}]}}}}
custom: {{hitless: {{stages: {{dev: {{nat: {nat}{more}}}, prod: {{}}}}}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text("def handler(event, context): return {'statusCode': 200}\n")
    write(tmp_path)
    return tmp_path


def write(folder: Path, *, nat: str = "single", more: str = "") -> None:
    (folder / "serverless.yml").write_text(SERVICE.format(nat=nat, more=more))


def bootstrap(aws: EmulatedAws, folder: Path, *options: str, ok: tuple[int, ...] = (0,)) -> dict[str, Any]:
    return aws.hitless("aws", "bootstrap", "--no-pipeline", *options, folder=folder, ok=ok)


def executed(aws: EmulatedAws) -> int:
    return sum(call.operation == "ExecuteChangeSet" for call in aws.front.calls)


def status(aws: EmulatedAws, name: str) -> str | None:
    found = aws.client("cloudformation").describe_stacks()["Stacks"]
    return next((one["StackStatus"] for one in found if one["StackName"] == name), None)


def test_the_core_stack_is_created_updated_and_destroyed_without_leftovers(aws: EmulatedAws, folder: Path) -> None:
    outputs = bootstrap(aws, folder)["stacks"][0]["outputs"]
    assert len(outputs["PrivateSubnetIds"].split(",")) == 3
    assert outputs["ApiDomainName"] == ""
    (group,) = aws.client("ec2").describe_security_groups(GroupIds=[outputs["DefaultSecurityGroupId"]])[
        "SecurityGroups"
    ]
    assert group["IpPermissions"] == group["IpPermissionsEgress"] == []

    before = executed(aws)
    assert bootstrap(aws, folder)["stacks"][0]["outputs"] == outputs
    assert executed(aws) == before, "a repeated bootstrap changed something"

    checked = {one["check"]: one for one in aws.hitless("aws", "doctor", "--no-pipeline", folder=folder)["checks"]}
    assert checked["credentials"]["found"].startswith("arn:aws:")
    assert (checked["quota"]["well"], checked["permissions"]["well"]) == (True, True)
    assert executed(aws) == before, "a check changed something"

    write(folder, nat="per-az")
    planned = aws.hitless("aws", "plan", "--no-pipeline", folder=folder)
    added = {change["resource"] for change in planned["stacks"][0]["changes"] if change["action"] == "add"}
    assert added == {"NatAddressB", "NatAddressC", "NatGatewayB", "NatGatewayC"}
    assert planned["costs"]["fixed_usd_a_month"] == 110.8
    bound = ("--boundary", "arn:aws:iam::000000000000:policy/organisation", "--github-oidc")
    planned = aws.hitless("aws", "plan", "--no-pipeline", *bound, folder=folder)
    changed = {change["resource"] for change in planned["stacks"][0]["changes"] if change["action"] == "change"}
    assert {"DeployRole", "CloudFormationRole"} <= changed
    assert executed(aws) == before, "a plan changed something"
    assert bootstrap(aws, folder)["stacks"][0]["status"] == "UPDATE_COMPLETE"

    gone = aws.hitless("aws", "destroy", "--yes", "--with-data", folder=folder)
    assert gone["deleted"] == ["clock-core-dev"]
    assert status(aws, "clock-core-dev") is None
    assert outputs["ArtifactBucketName"] not in [one["Name"] for one in aws.client("s3").list_buckets()["Buckets"]]
    assert aws.hitless("aws", "destroy", "--yes", folder=folder)["deleted"] == []


def test_a_second_stage_joins_the_network_of_the_first_with_a_group_of_its_own(aws: EmulatedAws, folder: Path) -> None:
    first = bootstrap(aws, folder)["stacks"][0]["outputs"]
    write(folder, more="}, second: {network: {stack: clock-core-dev}")
    second = bootstrap(aws, folder, "--stage", "second")["stacks"][0]["outputs"]
    assert second["PrivateSubnetIds"] == first["PrivateSubnetIds"]
    assert (second["VpcId"], second["DefaultSecurityGroupId"]) == (first["VpcId"], "")
    groups = aws.client("ec2").describe_security_groups(GroupIds=[second["LambdaSecurityGroupId"]])["SecurityGroups"]
    assert [(one["VpcId"], one["IpPermissions"]) for one in groups] == [(first["VpcId"], [])]
    refused = aws.hitless("aws", "destroy", "--yes", folder=folder, ok=(1,))
    assert refused["error"]["details"] == {"stacks": ["clock-core-second"]}
    assert status(aws, "clock-core-dev") == "CREATE_COMPLETE"


def test_drift_names_what_somebody_changed_by_hand(aws: EmulatedAws, folder: Path) -> None:
    bootstrap(aws, folder)
    assert aws.hitless("aws", "drift", folder=folder) == {"stage": "dev", "stacks": {"clock-core-dev": []}}
    aws.client("logs").put_retention_policy(logGroupName="/hitless/clock/dev/vpc", retentionInDays=7)
    (one,) = aws.hitless("aws", "drift", folder=folder, ok=(1,))["stacks"]["clock-core-dev"]
    assert (one["resource"], one["type"], one["status"]) == ("FlowLogGroup", "AWS::Logs::LogGroup", "modified")
    assert one["differences"] == [{"path": "/RetentionInDays", "expected": "30", "actual": "7"}]


def test_destroy_keeps_the_artifact_bucket_unless_with_data_is_given(aws: EmulatedAws, folder: Path) -> None:
    bucket = bootstrap(aws, folder)["stacks"][0]["outputs"]["ArtifactBucketName"]
    aws.client("s3").put_object(Bucket=bucket, Key="artifacts/x.zip", Body=b"x")
    kept = aws.hitless("aws", "destroy", "--yes", folder=folder)["kept"]
    assert bucket in kept[0]
    assert aws.client("s3").head_object(Bucket=bucket, Key="artifacts/x.zip")["ContentLength"] == 1


def test_a_new_cidr_that_would_replace_the_network_is_refused(aws: EmulatedAws, folder: Path) -> None:
    outputs = bootstrap(aws, folder)["stacks"][0]["outputs"]
    refused = bootstrap(aws, folder, "--cidr", "10.50.0.0/16", ok=(1,))
    assert refused["error"]["code"] == "conflict"
    assert "REPLACED (CidrBlock)" in refused["error"]["message"]
    assert bootstrap(aws, folder)["stacks"][0]["outputs"] == outputs


def test_another_services_stack_with_the_same_name_is_not_changed(aws: EmulatedAws, folder: Path) -> None:
    body = '{"Resources": {"T": {"Type": "AWS::SNS::Topic"}}}'
    aws.client("cloudformation").create_stack(StackName="clock-core-dev", TemplateBody=body)
    assert "not this service's" in bootstrap(aws, folder, ok=(1,))["error"]["message"]
    assert aws.hitless("aws", "destroy", "--yes", folder=folder, ok=(1,))["error"]["code"] == "conflict"
    assert status(aws, "clock-core-dev") == "CREATE_COMPLETE"


def test_a_bootstrap_interrupted_before_it_began_is_finished_by_the_next(aws: EmulatedAws, folder: Path) -> None:
    aws.client("cloudformation").create_change_set(
        StackName="clock-core-dev",
        ChangeSetName="left-behind",
        ChangeSetType="CREATE",
        TemplateBody='{"Resources": {"T": {"Type": "AWS::SNS::Topic"}}}',
        Tags=[{"Key": "hitless:service", "Value": "clock"}, {"Key": "hitless:stage", "Value": "dev"}],
    )
    assert status(aws, "clock-core-dev") == "REVIEW_IN_PROGRESS"
    assert bootstrap(aws, folder)["stacks"][0]["status"] == "CREATE_COMPLETE"


def test_a_domain_gets_a_certificate_and_records_and_needs_its_name_to_be_destroyed(
    aws: EmulatedAws, folder: Path
) -> None:
    write(folder, more=", domain: api.example.com")
    missing = bootstrap(aws, folder, ok=(2,))
    assert "no public hosted zone" in missing["error"]["message"]
    made = aws.client("route53").create_hosted_zone(Name="example.com", CallerReference="1")
    zone, servers = made["HostedZone"]["Id"], made["DelegationSet"]["NameServers"]
    records_seen: dict[tuple[str, str], list[str]] = {("com", "NS"): ["a.gtld-servers.net."]}
    with dns_server(records_seen) as server:
        resolving = replace(aws, environ={**aws.environ, SERVER_VARIABLE: server})
        assert "is delegated to no name server" in bootstrap(resolving, folder, ok=(2,))["error"]["message"]
        assert status(aws, "clock-core-dev") is None
        records_seen["example.com", "NS"] = [f"{one}." for one in servers]
        bootstrap(resolving, folder)
    assert bootstrap(aws, folder)["stacks"][0]["outputs"]["ApiDomainName"] == "api.example.com"

    def records() -> list[str]:
        found = aws.client("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
        return sorted(one["Type"] for one in found if one["Name"] == "api.example.com.")

    assert records() == ["A", "AAAA"]

    write(folder)  # the setting taken out by the way must not take the domain along
    assert "DomainRecordIpv4 deleted" in bootstrap(aws, folder, ok=(1,))["error"]["message"]
    write(folder, more=", domain: api.example.com")

    unconfirmed = aws.hitless("aws", "destroy", "--yes", folder=folder, ok=(1,))
    assert "--confirm dev" in unconfirmed["error"]["hint"]
    kept = aws.hitless("aws", "destroy", "--confirm", "dev", "--with-data", folder=folder)
    assert kept["deleted"] == []
    assert "api.example.com" in kept["kept"][0]
    assert records() == ["A", "AAAA"]
    held = aws.client("cloudformation").describe_stacks(StackName="clock-core-dev")["Stacks"][0]
    assert {"ParameterKey": "Nat", "ParameterValue": "none"} in held["Parameters"]

    gone = aws.hitless("aws", "destroy", "--confirm", "dev", "--with-domain", "--with-data", folder=folder)
    assert gone["deleted"] == ["clock-core-dev"]
    assert records() == []


def test_a_protected_stage_has_termination_protection_and_needs_its_name_to_be_destroyed(
    aws: EmulatedAws, folder: Path
) -> None:
    bootstrap(aws, folder, "--stage", "prod")
    held = aws.client("cloudformation").describe_stacks(StackName="clock-core-prod")["Stacks"][0]
    assert held["EnableTerminationProtection"]
    wrong = aws.hitless("aws", "destroy", "--stage", "prod", "--confirm", "dev", folder=folder, ok=(2,))
    assert "nothing was changed" in wrong["error"]["hint"]
    assert (
        aws.hitless("aws", "destroy", "--stage", "prod", "--yes", folder=folder, ok=(1,))["error"]["code"] == "machine"
    )
    assert status(aws, "clock-core-prod") == "CREATE_COMPLETE"
    gone = aws.hitless("aws", "destroy", "--stage", "prod", "--confirm", "prod", folder=folder)
    assert gone["deleted"] == ["clock-core-prod"]


def test_destroy_keeps_a_service_stack_with_data_unless_with_data_is_given(aws: EmulatedAws, folder: Path) -> None:
    aws.client("cloudformation").create_stack(
        StackName="clock-dev",
        TemplateBody='{"Resources": {"Items": {"Type": "AWS::SQS::Queue"}}}',
        Tags=[{"Key": "hitless:service", "Value": "clock"}, {"Key": "hitless:stage", "Value": "dev"}],
    )
    refused = aws.hitless("aws", "destroy", "--yes", folder=folder, ok=(1,))
    assert "Items (AWS::SQS::Queue)" in refused["error"]["message"]
    assert status(aws, "clock-dev") == "CREATE_COMPLETE"
    assert aws.hitless("aws", "destroy", "--yes", "--with-data", folder=folder)["deleted"] == ["clock-dev"]


@pytest.mark.parametrize(
    ("missing", "words"),
    [({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, "no AWS credentials were found"), (set(), "is not a region")],
)
def test_bootstrap_reports_missing_credentials_and_an_unknown_region(
    aws: EmulatedAws, folder: Path, missing: set[str], words: str
) -> None:
    environ = {name: value for name, value in aws.environ.items() if name not in missing}
    region = [] if missing else ["--region", "eu-nowhere-1"]
    command = [str(Path(sys.executable).with_name("hitless")), "aws", "bootstrap", "--no-pipeline", *region]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
