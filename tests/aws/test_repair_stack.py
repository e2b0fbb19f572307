"""Real faults of the stack, the domain and the bucket, fixed under load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hitless.aws.codedeploy import CodeDeploy, Move
from tests.aws.emulated import EmulatedAws
from tests.aws.front.faults import Death
from tests.aws.release_support import CORE, REGION, Client, Worldclock
from tests.aws.test_release_faults import FUNCTIONS
from tests.aws.test_repair import fix, reported_faults
from tests.support import eventually

pytestmark = [pytest.mark.aws, pytest.mark.long]

NAME = "worldclock-blocked"
BLOCKED = f"""
resources:
  Resources:
    Blocked:
      Type: AWS::SSM::Parameter
      Properties: {{Name: {NAME}, Type: String, Value: before}}
"""
NEVER_READY = """
    Handle: {Type: AWS::CloudFormation::WaitConditionHandle}
    Never:
      Type: AWS::CloudFormation::WaitCondition
      DependsOn: Blocked
      Properties: {Handle: {Ref: Handle}, Timeout: '10'}
"""
DOMAIN = "api.example.org"


def test_a_stuck_stack_rollback_continues_after_its_fix_or_if_the_resource_is_skipped(
    aws: EmulatedAws, tmp_path: Path
) -> None:
    service = Worldclock.new(aws, tmp_path)
    file = service.folder / "serverless.yml"
    file.write_text(whole := file.read_text() + BLOCKED)
    assert service.run("deploy").code == 0
    ssm = aws.client("ssm", REGION)
    for skips in (False, True):
        _get_stuck(service, whole)
        blocked = fix(service, "got stuck at Blocked", "its deploy was cut off", ends=1)
        assert [one["where"] for one in blocked["mended"]] == []
        assert "--skip-resource LOGICAL_ID" in blocked["left"][0]["mends"]
        refused = service.run("repair", "--skip-resource", "ApiGatewayStage")
        assert (refused.code, "stuck at: Blocked" in refused.err) == (2, True), refused.err
        if not skips:
            ssm.delete_parameter(Name=f"/{NAME}")
        fix(service, "got stuck at Blocked", "its deploy was cut off", words=("--skip-resource", "Blocked") * skips)
    assert ssm.get_parameter(Name=f"/{NAME}")["Parameter"]["Value"] == "in the way"
    ssm.delete_parameter(Name=f"/{NAME}")
    ssm.put_parameter(Name=NAME, Type="String", Value="before")
    file.write_text(whole)
    service.mark("after")
    after = service.run("deploy")
    assert (after.code, after.json["outcome"]) == (0, "live"), after.err


def _get_stuck(service: Worldclock, whole: str) -> None:
    """Ships a release whose update fails, after somebody changed the parameter that the rollback has to restore."""
    ssm = service.aws.client("ssm", REGION)
    text = whole.replace("Value: before", "Value: after") + NEVER_READY
    (service.folder / "serverless.yml").write_text(text)
    with Client(service.url + "/version", every_s=0.02) as client, service.start("deploy") as deploy:

        def is_changed() -> bool:
            return bool(ssm.get_parameter(Name=NAME)["Parameter"]["Value"] == "after")

        eventually(is_changed, deadline_s=120, what="the update of the parameter")
        ssm.delete_parameter(Name=NAME)
        ssm.put_parameter(Name=f"/{NAME}", Type="String", Value="in the way")
        deploy.kill()
        deploy.communicate()
        cloudformation = service.aws.client("cloudformation", REGION)

        def is_stuck() -> bool:
            (stack,) = cloudformation.describe_stacks(StackName="worldclock-prod")["Stacks"]
            return bool(stack["StackStatus"] == "UPDATE_ROLLBACK_FAILED")

        eventually(is_stuck, deadline_s=120, what="a roll-back that is stuck")
    assert client.failed == 0, client.statuses


def test_repair_fixes_an_orphaned_deployment_an_interrupted_rollback_and_a_failed_update(
    aws: EmulatedAws, tmp_path: Path
) -> None:
    service = Worldclock.new(aws, tmp_path)
    for mark in ("first", "second"):
        service.mark(mark)
        assert service.run("deploy", "--strategy", "AllAtOnce").code == 0
    codedeploy = CodeDeploy(aws.session_client("codedeploy", REGION), "worldclock-prod")
    with aws.front.codedeploy.held_bakes():
        codedeploy.start(
            Move("worldclock-prod-meta", "Meta", "live", "2", "1"),
            configuration="CodeDeployDefault.LambdaCanary10Percent5Minutes", description="by hand", hooks={},
        )  # fmt: skip
        eventually(lambda: service.run("status").json["weights"]["meta"] == {"1": 10, "2": 90}, what="its weight")
        fix(service, "is in progress, and no release is under way")
    assert service.run("status").json["weights"]["meta"] == {"2": 100}

    _update_without_rollback(aws)
    fix(service, "UPDATE_FAILED: an update failed, and its roll-back is turned off")

    with service.start("rollback") as back:
        aws.front.death = Death("lambda:UpdateAlias", 2, after=True, kill=back.kill)
        back.communicate()
        assert aws.front.death.struck
        aws.front.death = None
    to = "to version 2 100 %: release 1 has version 1"
    fix(service, "the rollback from release 2 to 1 did not finish", to, to)
    assert service.run("status").json["versions"] == dict.fromkeys(FUNCTIONS, "1")


def _update_without_rollback(aws: EmulatedAws) -> None:
    """An update by hand, bypassing hitless and the front, with a resource that cannot be created."""
    cloudformation, s3 = aws.client("cloudformation", REGION), aws.client("s3", REGION)
    body = cloudformation.get_template(StackName="worldclock-prod", TemplateStage="Original")["TemplateBody"]
    template = json.loads(body) if isinstance(body, str) else json.loads(json.dumps(body))
    url = {"TargetFunctionArn": "nobody", "AuthType": "NONE"}
    template["Resources"]["Broken"] = {"Type": "AWS::Lambda::Url", "Properties": url}
    s3.put_object(Bucket="worldclock-prod-artifacts", Key="by-hand.json", Body=json.dumps(template).encode())
    cloudformation.update_stack(
        StackName="worldclock-prod", DisableRollback=True, Capabilities=["CAPABILITY_NAMED_IAM"],
        TemplateURL=f"{aws.emulator.url}/worldclock-prod-artifacts/by-hand.json",
    )  # fmt: skip

    def has_failed() -> bool:
        (stack,) = cloudformation.describe_stacks(StackName="worldclock-prod")["Stacks"]
        return bool(stack["StackStatus"] == "UPDATE_FAILED")

    eventually(has_failed, deadline_s=60, what="an update that failed")


def test_repair_fixes_a_wrong_domain_mapping_and_a_missing_artifact(aws: EmulatedAws, tmp_path: Path) -> None:
    service = Worldclock.new(aws, tmp_path, core=False)
    _with_a_domain(service)
    assert service.run("deploy", "--strategy", "AllAtOnce").code == 0
    gateway = aws.client("apigateway", REGION)
    (api,) = (one["id"] for one in gateway.get_rest_apis()["items"])
    stands = gateway.get_base_path_mapping(domainName=DOMAIN, basePath="(none)")
    assert stands["restApiId"] == api

    gateway.delete_base_path_mapping(domainName=DOMAIN, basePath="(none)")
    fix(service, f"{DOMAIN} leads nowhere")
    other = gateway.create_rest_api(name="other")["id"]
    gateway.delete_base_path_mapping(domainName=DOMAIN, basePath="(none)")
    gateway.create_base_path_mapping(domainName=DOMAIN, restApiId=other, stage="prod")
    gateway.delete_rest_api(restApiId=other)
    fix(service, f"{DOMAIN} leads to stage prod of API {other}")
    mapping = gateway.get_base_path_mapping(domainName=DOMAIN, basePath="(none)")
    assert (mapping["restApiId"], mapping["stage"]) == (api, "prod")

    s3 = aws.client("s3", REGION)
    keys = [
        one["Key"] for one in s3.list_objects_v2(Bucket="worldclock-prod-artifacts", Prefix="artifacts/")["Contents"]
    ]
    for key in keys:
        s3.delete_object(Bucket="worldclock-prod-artifacts", Key=key)
    assert [one["where"] for one in reported_faults(service)] == ["release 1"] * 5, (
        "four functions and the wrapper's layer"
    )
    here = service.folder.parent.parent / "shared-data" / "artifacts"
    here.rename(away := here.with_name("elsewhere"))
    done = service.run("repair")
    away.rename(here)
    assert (done.code, done.json["left"], reported_faults(service)) == (0, [], []), done.err


def _with_a_domain(service: Worldclock) -> None:
    core: dict[str, Any] = json.loads(json.dumps(CORE))
    core["Resources"]["Domain"] = {
        "Type": "AWS::ApiGateway::DomainName",
        "Properties": {"DomainName": DOMAIN, "EndpointConfiguration": {"Types": ["REGIONAL"]}},
    }
    core["Outputs"]["ApiDomainName"] = {"Value": {"Ref": "Domain"}}
    client = service.aws.client("cloudformation", REGION)
    client.create_stack(StackName="worldclock-core-prod", TemplateBody=json.dumps(core))
    client.get_waiter("stack_create_complete").wait(
        StackName="worldclock-core-prod", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
