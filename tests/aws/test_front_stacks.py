"""A tiny stack through the front: deployed, served with a traffic split, shifted and removed."""

from __future__ import annotations

import io
import json
import urllib.request
import zipfile
from collections import Counter
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.aws.emulated import EmulatedAws
from tests.aws.tiny import API, STAGE
from tests.support import eventually
from tests.unit.transitions import table

pytestmark = pytest.mark.aws

INVOCATIONS = "2015-03-31/functions/${Alias}/invocations"
HANDLER = "def handler(event, context):\n    return {'statusCode': 200, 'body': 'VERSION'}\n"


def package(version: str, *, source: str = HANDLER) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", source.replace("VERSION", version))
    return buffer.getvalue()


TEMPLATE: dict[str, Any] = {
    "Resources": {
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": "lambda.amazonaws.com"},
                            "Action": "sts:AssumeRole",
                        }
                    ],
                }
            },
        },
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": "shop-dev-api",
                "Handler": "app.handler",
                "Runtime": "python3.11",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Code": {"S3Bucket": "artifacts", "S3Key": "one.zip"},
            },
        },
        "Version": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}},
        "Alias": {
            "Type": "AWS::Lambda::Alias",
            "Properties": {
                "Name": "live",
                "FunctionName": {"Ref": "Function"},
                "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]},
            },
        },
        "Permission": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "FunctionName": {"Ref": "Alias"},
                "Action": "lambda:InvokeFunction",
                "Principal": "apigateway.amazonaws.com",
            },
        },
        **API,
        "Get": {
            "Type": "AWS::ApiGateway::Method",
            "Properties": {
                "RestApiId": {"Ref": "Api"},
                "ResourceId": {"Ref": "Thing"},
                "HttpMethod": "GET",
                "AuthorizationType": "NONE",
                "Integration": {
                    "Type": "AWS_PROXY",
                    "IntegrationHttpMethod": "POST",
                    "Uri": {"Fn::Sub": f"arn:aws:apigateway:${{AWS::Region}}:lambda:path/{INVOCATIONS}"},
                },
            },
        },
        "Deployment": {
            "Type": "AWS::ApiGateway::Deployment",
            "DependsOn": "Get",
            "Properties": {"RestApiId": {"Ref": "Api"}},
        },
        "Stage": STAGE,
        "Shifting": {
            "Type": "AWS::CodeDeploy::Application",
            "Properties": {"ApplicationName": {"Fn::Sub": "${AWS::StackName}-app"}, "ComputePlatform": "Lambda"},
        },
        "Group": {
            "Type": "AWS::CodeDeploy::DeploymentGroup",
            "Properties": {
                "ApplicationName": {"Ref": "Shifting"},
                "DeploymentGroupName": "api",
                "ServiceRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                "DeploymentConfigName": "CodeDeployDefault.LambdaCanary10Percent5Minutes",
            },
        },
    },
    "Outputs": {
        "ApiId": {"Value": {"Ref": "Api"}},
        "Application": {"Value": {"Fn::Sub": "${Shifting}/${Group}"}},
    },
}


def deploy(aws: EmulatedAws) -> dict[str, str]:
    s3 = aws.session_client("s3")
    s3.create_bucket(Bucket="artifacts")
    s3.put_object(Bucket="artifacts", Key="one.zip", Body=package("one"))
    cloudformation = aws.session_client("cloudformation")
    cloudformation.create_stack(
        StackName="shop-dev", TemplateBody=json.dumps(TEMPLATE), Capabilities=["CAPABILITY_IAM"]
    )
    stack = eventually(
        lambda: next(
            one
            for one in cloudformation.describe_stacks(StackName="shop-dev")["Stacks"]
            if one["StackStatus"].endswith(("COMPLETE", "FAILED"))
        ),
        deadline_s=60,
    )
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def test_a_stack_with_emulated_types_shows_their_real_types_and_names(aws: EmulatedAws) -> None:
    outputs = deploy(aws)

    assert outputs["Application"] == "shop-dev-app/api"
    resources = aws.session_client("cloudformation").list_stack_resources(StackName="shop-dev")
    types = {one["LogicalResourceId"]: one["ResourceType"] for one in resources["StackResourceSummaries"]}
    assert types["Shifting"] == "AWS::CodeDeploy::Application"
    assert types["Alias"] == "AWS::Lambda::Alias"
    template = aws.session_client("cloudformation").get_template(StackName="shop-dev")["TemplateBody"]
    assert template["Resources"]["Group"]["Type"] == "AWS::CodeDeploy::DeploymentGroup"


def test_requests_are_split_by_alias_weight_and_a_canary_moves_the_alias_step_by_step(aws: EmulatedAws) -> None:
    outputs = deploy(aws)
    lambdas, codedeploy = aws.session_client("lambda"), aws.session_client("codedeploy")
    lambdas.update_function_code(FunctionName="shop-dev-api", ZipFile=package("two"))
    assert lambdas.publish_version(FunctionName="shop-dev-api")["Version"] == "2"
    url = aws.api_url(outputs["ApiId"], "dev") + "/thing"
    assert get(url) == "one"

    appspec = {
        "version": 0.0,
        "Resources": [
            {
                "api": {
                    "Type": "AWS::Lambda::Function",
                    "Properties": {
                        "Name": "shop-dev-api",
                        "Alias": "live",
                        "CurrentVersion": "1",
                        "TargetVersion": "2",
                    },
                }
            }
        ],
    }
    revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": json.dumps(appspec)}}
    with aws.front.codedeploy.held_bakes():
        started = codedeploy.create_deployment(
            applicationName="shop-dev-app", deploymentGroupName="api", revision=revision
        )["deploymentId"]
        eventually(lambda: aws.front.codedeploy.deployments[started].percent == 10, deadline_s=60)
        answers = Counter(get(url) for _ in range(100))
    assert set(answers) == {"one", "two"}
    assert answers["one"] > answers["two"]

    def ended() -> str:
        return str(codedeploy.get_deployment(deploymentId=started)["deploymentInfo"]["status"])

    eventually(lambda: ended() == "Succeeded", deadline_s=120)
    assert [percent for _, percent in aws.front.codedeploy.deployments[started].weights] == [10, 100]
    eventually(lambda: get(url) == "two", deadline_s=60)
    assert "codedeploy:CreateDeployment" in aws.front.actions()


def test_an_update_that_changes_two_indexes_of_a_table_is_refused(aws: EmulatedAws) -> None:
    cloudformation = aws.session_client("cloudformation")

    def send(*indexes: str) -> None:
        template = json.dumps({"Resources": {"Items": table(*indexes)}})
        begin = cloudformation.update_stack if sent else cloudformation.create_stack
        begin(StackName="tables", TemplateBody=template)
        sent.append(template)

        def status() -> bool:
            (stack,) = cloudformation.describe_stacks(StackName="tables")["Stacks"]
            return str(stack["StackStatus"]).endswith("_COMPLETE")

        eventually(status)

    sent: list[str] = []
    send("time", "place")
    with pytest.raises(ClientError, match="more than one GSI creation or deletion"):
        send()
    with pytest.raises(ClientError, match="more than one GSI creation or deletion"):
        send("time", "kind")
    send("time")
    send()
