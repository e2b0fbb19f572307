"""The pipeline's parameters and steps, the repository by git's origin, the connection that a person authorises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hitless.aws.account import GitHubConnections, close_default_group, console_url, find_zone
from hitless.aws.template import load_template
from hitless.cloud.setup.options import PipelineOptions, parse_remote
from hitless.cloud.setup.stacks import DeployRole, connection_name, pipeline_stack
from hitless.errors import UsageError
from hitless.homes.aws import PROMOTE_VARIABLE
from hitless.service.model import Approval, RehearsalSettings, StageSettings
from tests.unit.aws_services import make_service

pytestmark = pytest.mark.unit

TEMPLATE = load_template("pipeline")
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]


def parameters(options: PipelineOptions | None = None, **service: Any) -> dict[str, str | None]:
    spec = pipeline_stack(
        make_service(**service),
        options or PipelineOptions("owner/clock", "", "clock.whl"),
        DeployRole("arn:aws:iam::1:role/deploy", "clock-artifacts"),
        connected=True,
        connection_arn="",
    )
    return dict(spec.parameters)


def test_the_pipeline_stack_gets_exactly_the_templates_parameters() -> None:
    for approval in Approval:
        given = parameters(approval=approval)
        assert set(given) == set(TEMPLATE["Parameters"])
        for name in ("Approval", "Connection", "Tests", "BuildType"):
            assert given[name] in TEMPLATE["Parameters"][name]["AllowedValues"]


def test_a_pipeline_follows_the_stages_branch_and_builds_arm_code_on_arm() -> None:
    given = parameters(branch="main", architecture="arm64")
    assert given["Branch"] == "main"
    assert given["BuildType"] == "ARM_CONTAINER"
    assert "aarch64" in str(given["BuildImage"])
    assert parameters(PipelineOptions("a/b", tests=False))["Tests"] == "skip"


def test_the_test_step_reads_the_live_release_only_if_the_stage_has_rehearsals() -> None:
    assert [parameters(rehearsal=one)["Rehearsal"] for one in (None, RehearsalSettings())] == ["skip", "run"]
    assert TEMPLATE["Conditions"]["Rehearses"] == {
        "Fn::And": [{"Condition": "HasTests"}, {"Fn::Equals": [{"Ref": "Rehearsal"}, "run"]}]
    }
    assert RESOURCES["RehearsalPolicy"]["Condition"] == "Rehearses"
    for one in RESOURCES["TestProject"]["Properties"]["Environment"]["EnvironmentVariables"][1:]:
        assert one["Fn::If"][0] == "Rehearses"
        assert one["Fn::If"][2] == {"Ref": "AWS::NoValue"}


@pytest.mark.parametrize("repository", ["clock", "a/b/c", "https://github.com/a/b", "a b/c", "/"])
def test_a_malformed_repository_is_refused(repository: str) -> None:
    with pytest.raises(UsageError, match="--repository"):
        parameters(PipelineOptions(repository))


@pytest.mark.parametrize("package", ["git+https://token@github.com/a/b@v1", "git+ssh://git:secret@host/a/b@v1"])
def test_a_package_url_with_a_secret_is_refused_without_showing_it(package: str) -> None:
    with pytest.raises(UsageError, match="password or a token") as refused:
        parameters(PipelineOptions("a/b", "", package, ""))
    assert package not in str(refused.value.to_json())
    for plain in (
        "hitless[aws]==1",
        "git+https://github.com/a/b@v1",
        "git+ssh://git@github.com/a/b@v1",
        "/a/wheel.whl",
    ):
        assert parameters(PipelineOptions("a/b", "", plain, ""))["HitlessPackage"] == plain


def test_the_pipelines_steps_are_in_order_and_tests_and_approval_are_optional() -> None:
    stages = RESOURCES["Pipeline"]["Properties"]["Stages"]
    flat = [(None, stage) if "Name" in stage else (stage["Fn::If"][0], stage["Fn::If"][1]) for stage in stages]
    assert [(condition, stage["Name"]) for condition, stage in flat] == [
        (None, "source"),
        ("HasTests", "test"),
        ("AsksAPerson", "approve"),
        (None, "deploy"),
        ("SecondAsks", {"Fn::Sub": "approve-${Second}"}),
        ("HasSecond", {"Ref": "Second"}),
        ("ThirdAsks", {"Fn::Sub": "approve-${Third}"}),
        ("HasThird", {"Ref": "Third"}),
    ]


def test_only_a_push_to_the_branch_starts_the_pipeline() -> None:
    pipeline = RESOURCES["Pipeline"]["Properties"]
    assert (pipeline["PipelineType"], pipeline["ExecutionMode"]) == ("V2", "SUPERSEDED")
    (trigger,) = pipeline["Triggers"]
    assert trigger["GitConfiguration"]["Push"] == [{"Branches": {"Includes": [{"Ref": "Branch"}]}}]
    (source,) = pipeline["Stages"][0]["Actions"]
    assert trigger["GitConfiguration"]["SourceActionName"] == source["Name"]
    assert source["Configuration"]["DetectChanges"] == "false"


def test_nothing_runs_before_the_github_connection_is_authorised() -> None:
    gated = {
        name for name, resource in RESOURCES.items() if resource.get("Condition") in ("Connected", "TestsPullRequests")
    }
    assert gated == {"Pipeline", "PullRequestProject", "FailureRule"}


def test_a_failed_run_reaches_the_topic_without_a_service_linked_role() -> None:
    """Developer Tools console user guide, using-service-linked-roles: "This role is created for you the first time you
    create a notification rule." EventBridge user guide, eb-use-resource-based: "You can't use of `Condition` blocks in
    Amazon SNS topic policies for EventBridge"; for such targets "do not specify a `RoleArn`".
    """
    assert not [one for one in RESOURCES.values() if one["Type"].startswith("AWS::CodeStarNotifications::")]
    rule = RESOURCES["FailureRule"]
    assert rule["DependsOn"] == "NotificationsPolicy"
    pattern = rule["Properties"]["EventPattern"]
    assert pattern["detail-type"] == ["CodePipeline Pipeline Execution State Change"]
    assert pattern["detail"] == {"pipeline": [{"Ref": "Pipeline"}], "state": ["FAILED"]}
    (target,) = rule["Properties"]["Targets"]
    assert (target["Arn"], "RoleArn" in target) == ({"Ref": "Notifications"}, False)
    assert target["InputTransformer"]["InputTemplate"].startswith('"'), "EventBridge takes a JSON text"
    (statement,) = RESOURCES["NotificationsPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert "Condition" not in statement
    assert RESOURCES["NotificationsPolicy"]["Properties"]["Topics"] == [statement["Resource"]]


def test_only_the_deploy_project_may_become_the_deploy_role() -> None:
    assumers = [
        name
        for name, resource in RESOURCES.items()
        for policy in resource.get("Properties", {}).get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Action"] == "sts:AssumeRole"
    ]
    assert assumers == ["DeployBuildRole", "SecondBuildRole", "ThirdBuildRole"]
    trusted = load_template("core")["Resources"]["DeployRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    for role, stage in zip(assumers, ("Stage", "Second", "Third"), strict=True):
        name = RESOURCES[role]["Properties"]["RoleName"]["Fn::Sub"].replace(f"${{{stage}}}", "${Stage}")
        assert trusted[0]["Condition"]["ArnEquals"]["aws:PrincipalArn"]["Fn::Sub"].endswith(f":role/hitless/{name}")


def test_a_forks_pull_request_is_built_only_after_a_maintainers_comment() -> None:
    project = RESOURCES["PullRequestProject"]["Properties"]
    assert project["Triggers"]["PullRequestBuildPolicy"]["RequiresCommentApproval"] == "FORK_PULL_REQUESTS"
    assert project["Source"]["ReportBuildStatus"] is True
    names = [one["Name"] for one in project["Environment"]["EnvironmentVariables"]]
    assert names == ["HITLESS_FOLDER"], "a stranger's code is told nothing else"


def test_the_deploy_step_gets_stage_package_role_and_commit() -> None:
    *always, asked = RESOURCES["DeployProject"]["Properties"]["Environment"]["EnvironmentVariables"]
    names = [one["Name"] for one in always]
    limit = "HITLESS_TIME_LIMIT_MINUTES"
    assert names == ["STAGE", "HITLESS_FOLDER", "HITLESS_PACKAGE", "HITLESS_DEPLOY_ROLE_ARN", limit]
    said = [one["Value"] for one in always if one["Name"] == limit]
    assert said == [str(RESOURCES["DeployProject"]["Properties"]["TimeoutInMinutes"])]
    condition, variable, _ = asked["Fn::If"]
    assert (condition, variable["Name"]) == ("HasExternalId", "HITLESS_DEPLOY_ROLE_EXTERNAL_ID")
    stages = RESOURCES["Pipeline"]["Properties"]["Stages"]
    (deploy,) = next(one["Actions"] for one in stages if one.get("Name") == "deploy")
    assert '"HITLESS_COMMIT","value":"#{Source.CommitId}"' in deploy["Configuration"]["EnvironmentVariables"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/anna/clock.git", "anna/clock"),
        ("https://x-token:secret@github.com/anna/clock", "anna/clock"),
        ("git@github.com:anna/my.clock.git", "anna/my.clock"),
        ("ssh://git@github.com/anna/clock", "anna/clock"),
        ("https://gitlab.com/anna/clock.git", None),
        ("https://github.com.evil.org/anna/clock", None),
        ("", None),
    ],
)
def test_the_repository_is_read_from_gits_origin(url: str, name: str | None) -> None:
    assert parse_remote(url) == name


class FakeConnections:
    def __init__(self, *pages: list[str]) -> None:
        self.pages = pages

    def list_connections(self, **options: str) -> dict[str, Any]:
        index = int(options.get("NextToken", "0"))
        found = [
            {"ConnectionArn": f"arn:{name}", "ConnectionName": name, "ConnectionStatus": "AVAILABLE"}
            for name in self.pages[index]
        ]
        more = {"NextToken": str(index + 1)} if index + 1 < len(self.pages) else {}
        return {"Connections": found, **more}


def test_the_services_connection_is_found_on_any_page_of_the_list() -> None:
    connections = GitHubConnections(FakeConnections(["other"], ["clock"]))
    found = connections.named("clock")
    assert found is not None
    assert found.available
    assert connections.named("clo") is None


def test_all_stages_share_one_connection_with_a_name_within_the_limit() -> None:
    assert connection_name(make_service("dev")) == connection_name(make_service("prod"))
    assert len(connection_name(make_service(name="s" * 40))) == 32


def test_the_console_url_leads_to_the_connection_in_its_region_and_partition() -> None:
    arn = "arn:aws:codeconnections:eu-west-1:123456789012:connection/0a1b"
    assert console_url(arn) == (
        "https://eu-west-1.console.aws.amazon.com/codesuite/settings/123456789012/eu-west-1/codeconnections/connections/0a1b"
    )
    assert ".console.amazonaws.cn/" in console_url(arn.replace("arn:aws:", "arn:aws-cn:"))


class FakeZones:
    def __init__(self, *zones: tuple[str, bool]) -> None:
        self.zones = zones

    def get_paginator(self, _: str) -> FakeZones:
        return self

    def paginate(self) -> list[dict[str, Any]]:
        return [
            {
                "HostedZones": [
                    {"Id": f"/hostedzone/Z{index}", "Name": f"{name}.", "Config": {"PrivateZone": private}}
                    for index, (name, private) in enumerate(self.zones)
                ]
            }
        ]


def test_the_closest_public_hosted_zone_is_used_for_a_domain() -> None:
    zones = FakeZones(("example.com", False), ("eu.example.com", False), ("api.eu.example.com", True), ("e.com", False))
    assert find_zone(zones, "api.eu.example.com") == "Z1"
    assert find_zone(zones, "example.com") == "Z0"


def test_a_domain_without_a_public_hosted_zone_is_refused() -> None:
    with pytest.raises(UsageError, match=r"this account has no public hosted zone for notexample\.com"):
        find_zone(FakeZones(("example.com", False)), "notexample.com")


class FakeGroups:
    def __init__(self) -> None:
        self.ingress: list[Any] = [{"IpProtocol": "-1"}]
        self.egress: list[Any] = [{"IpProtocol": "-1"}]

    def describe_security_groups(self, GroupIds: list[str]) -> dict[str, Any]:  # noqa: N803 - botocore's name
        assert GroupIds == ["sg-1"]
        return {"SecurityGroups": [{"IpPermissions": self.ingress, "IpPermissionsEgress": self.egress}]}

    def revoke_security_group_ingress(self, **_: Any) -> None:
        self.ingress = []

    def revoke_security_group_egress(self, **_: Any) -> None:
        self.egress = []


def test_the_rules_of_the_default_security_group_are_removed_once() -> None:
    groups = FakeGroups()
    assert [close_default_group(groups, "sg-1"), close_default_group(groups, "sg-1")] == [2, 0]


STAGES = (StageSettings("dev", "dev"), StageSettings("prod", "prod", approval=Approval.MANUAL))


def promoting(**roles: str) -> dict[str, str | None]:
    service = replace(make_service(), stages=STAGES)
    role = DeployRole("arn:aws:iam::1:role/deploy", "clock-artifacts", then=roles)
    told = PipelineOptions("owner/clock", "", "clock.whl")
    return dict(pipeline_stack(service, told, role, connected=True, connection_arn="").parameters)


def test_a_pipeline_promotes_to_further_stages_with_their_own_approvals() -> None:
    given = promoting(prod="arn:aws:iam::1:role/prod")
    assert (given["Second"], given["SecondRoleArn"], given["SecondApproval"]) == (
        "prod",
        "arn:aws:iam::1:role/prod",
        "manual",
    )
    assert (given["Third"], given["ThirdRoleArn"], given["ThirdApproval"]) == ("", "", "none")


@pytest.mark.parametrize("names", [("dev",), ("live",), ("prod", "a", "b")])
def test_a_promotion_to_a_stage_that_is_not_another_one_of_the_service_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--then: "):
        promoting(**dict.fromkeys(names, "arn:r"))


def test_a_promoting_build_ships_the_first_stages_release_and_may_only_read_there() -> None:
    for place in ("Second", "Third"):
        project = RESOURCES[f"{place}Project"]["Properties"]
        variables = {one["Name"]: one["Value"] for one in project["Environment"]["EnvironmentVariables"]}
        assert (variables["STAGE"], variables[PROMOTE_VARIABLE]) == ({"Ref": place}, {"Ref": "Stage"})
        assert project["Source"] == RESOURCES["DeployProject"]["Properties"]["Source"]
        statements = RESOURCES[f"{place}PromotionPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        actions = [
            action
            for one in statements
            for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
        ]
        assert all(action.partition(":")[2].startswith(("Get", "List", "Describe")) for action in actions)
