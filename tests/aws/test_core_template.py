"""Checks our templates with strict linters, with every option; each suppression must be needed."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from hitless.aws.account import provider_arn
from hitless.aws.template import dump_template, load_template
from tests.aws.front.intrinsics import Resolver, without_conditions
from tests.aws.iam.reasons import BEYOND_THE_SCHEMAS

pytestmark = pytest.mark.aws

CFN_LINT = Path(sys.executable).with_name("cfn-lint")

REGIONS = ["us-east-1", "eu-central-1"]

_LEFT_BY_PRUNING = ("W2001", "W8001")
"""Parameters and conditions that nothing uses: a template with its conditions decided has some."""
_IGNORED_IN_THE_TEMPLATE = ("W6001",)
"""What its own Metadata leaves out, because options of the command replace those."""


_ROLE = "arn:aws:iam::210987654321:role/releases"
IDENTITIES: tuple[Mapping[str, str], ...] = (
    {"TrustedAccounts": "210987654321", "ExternalId": "release-7"},
    {
        "TrustedRoles": _ROLE,
        "TrustedRoleAccounts": "210987654321",
        "GitHubProviderArn": provider_arn("aws", "123456789012"),
        "GitHubRepository": "a/b",
        "Branch": "main",
    },
    {
        "Boundary": "arn:aws:iam::123456789012:policy/organisation",
        "TrustedAccounts": "333333333333",
        "TrustedRoles": _ROLE,
        "TrustedRoleAccounts": "210987654321",
        "ExternalId": "release-7",
        "GitHubProviderArn": provider_arn("aws", "123456789012"),
        "GitHubRepository": "a/b",
        "GitHubEnvironment": "production",
        "Readable": "arn:aws:ssm:us-east-1:123456789012:parameter/clock/dev/*",
        "Zones": "us-east-1a,us-east-1b,us-east-1c",
    },
)
"""Who may release: independent of the other conditions, so each of these is there once, the fullest last."""


NETWORKS: tuple[Mapping[str, str], ...] = (
    {"Network": "none", "MakeNetwork": "no"},
    {"Network": "none", "MakeNetwork": "yes", "Nat": "none"},
    {"Network": "stack", "MakeNetwork": "no", "NetworkStack": "clock-core-prod"},
    {
        "Network": "vpc",
        "MakeNetwork": "no",
        "NetworkVpcId": "vpc-0a1b2c3d",
        "NetworkSubnetIds": "subnet-0a1b2c3d,subnet-1a1b2c3d",
    },
)
"""Stages that use another network than their own."""

_DEPLOYS = "arn:aws:iam::123456789012:role/clock-core-staging-DeployRole"
FOLLOWING: tuple[Mapping[str, str], ...] = (
    {"Second": "staging", "SecondRoleArn": _DEPLOYS},
    {
        "Second": "staging",
        "SecondRoleArn": _DEPLOYS,
        "Third": "prod",
        "ThirdRoleArn": _DEPLOYS,
        "ThirdApproval": "manual",
    },
)
"""Pipelines that promote a release to further stages."""


SCANNED: Mapping[str, Mapping[str, str]] = {
    "core": {
        "Nat": "per-az", "DomainName": "api.example.com", "HostedZoneId": "Z1", "ExtraPolicyArns": "", **IDENTITIES[-1],
    },
    "pipeline": {
        "Connection": "ready", "ConnectionArn": "", "Tests": "run", "Rehearsal": "run", "Approval": "manual",
        "NotifyEmail": "team@example.com", "ExternalId": "release-7", **FOLLOWING[-1],
    },
}  # fmt: skip
"""Each template with all that it can hold; the security scanner reads it (test_release_templates.py)."""


def options(name: str, *, sample: bool) -> Iterator[Mapping[str, str]]:
    """Every combination of the parameters that a condition depends on; a sample holds each pair of their values."""
    choices: dict[str, tuple[str, ...]]
    if name == "core":
        choices = {
            "Nat": ("none", "single", "per-az"),
            "DomainName": ("", "api.example.com"),
            "HostedZoneId": ("Z1",),
            "ExtraPolicyArns": ("", "arn:aws:iam::aws:policy/AmazonDynamoDBFullAccess"),
        }
    else:
        choices = {
            "Connection": ("pending", "ready"),
            "ConnectionArn": ("", "arn:aws:codeconnections:us-east-1:123456789012:connection/a"),
            "Tests": ("run", "skip"),
            "Rehearsal": ("run",),  # without tests none is made: both ways are there
            "Approval": ("none", "manual"),
            "NotifyEmail": ("team@example.com",),  # one resource that nothing else refers to
        }
    known = load_template(name)["Parameters"]
    fixed = {each: values[-1] for each, values in choices.items()}
    identities = [{each: value for each, value in one.items() if each in known} for one in IDENTITIES]
    identities = list(filter(None, identities))
    rows = [dict(zip(choices, chosen, strict=True)) for chosen in itertools.product(*choices.values())]
    rows = pairwise(rows) if sample else [*rows, *(fixed for _ in identities)]
    nobody: dict[str, str] = {}
    for row, told in itertools.zip_longest(reversed(rows), identities, fillvalue=nobody):
        yield {**row, **told}
    for more in NETWORKS if name == "core" else FOLLOWING:
        yield {**fixed, **more}


def pairwise(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows that hold each pair of two parameters' values that all rows hold."""
    missing = {pair for row in rows for pair in itertools.combinations(row.items(), 2)}
    chosen = []
    while missing:
        chosen.append(max(rows, key=lambda row: len(missing.intersection(itertools.combinations(row.items(), 2)))))
        missing -= set(itertools.combinations(chosen[-1].items(), 2))
    return chosen


def decided(template: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """The template with the conditions that these parameters decide resolved, and the parameters as its defaults."""
    resolver = Resolver(template, chosen, {}, {}, region="us-east-1", stack="clock")
    pruned = without_conditions(template, resolver)
    for section in ("Conditions", "Rules"):
        pruned.pop(section, None)
    for one in (*pruned["Resources"].values(), *pruned["Outputs"].values()):
        one.pop("Condition", None)
    for name, value in chosen.items():
        pruned["Parameters"][name]["Default"] = value
    return pruned


@pytest.mark.parametrize("name", ["core", "pipeline"])
def test_a_template_passes_the_strict_linter_with_each_pair_of_options(name: str, tmp_path: Path) -> None:
    assert not [str(match) for match in lint(dump_template(load_template(name)), regions=REGIONS)]
    assert _passes_with(options(name, sample=True), name, tmp_path) >= 8


@pytest.mark.long
@pytest.mark.parametrize("name", ["core", "pipeline"])
def test_a_template_passes_the_strict_linter_with_every_option(name: str, tmp_path: Path) -> None:
    assert _passes_with(options(name, sample=False), name, tmp_path) >= 12


def _passes_with(chosen: Iterator[Mapping[str, str]], name: str, place: Path) -> int:
    """Lints the template with each of these options; returns how many differ."""
    template = load_template(name)
    variants = list(dict.fromkeys(dump_template(decided(template, one), indent=1) for one in chosen))
    files = [place / f"{number}.json" for number, _ in enumerate(variants)]
    for file, text in zip(files, variants, strict=True):
        file.write_text(text)
    linters = [linter(files[::2]), linter(files[1::2])]  # one a core
    assert [(one.communicate()[0], one.returncode) for one in linters] == [("", 0), ("", 0)]
    return len(variants)


def linter(files: list[Path]) -> subprocess.Popen[str]:
    command = [str(CFN_LINT), *map(str, files)]
    for check in (*_LEFT_BY_PRUNING, *_IGNORED_IN_THE_TEMPLATE):
        command += ["--ignore-checks", check]
    return subprocess.Popen([*command, "--regions", *REGIONS], stdout=subprocess.PIPE, text=True)


SERVICE_STACK_TYPES = (
    "AWS::ApiGateway::Authorizer",
    "AWS::ApiGateway::BasePathMapping",
    "AWS::ApiGateway::Deployment",
    "AWS::ApiGateway::GatewayResponse",
    "AWS::ApiGateway::Method",
    "AWS::ApiGateway::Model",
    "AWS::ApiGateway::RequestValidator",
    "AWS::ApiGateway::Resource",
    "AWS::ApiGateway::RestApi",
    "AWS::ApiGateway::Stage",
    "AWS::CloudWatch::Alarm",
    "AWS::CodeDeploy::Application",
    "AWS::CodeDeploy::DeploymentConfig",
    "AWS::CodeDeploy::DeploymentGroup",
    "AWS::Events::Rule",
    "AWS::IAM::Role",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Function",
    "AWS::Lambda::LayerVersion",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Url",
    "AWS::Lambda::Version",
    "AWS::Logs::LogGroup",
    "AWS::Scheduler::Schedule",
)
"""What osls and the release layer make. Other types bring their own policies (ExtraPolicyArns)."""

_BY_LIST = "asked for by the schema's list alone, which no update calls"

NOT_GRANTED = {
    "codedeploy:": "Alias and group: CloudFormation shifts nothing here, the tool does (no UpdatePolicy)",
    "elasticfilesystem:": "no file system is mounted by the release layer",
    "firehose:": "log groups deliver nowhere",
    "iam:DeleteRolePermissionsBoundary": "no role may leave its boundary",
    "iam:ListRoles": "drift detection only",
    "kms:": "no customer key",
    "lambda:AssociateRuntimeAlias": "an internal action of AWS",
    "events:ListRules": _BY_LIST,
    "lambda:ListEventSourceMappings": _BY_LIST,
    "lambda:ListFunctionUrlConfigs": _BY_LIST,
    "lambda:ListLayerVersions": _BY_LIST,
    "scheduler:ListSchedules": _BY_LIST,
    "lambda:GetCodeSigningConfig": "no code signing",
    "lambda:PassCapacityProvider": "no capacity provider",
    "lambda:PutFunctionCodeSigningConfig": "no code signing",
    "logs:AssociateKmsKey": "no customer key",
    "logs:DisassociateKmsKey": "no customer key",
    "logs:DeleteDataProtectionPolicy": "no data protection policy",
    "logs:DeleteIndexPolicy": "no index policy",
    "logs:DeleteResourcePolicy": "no resource policy",
    "logs:PutBearerTokenAuthentication": "not used",
    "logs:PutDataProtectionPolicy": "no data protection policy",
    "logs:PutIndexPolicy": "no index policy",
    "logs:PutLogGroupDeletionProtection": "not used",
    "s3:REST.PUT.OBJECT": "no IAM action",
    "s3files:": "no file system is mounted by the release layer",
}
"""Actions in CloudFormation's own lists, supersets, that the role does not have, and why that is well."""


def granted() -> set[str]:
    (policy,) = load_template("core")["Resources"]["CloudFormationRole"]["Properties"]["Policies"]
    found: set[str] = set()
    for statement in policy["PolicyDocument"]["Statement"]:
        actions = statement["Action"] if statement["Effect"] == "Allow" else []
        found |= {actions} if isinstance(actions, str) else set(actions)
    return found


def wanted() -> set[str]:
    schemas = (PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema for kind in SERVICE_STACK_TYPES)
    return {
        action
        for schema in schemas
        for handler in schema.get("handlers", {}).values()
        for action in handler.get("permissions", [])
    }


def excused(action: str) -> bool:
    return any(action == key or (key.endswith(":") and action.startswith(key)) for key in NOT_GRANTED)


def test_cloudformations_role_has_every_permission_that_the_resource_schemas_require() -> None:
    missing = sorted(action for action in wanted() - granted() if not excused(action))
    assert not missing, missing


def test_no_exception_to_the_required_permissions_is_unused() -> None:
    asked = wanted() - granted()
    idle = [key for key in NOT_GRANTED if not any(excused(action) and action.startswith(key) for action in asked)]
    assert not idle, idle


def test_each_permission_that_the_schemas_do_not_require_has_a_reason() -> None:
    assert granted() - wanted() == set(BEYOND_THE_SCHEMAS)
