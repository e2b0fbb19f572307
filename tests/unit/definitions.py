"""Definitions of a service as data: the content of serverless.yml, and the template that `osls package` compiles.

The compiled template is written here so that a test can make thousands; tests/aws/test_definitions.py holds a sample
of them against a real osls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hitless.cloud.transform.model import Code, ReleaseInput, copied
from hitless.service.model import Hooks
from hitless.service.strategy import parse

SERVICE, STAGE, REGION = "demo", "prod", "eu-central-1"
API = {"Ref": "ApiGatewayRestApi"}
LAMBDA_TRUST = {"Effect": "Allow", "Principal": {"Service": ["lambda.amazonaws.com"]}, "Action": ["sts:AssumeRole"]}


@dataclass(frozen=True)
class Route:
    """An http event. `authorizer` is the key of a function."""

    method: str
    path: str
    authorizer: str | None = None
    ttl_s: int = 300
    private: bool = False
    schema: str | None = None
    """The type of the JSON that the body has to be."""

    def event(self) -> dict[str, Any]:
        http: dict[str, Any] = {"method": self.method.lower(), "path": self.path}
        if self.authorizer:
            http["authorizer"] = {"name": self.authorizer, "type": "request", "resultTtlInSeconds": self.ttl_s}
        if self.private:
            http["private"] = True
        if self.schema:
            http["request"] = {"schemas": {"application/json": {"type": self.schema}}}
        return {"http": http}


@dataclass(frozen=True)
class Function:
    """`letter` stands for its bytes; `properties` are Lambda's: MemorySize, VpcConfig, Environment …"""

    routes: tuple[Route, ...] = ()
    letter: str = "a"
    name: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    schedule: str | None = None


@dataclass(frozen=True)
class Definition:
    """A service. `keys` are API keys (name, value or None); `policies` the statements of the shared role."""

    functions: Mapping[str, Function]
    policies: tuple[dict[str, Any], ...] = ()
    managed: tuple[str, ...] = ()
    path: str | None = None
    keys: tuple[tuple[str, str | None], ...] = ()
    quota: int = 100
    api: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    strategy: str = "Canary10Percent5Minutes"
    domain: str = ""
    boundary: str = ""
    pre_traffic: str | None = None

    def release(self, number: int) -> ReleaseInput:
        """Release `number` of the definition."""
        codes = {key: one.letter * 64 for key, one in self.functions.items()}
        return ReleaseInput(
            service=SERVICE,
            stage=STAGE,
            code={key: Code(digest, f"artifacts/{digest}.zip", 4000) for key, digest in codes.items()},
            function_names={lambda_name(key, one): key for key, one in self.functions.items()},
            bucket="artifact-bucket",
            strategy=parse(self.strategy),
            number=number,
            previous=number - 1 or None,
            commit=f"commit-{number}",
            domain=self.domain,
            permissions_boundary=self.boundary,
            hooks=Hooks(pre_traffic=self.pre_traffic),
        )

    def document(self) -> dict[str, Any]:
        """Its serverless.yml."""
        role: dict[str, Any] = {"statements": copied(list(self.policies)), "managedPolicies": list(self.managed)}
        if self.path:
            role["path"] = self.path
        provider: dict[str, Any] = {
            "name": "aws", "runtime": "python3.11", "stage": STAGE, "region": REGION, "iam": {"role": role},
        }  # fmt: skip
        if self.keys:
            keys: list[Any] = [{"name": name, "value": value} if value else name for name, value in self.keys]
            provider["apiGateway"] = {
                "apiKeys": keys, "usagePlan": {"quota": {"limit": self.quota, "period": "MONTH"}},
            }  # fmt: skip
        functions: dict[str, Any] = {}
        for key, one in self.functions.items():
            said = functions[key] = {"handler": "app.handler"}
            events: list[dict[str, Any]] = [route.event() for route in one.routes]
            events += [{"schedule": one.schedule}] if one.schedule else []
            said |= {"events": events} if events else {}
            said |= {"name": one.name} if one.name else {}
            said |= _settings(one.properties)
        resources: dict[str, Any] = {"Resources": copied(dict(self.resources))}
        if self.conditions:
            resources["Conditions"] = copied(dict(self.conditions))
        return {
            "service": SERVICE, "frameworkVersion": "4", "provider": provider, "package": {"artifact": "empty.zip"},
            "functions": functions, "resources": resources,
        }  # fmt: skip

    def compiled(self) -> dict[str, Any]:
        """The template that osls 4.3 compiles of it."""
        resources: dict[str, Any] = {"IamRoleLambdaExecution": self._role()}
        for key, one in self.functions.items():
            resources |= _function(key, one)
        if any(one.routes for one in self.functions.values()):
            resources |= self._api()
        own = copied(dict(self.resources))
        template: dict[str, Any] = {"Resources": resources | own, "Outputs": {}}
        if self.conditions:
            template["Conditions"] = copied(dict(self.conditions))
        for change, value in self.api.items():
            template["Resources"]["ApiGatewayRestApi"]["Properties"][change] = value
        return template

    def _role(self) -> dict[str, Any]:
        keys = [one.properties["KmsKeyArn"] for one in self.functions.values() if "KmsKeyArn" in one.properties]
        # osls grants what is written as an ARN alone
        decrypts = [
            {"Effect": "Allow", "Action": ["kms:Decrypt"], "Resource": [key]} for key in keys if isinstance(key, str)
        ]
        policy = {"PolicyName": "demo-prod-lambda", "PolicyDocument": _document([*self.policies, *decrypts])}
        properties: dict[str, Any] = {
            "AssumeRolePolicyDocument": _document([LAMBDA_TRUST]),
            "Policies": [policy],
            "Path": self.path or "/",
            "RoleName": {"Fn::Join": ["-", ["demo", "prod", {"Ref": "AWS::Region"}, "lambdaRole"]]},
        }
        if self.managed:
            properties["ManagedPolicyArns"] = list(self.managed)
        return {"Type": "AWS::IAM::Role", "Properties": copied(properties)}

    def _api(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "ApiGatewayRestApi": {
                "Type": "AWS::ApiGateway::RestApi",
                "Properties": {
                    "Name": "prod-demo",
                    "EndpointConfiguration": {"Types": ["EDGE"]},
                    "Policy": "",
                },
            }
        }
        methods: list[str] = []
        for key, one in self.functions.items():
            for route in one.routes:
                made |= _paths(route.path)
                made |= _route(key, route)
                methods.append(_method_id(route))
        deployment = "ApiGatewayDeployment1795562478305"
        made[deployment] = {
            "Type": "AWS::ApiGateway::Deployment",
            "Properties": {"RestApiId": API, "StageName": STAGE},
            "DependsOn": methods,
        }
        made |= self._api_keys(deployment) if self.keys else {}
        called = {key: lambda_id(key) for key, one in self.functions.items() if one.routes}
        called |= {
            route.authorizer: lambda_id(route.authorizer)
            for one in self.functions.values()
            for route in one.routes
            if route.authorizer
        }
        return made | {f"{normal(key)}LambdaPermissionApiGateway": _permission(name) for key, name in called.items()}

    def _api_keys(self, deployment: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for at, (name, value) in enumerate(self.keys, 1):
            properties: dict[str, Any] = {
                "Enabled": True, "Name": name, "StageKeys": [{"RestApiId": API, "StageName": STAGE}],
            }  # fmt: skip
            if value:
                properties["Value"] = value
            made[f"ApiGatewayApiKey{at}"] = {
                "Type": "AWS::ApiGateway::ApiKey", "Properties": properties, "DependsOn": deployment,
            }  # fmt: skip
            made[f"ApiGatewayUsagePlanKey{at}"] = {
                "Type": "AWS::ApiGateway::UsagePlanKey",
                "Properties": {
                    "KeyId": {"Ref": f"ApiGatewayApiKey{at}"},
                    "KeyType": "API_KEY",
                    "UsagePlanId": {"Ref": "ApiGatewayUsagePlan"},
                },
            }
        made["ApiGatewayUsagePlan"] = {
            "Type": "AWS::ApiGateway::UsagePlan",
            "DependsOn": deployment,
            "Properties": {
                "ApiStages": [{"ApiId": API, "Stage": STAGE}],
                "Description": "Usage plan for demo prod stage",
                "UsagePlanName": "demo-prod",
                "Quota": {"Limit": self.quota, "Period": "MONTH"},
            },
        }
        return made


def normal(key: str) -> str:
    """osls's part of a logical id for a function's key."""
    made = key.replace("-", "Dash").replace("_", "Underscore")
    return made[0].upper() + made[1:]


def lambda_id(key: str) -> str:
    return f"{normal(key)}LambdaFunction"


def lambda_name(key: str, one: Function) -> str:
    return one.name or f"{SERVICE}-{STAGE}-{key}"


def _settings(properties: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "MemorySize": "memorySize", "Timeout": "timeout", "ReservedConcurrentExecutions": "reservedConcurrency",
        "Role": "role", "KmsKeyArn": "kmsKeyArn", "Description": "description", "Runtime": "runtime",
        "Layers": "layers",
    }  # fmt: skip
    made = {names[key]: value for key, value in properties.items() if key in names}
    if "Role" in made:
        made["role"] = made["role"]["Fn::GetAtt"][0]
    if "Environment" in properties:
        made["environment"] = properties["Environment"]["Variables"]
    if "Tags" in properties:
        made["tags"] = {tag["Key"]: tag["Value"] for tag in properties["Tags"]}
    if "Architectures" in properties:
        made["architecture"] = properties["Architectures"][0]
    if "VpcConfig" in properties:
        vpc = properties["VpcConfig"]
        made["vpc"] = {"securityGroupIds": vpc["SecurityGroupIds"], "subnetIds": vpc["SubnetIds"]}
    return copied(made)


def _document(statements: list[Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": copied(statements)}


def _function(key: str, one: Function) -> dict[str, Any]:
    base, name = normal(key), lambda_name(key, one)
    role = {"Fn::GetAtt": ["IamRoleLambdaExecution", "Arn"]}
    properties: dict[str, Any] = {
        "Code": {"S3Bucket": {"Ref": "ServerlessDeploymentBucket"}, "S3Key": "empty.zip"},
        "Handler": "app.handler", "Runtime": "python3.11", "FunctionName": name, "MemorySize": 1024, "Timeout": 6,
        "Role": role,
    }  # fmt: skip
    properties |= copied(dict(one.properties))
    depends = [f"{base}LogGroup"]
    if properties["Role"] != role:
        depends.append(properties["Role"]["Fn::GetAtt"][0])
    made: dict[str, Any] = {
        f"{base}LogGroup": {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {"LogGroupName": f"/aws/lambda/{name}"},
        },
        f"{base}LambdaFunction": {"Type": "AWS::Lambda::Function", "Properties": properties, "DependsOn": depends},
    }
    if one.schedule:
        rule, arn = f"{base}EventsRuleSchedule1", {"Fn::GetAtt": [lambda_id(key), "Arn"]}
        made[rule] = {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "ScheduleExpression": one.schedule, "State": "ENABLED",
                "Targets": [{"Arn": arn, "Id": f"{key}Schedule"}],
            },
        }  # fmt: skip
        made[f"{base}LambdaPermissionEventsRuleSchedule1"] = {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "FunctionName": arn, "Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com",
                "SourceArn": {"Fn::GetAtt": [rule, "Arn"]},
            },
        }  # fmt: skip
    return made


def _parts(path: str) -> list[str]:
    return [part for part in path.strip("/").split("/") if part]


def _normal_part(part: str) -> str:
    made = part.replace("-", "Dash").replace("_", "Underscore")
    made = re.sub(r"[^0-9A-Za-z]", "", re.sub(r"\{(.*)\}", r"\1Var", made))
    return made[0].upper() + made[1:]


def _resource_id(path: str) -> str:
    return "".join(_normal_part(part) for part in _parts(path))


def _resource(path: str) -> dict[str, Any]:
    if not _parts(path):
        return {"Fn::GetAtt": ["ApiGatewayRestApi", "RootResourceId"]}
    return {"Ref": f"ApiGatewayResource{_resource_id(path)}"}


def _paths(path: str) -> dict[str, Any]:
    parts = _parts(path)
    return {
        f"ApiGatewayResource{_resource_id('/'.join(parts[:end]))}": {
            "Type": "AWS::ApiGateway::Resource",
            "Properties": {
                "ParentId": _resource("/".join(parts[: end - 1])), "PathPart": parts[end - 1], "RestApiId": API,
            },
        }
        for end in range(1, len(parts) + 1)
    }  # fmt: skip


def _method_id(route: Route) -> str:
    return f"ApiGatewayMethod{_resource_id(route.path)}{route.method.capitalize()}"


def _uri(key: str) -> dict[str, Any]:
    parts = ["arn:", {"Ref": "AWS::Partition"}, ":apigateway:", {"Ref": "AWS::Region"},
             ":lambda:path/2015-03-31/functions/", {"Fn::GetAtt": [lambda_id(key), "Arn"]}, "/invocations"]  # fmt: skip
    return {"Fn::Join": ["", parts]}


def _route(key: str, route: Route) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "HttpMethod": route.method, "RequestParameters": {}, "ResourceId": _resource(route.path), "RestApiId": API,
        "ApiKeyRequired": route.private, "AuthorizationType": "NONE", "MethodResponses": [],
        "Integration": {"IntegrationHttpMethod": "POST", "Type": "AWS_PROXY", "Uri": _uri(key)},
    }  # fmt: skip
    made: dict[str, Any] = {}
    depends = f"{normal(key)}LambdaPermissionApiGateway"
    if route.authorizer:
        depends = f"{normal(route.authorizer)}ApiGatewayAuthorizer"
        properties |= {"AuthorizationType": "CUSTOM", "AuthorizerId": {"Ref": depends}}
        made[depends] = {
            "Type": "AWS::ApiGateway::Authorizer",
            "Properties": {
                "AuthorizerResultTtlInSeconds": route.ttl_s,
                **({"IdentitySource": "method.request.header.Authorization"} if route.ttl_s else {}),
                "Name": route.authorizer,
                "RestApiId": API,
                "AuthorizerUri": _uri(route.authorizer),
                "Type": "REQUEST",
            },
        }
    if route.schema:
        model, validator = f"{_method_id(route)}ApplicationJsonModel", "ApiGatewayDemoRequestValidator"
        properties |= {"RequestValidatorId": {"Ref": validator}, "RequestModels": {"application/json": {"Ref": model}}}
        made[model] = {
            "Type": "AWS::ApiGateway::Model",
            "Properties": {"RestApiId": API, "ContentType": "application/json", "Schema": {"type": route.schema}},
        }
        made[validator] = {
            "Type": "AWS::ApiGateway::RequestValidator",
            "Properties": {
                "RestApiId": API, "ValidateRequestBody": True, "ValidateRequestParameters": True,
                "Name": "demo-prod | Validate request body and querystring parameters",
            },
        }  # fmt: skip
    made[_method_id(route)] = {"Type": "AWS::ApiGateway::Method", "Properties": properties, "DependsOn": [depends]}
    return made


def _permission(function: str) -> dict[str, Any]:
    arn = ["arn:", {"Ref": "AWS::Partition"}, ":execute-api:", {"Ref": "AWS::Region"}, ":", {"Ref": "AWS::AccountId"},
           ":", API, "/*/*"]  # fmt: skip
    return {
        "Type": "AWS::Lambda::Permission",
        "Properties": {
            "FunctionName": {"Fn::GetAtt": [function, "Arn"]},
            "Action": "lambda:InvokeFunction",
            "Principal": "apigateway.amazonaws.com",
            "SourceArn": {"Fn::Join": ["", arn]},
        },
    }
