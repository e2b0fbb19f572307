"""The template of a release: callers and aliases, names, and the permissions of each function."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from hitless.cloud.transform.desired import desired
from hitless.cloud.transform.guard import whole_minutes
from hitless.cloud.transform.model import STAGE_ID, LiveState, of_type
from hitless.cloud.transform.updates import contract, expand
from hitless.cloud.transition import plan
from hitless.errors import ServiceFileError
from hitless.service.model import AlarmSettings, Hooks
from hitless.service.strategy import parse
from tests.unit.release_support import NAMES, RememberedStack, packaged, release, sha256
from tests.unit.transitions import BASE, table

pytestmark = pytest.mark.unit

COMPILED = packaged().template


def first(**changed: Any) -> dict[str, Any]:
    """The resources of a first release in its final state."""
    return dict(contract(desired(COMPILED, release(**changed)), LiveState(), {})["Resources"])


def test_api_gateway_calls_functions_only_by_an_alias() -> None:
    resources = first()
    aliases = of_type(resources, "AWS::Lambda::Alias")
    assert len(aliases) == len(NAMES)
    for method in of_type(resources, "AWS::ApiGateway::Method").values():
        uri = method["Properties"]["Integration"]["Uri"]["Fn::Join"][1]
        assert [part["Ref"] for part in uri if isinstance(part, dict) and part.get("Ref") in aliases]
        assert "LambdaFunction" not in json.dumps(uri)
    for permission in of_type(resources, "AWS::Lambda::Permission").values():
        assert permission["Properties"]["FunctionName"]["Ref"] in aliases


def test_api_gateway_calls_an_authorizer_by_its_alias() -> None:
    compiled = copy.deepcopy(COMPILED)
    arn = {"Fn::GetAtt": ["MetaLambdaFunction", "Arn"]}
    compiled["Resources"]["CheckAuthorizer"] = {
        "Type": "AWS::ApiGateway::Authorizer",
        "Properties": {"AuthorizerUri": {"Fn::Join": ["", ["arn:…/functions/", arn, "/invocations"]]}},
    }
    resources = desired(compiled, release())["Resources"]
    assert {"Ref": "MetaAliasLive"} in resources["CheckAuthorizer"]["Properties"]["AuthorizerUri"]["Fn::Join"][1]


def test_the_first_update_of_the_first_release_has_no_stage() -> None:
    wanted = desired(COMPILED, release(domain="api.example.com"))
    expanded, final = expand(wanted, LiveState()), contract(wanted, LiveState(), {})
    assert STAGE_ID not in expanded["Resources"]
    assert not of_type(expanded["Resources"], "AWS::ApiGateway::Deployment")
    assert not of_type(expanded["Resources"], "AWS::ApiGateway::BasePathMapping")
    assert of_type(final["Resources"], "AWS::ApiGateway::BasePathMapping")
    assert final["Resources"][STAGE_ID]["Properties"]["StageName"] == "prod"


def test_a_base_path_is_mapped_below_the_domain() -> None:
    """CloudFormation, AWS::ApiGateway::BasePathMapping: "The base path name that callers of the API must provide as
    part of the URL after the domain name." An update of it requires replacement, so each has a name of its own.
    """
    root, below = (desired(COMPILED, release(domain="api.example.com", base_path=path)) for path in ("", "/v1"))
    (plain,), (mapped,) = (
        of_type(one["Resources"], "AWS::ApiGateway::BasePathMapping").items() for one in (root, below)
    )
    assert "BasePath" not in plain[1]["Properties"]
    assert mapped[1]["Properties"]["BasePath"] == "v1"
    assert plain[0] != mapped[0]
    assert below["Outputs"]["ApiUrl"]["Value"] == "https://api.example.com/v1"


def test_the_stage_depends_on_every_permission_and_the_deployment_on_every_method() -> None:
    resources = first()
    (deployment,) = of_type(resources, "AWS::ApiGateway::Deployment").values()
    assert set(of_type(resources, "AWS::ApiGateway::Method")) <= set(deployment["DependsOn"])
    assert set(of_type(resources, "AWS::Lambda::Permission")) <= set(resources[STAGE_ID]["DependsOn"])
    assert "StageName" not in deployment["Properties"]


def test_the_deployments_logical_id_depends_only_on_the_api() -> None:
    def name(compiled: dict[str, Any], **changed: Any) -> str:
        (found,) = of_type(desired(compiled, release(**changed))["Resources"], "AWS::ApiGateway::Deployment")
        return found

    other = copy.deepcopy(COMPILED)
    other["Resources"]["ApiGatewayMethodHealthGet"]["Properties"]["ApiKeyRequired"] = True
    assert name(COMPILED) == name(COMPILED, number=7, code={"zones": "b"})
    assert name(COMPILED) != name(other)


def test_a_version_asserts_its_artifacts_digest_and_is_retained_when_removed() -> None:
    for version in of_type(first(), "AWS::Lambda::Version").values():
        assert version["Properties"]["CodeSha256"] == base64.b64encode(bytes.fromhex(sha256("a"))).decode()
        assert version["DeletionPolicy"] == "RetainExceptOnCreate"


def test_functions_run_in_the_private_subnets_unless_they_set_their_own() -> None:
    compiled = copy.deepcopy(COMPILED)
    compiled["Resources"]["MetaLambdaFunction"]["Properties"]["VpcConfig"] = {"SubnetIds": ["subnet-own"]}
    resources = desired(compiled, release())["Resources"]
    assert len(resources["ZonesLambdaFunction"]["Properties"]["VpcConfig"]["SubnetIds"]) == 2
    assert resources["MetaLambdaFunction"]["Properties"]["VpcConfig"] == {"SubnetIds": ["subnet-own"]}


def test_each_function_has_its_own_role_which_writes_only_to_its_own_log_group() -> None:
    resources = first()
    assert "IamRoleLambdaExecution" not in resources
    for base, name in (("Zones", "zones"), ("Meta", "meta")):
        assert resources[f"{base}LambdaFunction"]["Properties"]["Role"] == {"Fn::GetAtt": [f"{base}Role", "Arn"]}
        (policy,) = resources[f"{base}Role"]["Properties"]["Policies"]
        logs = policy["PolicyDocument"]["Statement"][0]
        assert logs["Resource"]["Fn::Sub"].endswith(f":log-group:/aws/lambda/worldclock-prod-{name}:*")
        assert "*" not in "".join(logs["Action"])


def with_statement(action: str) -> dict[str, Any]:
    compiled = copy.deepcopy(COMPILED)
    (policy,) = compiled["Resources"]["IamRoleLambdaExecution"]["Properties"]["Policies"]
    policy["PolicyDocument"]["Statement"].append({"Effect": "Allow", "Action": [action], "Resource": "*"})
    return compiled


def actions(role: dict[str, Any]) -> set[str]:
    return {
        action
        for policy in role["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in statement["Action"]
        if action.startswith("dynamodb:")
    }


def test_new_permissions_are_added_before_use_and_old_ones_removed_one_release_later() -> None:
    stack = RememberedStack()
    stack.ship(with_statement("dynamodb:GetItem"), release(1))
    stack.ship(with_statement("dynamodb:Query"), release(2, {"zones": "b"}))
    expanded, contracted = stack.log[-2:]
    assert actions(expanded["Resources"]["ZonesRole"]) == {"dynamodb:GetItem", "dynamodb:Query"}
    assert actions(contracted["Resources"]["ZonesRole"]) == {"dynamodb:GetItem", "dynamodb:Query"}, "for a roll-back"
    stack.ship(with_statement("dynamodb:Query"), release(3, {"zones": "c"}))
    assert actions(stack.live.resources["ZonesRole"]) == {"dynamodb:Query"}


def test_each_release_gets_a_new_alarm_that_reads_only_its_version() -> None:
    stack = RememberedStack()
    stack.ship(COMPILED, release(1))
    stack.ship(COMPILED, release(2, {"zones": "b"}))
    group = stack.live.resources["ZonesDeploymentGroup"]["Properties"]["AlarmConfiguration"]
    (alarm,) = (each["Name"]["Ref"] for each in group["Alarms"])
    assert alarm not in stack.log[1]["Resources"]
    properties = stack.live.resources[alarm]["Properties"]
    assert "AlarmName" not in properties
    metric = properties["Metrics"][1]["MetricStat"]["Metric"]
    named = {each["Name"]: each["Value"] for each in metric["Dimensions"]}
    assert named["ExecutedVersion"] == {"Fn::GetAtt": [alarm.replace("Alarm", "Version"), "Version"]}
    assert named["Resource"] == "worldclock-prod-zones:live"
    assert properties["Metrics"][0]["Expression"].startswith("IF(FILL(n,0)>=20,IF(b>0,")


def test_a_latency_alarm_exists_only_if_the_stage_sets_a_limit() -> None:
    assert not [name for name in first() if "SlowAlarm" in name]
    resources = first(alarms=AlarmSettings(p99_ms=250, minimum_requests=30))
    group = resources["ZonesDeploymentGroup"]["Properties"]["AlarmConfiguration"]
    failing, slow = (each["Name"]["Ref"] for each in group["Alarms"])
    properties = resources[slow]["Properties"]
    assert properties["Threshold"] == 250
    assert properties["Metrics"][0]["Expression"] == "IF(FILL(n,0)>=30,FILL(d,0),0)"
    stat = properties["Metrics"][1]["MetricStat"]
    assert (stat["Metric"]["MetricName"], stat["Stat"]) == ("Duration", "p99")
    assert (
        stat["Metric"]["Dimensions"]
        == resources[failing]["Properties"]["Metrics"][1]["MetricStat"]["Metric"]["Dimensions"]
    )


def statements(role: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for policy in role["Properties"]["Policies"] for one in policy["PolicyDocument"]["Statement"]]


def test_a_hook_may_call_codedeploy_which_may_invoke_only_hooks() -> None:
    resources = first(hooks=Hooks(pre_traffic="meta"))
    answers = "codedeploy:PutLifecycleEventHookExecutionStatus"
    granted = {action: one["Resource"] for one in statements(resources["MetaRole"]) for action in one["Action"]}
    assert granted[answers] == "*", "the action knows no resource in IAM: on one it is denied"
    assert granted["codedeploy:GetDeployment"]["Fn::Sub"].endswith(":deploymentgroup:worldclock-prod/*")
    assert answers not in str(resources["ZonesRole"])
    (asks,) = (one for one in statements(resources["CodeDeployRole"]) if "lambda:InvokeFunction" in one["Action"])
    assert asks["Resource"] == [{"Fn::GetAtt": ["MetaLambdaFunction", "Arn"]}]
    assert "lambda:InvokeFunction" not in str(first()["CodeDeployRole"])


def test_codedeploy_can_assume_its_role_only_for_this_application() -> None:
    (trust,) = first()["CodeDeployRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    assert trust["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"].endswith(":deploymentgroup:worldclock-prod/*")


def test_a_hook_function_gets_versions_but_no_deployment_group() -> None:
    resources = first(hooks=Hooks(post_traffic="meta"))
    assert "MetaAliasLive" in resources
    assert "MetaDeploymentGroup" not in resources
    assert not [name for name in resources if name.startswith("MetaAlarm")]
    assert {"Fn::GetAtt": ["MetaLambdaFunction", "Arn"]} not in statements(resources["CodeDeployRole"])[0]["Resource"]
    assert "ZonesDeploymentGroup" in resources


@pytest.mark.parametrize(
    ("asked", "shipped"),
    [
        ("Canary10Percent30Seconds", "Canary10Percent1Minute"),
        ("Linear10PercentEvery90Seconds", "Linear10PercentEvery2Minutes"),
        ("AllAtOnce", "AllAtOnce"),
    ],
)
def test_a_strategys_seconds_are_rounded_up_to_whole_minutes_on_aws(asked: str, shipped: str) -> None:
    assert str(whole_minutes(parse(asked))) == shipped


def test_a_strategy_unknown_to_codedeploy_gets_its_own_deployment_configuration() -> None:
    resources = first(strategy=parse("Canary5Percent2Minutes"))
    made = resources["CodeDeployConfigCanary5Percent2Minutes"]["Properties"]
    assert made["TrafficRoutingConfig"]["TimeBasedCanary"] == {"CanaryPercentage": 5, "CanaryInterval": 2}
    group = resources["ZonesDeploymentGroup"]["Properties"]
    assert group["DeploymentConfigName"] == {"Ref": "CodeDeployConfigCanary5Percent2Minutes"}
    known = first()["ZonesDeploymentGroup"]["Properties"]["DeploymentConfigName"]
    assert known == "CodeDeployDefault.LambdaCanary10Percent5Minutes"


def test_a_renamed_path_parameter_is_removed_before_the_new_one_is_added() -> None:
    stack = RememberedStack()
    stack.ship(COMPILED, release(1))
    text = json.dumps(COMPILED).replace("{zone+}", "{name+}").replace("ZonesZoneVar", "ZonesNameVar")
    stack.ship(json.loads(text), release(2))
    cleared, expanded, contracted = stack.log[-3:]
    assert "ApiGatewayResourceZonesZoneVar" not in cleared["Resources"]
    assert "ApiGatewayMethodZonesZoneVarGet" not in cleared["Resources"]
    assert "ApiGatewayResourceZonesNameVar" in expanded["Resources"]
    assert cleared["Resources"][STAGE_ID] == stack.log[1]["Resources"][STAGE_ID], "the old picture serves on"
    assert contracted["Resources"][STAGE_ID] != cleared["Resources"][STAGE_ID]


def refused(compiled: dict[str, Any], **changed: Any) -> str:
    with pytest.raises(ServiceFileError) as caught:
        desired(compiled, release(**changed))
    return caught.value.message


def test_a_function_name_over_64_characters_is_refused() -> None:
    compiled, long = copy.deepcopy(COMPILED), "worldclock-prod-" + "z" * 60
    compiled["Resources"]["ZonesLambdaFunction"]["Properties"]["FunctionName"] = long
    names = {**packaged().function_names, long: "zones"}
    assert "76 characters, over 64" in refused(compiled, function_names=names)


def test_a_package_over_lambdas_limit_is_refused() -> None:
    code = {name: replace(one, unpacked_bytes=300_000_000) for name, one in release().code.items()}
    with pytest.raises(ServiceFileError, match="300 MB, over Lambda's 262 MB"):
        desired(COMPILED, replace(release(), code=code))


def test_a_layer_built_by_the_service_is_refused() -> None:
    compiled = copy.deepcopy(COMPILED)
    compiled["Resources"]["CommonLambdaLayer"] = {"Type": "AWS::Lambda::LayerVersion", "Properties": {}}
    assert "layers" in refused(compiled)


def test_a_changed_setting_publishes_a_version_but_a_changed_tag_does_not() -> None:
    def version(**properties: Any) -> str:
        compiled = copy.deepcopy(COMPILED)
        compiled["Resources"]["ZonesLambdaFunction"]["Properties"] |= properties
        names = of_type(desired(compiled, release())["Resources"], "AWS::Lambda::Version")
        return next(name for name in names if name.startswith("Zones"))

    assert version() == version(Tags=[{"Key": "team", "Value": "time"}])
    assert version() == version(ReservedConcurrentExecutions=5)
    assert version() != version(Timeout=9)


def test_the_old_permission_is_kept_beside_a_changed_one_until_the_next_release() -> None:
    stack = RememberedStack()
    stack.ship(COMPILED, release(1))
    (old,) = (name for name in of_type(stack.live.resources, "AWS::Lambda::Permission") if name.startswith("Meta"))
    compiled = copy.deepcopy(COMPILED)
    compiled["Resources"]["MetaLambdaPermissionApiGateway"]["Properties"]["SourceAccount"] = {"Ref": "AWS::AccountId"}
    stack.ship(compiled, release(2))
    expanded, contracted = stack.log[-2:]
    for template in (expanded, contracted):
        kept = [name for name in of_type(template["Resources"], "AWS::Lambda::Permission") if name.startswith("Meta")]
        assert len(kept) == 2
        assert old in kept
    stack.ship(compiled, release(3))
    assert old not in stack.live.resources


def test_a_property_called_depends_on_may_contain_objects() -> None:
    """For example a container's in an ECS task definition. CloudFormation's own DependsOn contains only names."""
    containers = [{"Name": "web", "DependsOn": [{"ContainerName": "proxy", "Condition": "START"}]}, {"Name": "proxy"}]
    task = {"Type": "AWS::ECS::TaskDefinition", "Properties": {"ContainerDefinitions": containers}}
    definition = replace(BASE, resources={"Task": {**task, "DependsOn": "Items"}, "Items": table()})
    first = plan(LiveState(), desired(definition.compiled(), definition.release(1)))
    made = first.contract({})["Resources"]["Task"]
    assert (made["Properties"]["ContainerDefinitions"], made["DependsOn"]) == (containers, ["Items"])
