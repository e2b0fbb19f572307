"""Which IAM action a request is: service, operation, resources and caller. Pure, by botocore's service models.

The names of IAM actions and the resources they are checked against follow AWS' Service Authorization Reference; only
those services are told apart that hitless calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, unquote

import botocore.loaders

ACCOUNT: Final = "000000000000"
_CREDENTIAL: Final = re.compile(r"Credential=([^/,\s]+)/(\d{8})/([^/,\s]+)/([^/,\s]+)/aws4_request")
_MODELS: Final[Mapping[str, str]] = {"monitoring": "cloudwatch", "codestar-connections": "codestar-connections"}
_IAM_PREFIX: Final[Mapping[str, str]] = {"monitoring": "cloudwatch", "tagging": "tag"}
_REST: Final = frozenset({"apigateway", "lambda", "route53", "s3", "xray"})
_IAM_ACTIONS: Final[Mapping[str, str]] = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:CopyObject": "s3:PutObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:UploadPart": "s3:PutObject",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What the front reads of an HTTP request to AWS. `path` is as sent, still encoded."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def scope(self) -> tuple[str, str, str] | None:
        """Access key, region and service of the signature, in the header or in a presigned URL; None for API calls."""
        found = _CREDENTIAL.search(self.headers.get("authorization", ""))
        if found:
            return found[1], found[3], found[4]
        signed = parse_qs(self.query).get("X-Amz-Credential")
        parts = signed[0].split("/") if signed else []
        return (parts[0], parts[2], parts[3]) if len(parts) == 5 else None


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call. `principal` is the ARN of the role whose session signed it, else the access key."""

    action: str
    resources: tuple[str, ...]
    principal: str
    region: str
    status: int = 0
    parameters: Mapping[str, str] = field(default_factory=dict, compare=False, hash=False)
    context: Mapping[str, str] = field(default_factory=dict, compare=False, hash=False)

    @property
    def service(self) -> str:
        return self.action.partition(":")[0]

    @property
    def operation(self) -> str:
        return self.action.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation by its name in the API, which IAM's name may differ from."""

    service: str
    name: str
    parameters: Mapping[str, str]


@cache
def _routes(service: str) -> tuple[tuple[str, re.Pattern[str], frozenset[tuple[str, str]], str], ...]:
    """(method, path pattern, required query, operation) of a service of the REST protocols."""
    model: dict[str, Any] = botocore.loaders.Loader().load_service_model(_MODELS.get(service, service), "service-2")
    routes = []
    for name, operation in model["operations"].items():
        http = operation["http"]
        path, _, query = http["requestUri"].partition("?")
        pattern = re.sub(r"\\\{(\w+)\\\+\\\}", r"(?P<\1>.+)", re.escape(path))
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", pattern)
        required = frozenset(parse_qsl(query, keep_blank_values=True))
        routes.append((http["method"], re.compile(pattern.rstrip("/") + "/?"), required, name))
    return tuple(sorted(routes, key=lambda route: (-len(route[2]), route[1].groups, -len(route[1].pattern))))


def operation_of(request: Request) -> Operation | None:
    """None if it is not a request of an AWS client."""
    scope = request.scope
    if scope is None:
        return None
    service = scope[2]
    target = request.headers.get("x-amz-target")
    if target:
        return Operation(service, target.rpartition(".")[2], _flat(_json(request.body)))
    cbor = re.fullmatch(r"/service/[^/]+/operation/(\w+)", request.path)
    if cbor:
        return Operation(service, cbor[1], {})
    if service in _REST:
        return _rest_operation(service, request)
    form = dict(parse_qsl(request.body.decode("utf-8", "replace"))) | dict(parse_qsl(request.query))
    return Operation(service, form["Action"], form) if "Action" in form else None


def _rest_operation(service: str, request: Request) -> Operation | None:
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    for method, pattern, required, name in _routes(service):
        if method != request.method or not required <= set(query.items()):
            continue
        found = pattern.fullmatch(request.path)
        if found:
            labels = {key: unquote(value) for key, value in found.groupdict().items()}
            return Operation(service, name, labels | {k: v for k, v in query.items() if not k.startswith("X-Amz-")})
    return None


def call_of(request: Request, operation: Operation, *, principal: str, status: int) -> Call:
    """The record of a request that got a response with `status`."""
    scope = request.scope
    region = scope[1] if scope else "us-east-1"
    prefix = _IAM_PREFIX.get(operation.service, operation.service)
    action = _IAM_ACTIONS.get(f"{prefix}:{operation.name}", f"{prefix}:{operation.name}")
    resources = _resources(operation, region)
    if prefix == "apigateway":
        action = f"apigateway:{request.method}"
        resources = (f"arn:aws:apigateway:{region}::{unquote(request.path)}",)
    context = {}
    if action == "lambda:AddPermission":
        context["lambda:Principal"] = str(_json(request.body).get("Principal"))
    if action == "events:PutEvents":
        (entry,) = _json(request.body)["Entries"]
        context = {"events:source": entry["Source"], "events:detail-type": entry["DetailType"]}
    if action == "s3:ListBucket" and "prefix" in operation.parameters:
        context["s3:prefix"] = operation.parameters["prefix"]
    return Call(action, resources, principal, region, status, operation.parameters, context)


def implied_calls(operation: Operation, region: str, principal: str) -> tuple[Call, ...]:
    """What IAM checks beside the call itself: the role that is passed on; the tags of a stack; CodeDeploy's revision
    and configuration (CodeDeploy permissions reference, CreateDeployment).
    """
    given = operation.parameters

    def call(action: str, resource: str, **context: str) -> Call:
        return Call(action, (resource,), principal, region, 200, {}, context)

    found: list[Call] = []
    if operation.service == "cloudformation" and "RoleARN" in given:
        found.append(call("iam:PassRole", given["RoleARN"], **{"iam:PassedToService": "cloudformation.amazonaws.com"}))
    if operation.service == "cloudformation" and "Tags.member.1.Key" in given:
        found.append(call("cloudformation:TagResource", _resources(operation, region)[0]))
    if operation.service == "codedeploy" and operation.name == "CreateDeployment":
        arn = f"arn:aws:codedeploy:{region}:{ACCOUNT}:"
        application = f"{arn}application:{given['applicationName']}"
        found += [
            call("codedeploy:RegisterApplicationRevision", application),
            call("codedeploy:GetApplicationRevision", application),
        ]
        if "deploymentConfigName" in given:
            found.append(
                call("codedeploy:GetDeploymentConfig", f"{arn}deploymentconfig:{given['deploymentConfigName']}")
            )
    return tuple(found)


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _flat(document: Mapping[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in document.items()}


def _resources(operation: Operation, region: str) -> tuple[str, ...]:
    """ARNs that IAM checks, ("*",) for actions without resources and where telling them apart shows nothing."""
    given = operation.parameters
    arn = f"arn:aws:{operation.service}:{region}:{ACCOUNT}:"
    match operation.service:
        case "lambda" if "FunctionName" in given:
            name = unquote(given["FunctionName"])
            full = name if name.startswith("arn:") else f"{arn}function:{name}"
            return (f"{full}:{given['Qualifier']}" if "Qualifier" in given else full,)
        case "s3" if "Bucket" in given:
            key = given.get("Key")
            return (f"arn:aws:s3:::{given['Bucket']}" + (f"/{key}" if key else ""),)
        case "cloudformation" if "StackName" in given:
            name = given["StackName"]
            return (name if name.startswith("arn:") else f"{arn}stack/{name}/00000000-0000-0000-0000-000000000000",)
        case "codedeploy":
            return _codedeploy_resources(given, arn)
        case "sts" if "RoleArn" in given:
            return (given["RoleArn"],)
        case "iam":
            return _iam_resources(given)
        case "events" if operation.name == "PutEvents":
            return (f"{arn}event-bus/default",)
        case "logs" if "logGroupName" in given:
            return (f"{arn}log-group:{given['logGroupName']}:*",)
        case "ssm" if "Name" in given:
            return (f"{arn}parameter/{given['Name'].lstrip('/')}",)
        case "codeconnections" | "codestar-connections" if "ConnectionArn" in given:
            return (given["ConnectionArn"],)
        case "codepipeline" if "name" in given or "pipelineName" in given:
            return (arn + given.get("name", given.get("pipelineName", "")),)
        case "kms" if "KeyId" in given:
            key = given["KeyId"]
            return (key if key.startswith("arn:") else f"{arn}key/{key}",)
    return ("*",)


def _codedeploy_resources(given: Mapping[str, str], arn: str) -> tuple[str, ...]:
    application, group = given.get("applicationName"), given.get("deploymentGroupName")
    if application and group:
        return (f"{arn}deploymentgroup:{application}/{group}",)
    if application:
        return (f"{arn}application:{application}",)
    if "deploymentConfigName" in given:
        return (f"{arn}deploymentconfig:{given['deploymentConfigName']}",)
    return ("*",)


def _iam_resources(given: Mapping[str, str]) -> tuple[str, ...]:
    for key, kind in (("RoleName", "role"), ("UserName", "user"), ("PolicyArn", "")):
        if key in given:
            return (given[key] if not kind else f"arn:aws:iam::{ACCOUNT}:{kind}/{given[key]}",)
    return ("*",)


def decoded_body(request: Request) -> dict[str, Any]:
    """The JSON of a request of the JSON protocols."""
    return dict(_json(request.body))
