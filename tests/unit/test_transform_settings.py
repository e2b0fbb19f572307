"""Settings of serverless.yml that osls keeps out of the template: the file wins, or is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hitless.aws.osls import deployable, read
from hitless.cloud.release.packaging import api_settings, check_provider
from hitless.cloud.transform.desired import desired
from hitless.cloud.transform.model import STACK_TAGS, ApiSettings
from hitless.errors import ServiceFileError
from hitless.service.model import Hooks, Throttle
from hitless.service.strategy import AllAtOnce
from tests.unit.cloud_fakes import package
from tests.unit.release_support import STATE, packaged, release

pytestmark = pytest.mark.unit


def stage_of(provider: dict[str, Any]) -> dict[str, Any]:
    """The Stage's properties with these settings of the provider."""
    wanted = desired(packaged().template, release(api=api_settings(provider)))
    stage: dict[str, Any] = wanted["Resources"]["ApiGatewayStage"]["Properties"]
    assert ("AccessLogSetting" in stage) == ("ApiAccessLogs" in wanted["Resources"])
    return stage


@pytest.mark.parametrize(
    ("provider", "settings"),
    [
        ({}, ApiSettings()),
        ({"tracing": {"apiGateway": False}}, ApiSettings(traced=False)),
        ({"tracing": {"apiGateway": True, "lambda": False}}, ApiSettings()),
        ({"apiGateway": {"metrics": False}}, ApiSettings(metrics=False)),
        ({"apiGateway": {"shouldStartNameWithService": True}}, ApiSettings()),
        ({"logs": {"restApi": False}}, ApiSettings(access_log=False)),
        ({"logs": {"restApi": True}}, ApiSettings(level="INFO", whole_requests=True)),
        ({"logs": {"restApi": {"executionLogging": False, "format": "$x"}}}, ApiSettings(log_format="$x")),
        (
            {"logs": {"restApi": {"accessLogging": False, "level": "ERROR", "fullExecutionData": False}}},
            ApiSettings(access_log=False, level="ERROR"),
        ),
    ],
)  # fmt: skip
def test_the_file_says_how_the_stage_logs_counts_and_traces(provider: dict[str, Any], settings: ApiSettings) -> None:
    assert api_settings(provider) == settings


def test_the_stage_is_as_the_settings_say() -> None:
    stage = stage_of({"tracing": {"apiGateway": False}, "logs": {"restApi": False}, "apiGateway": {"metrics": False}})
    assert stage["TracingEnabled"] is False
    assert stage["MethodSettings"] == [{"HttpMethod": "*", "ResourcePath": "/*", "MetricsEnabled": False}]
    stage = stage_of({"logs": {"restApi": {"level": "ERROR", "fullExecutionData": False, "format": "$context.path"}}})
    assert stage["AccessLogSetting"]["Format"] == "$context.path"
    (methods,) = stage["MethodSettings"]
    assert (methods["LoggingLevel"], methods["DataTraceEnabled"]) == ("ERROR", False)


def test_the_access_log_names_the_client_and_the_error() -> None:
    written = json.loads(stage_of({})["AccessLogSetting"]["Format"])
    # API Gateway Developer Guide, "Variables for access logging": $context.error.message is "a string that contains
    # an API Gateway error message", $context.identity.userAgent "the User-Agent header of the API caller"
    assert (written["error"], written["user_agent"]) == ("$context.error.message", "$context.identity.userAgent")


def test_a_stages_throttle_is_that_of_each_method() -> None:
    settings = ApiSettings(throttle=Throttle(100, 200))
    stage = desired(packaged().template, release(api=settings))["Resources"]["ApiGatewayStage"]["Properties"]
    (methods,) = stage["MethodSettings"]
    assert (methods["ThrottlingRateLimit"], methods["ThrottlingBurstLimit"]) == (100, 200)
    assert (methods["HttpMethod"], methods["ResourcePath"]) == ("*", "/*")
    assert "ThrottlingRateLimit" not in stage_of({})["MethodSettings"][0]


@pytest.mark.parametrize(("provider", "days"), [({}, 30), ({"logRetentionInDays": 90}, 90)])
def test_access_logs_are_kept_as_long_as_the_functions_logs(provider: dict[str, Any], days: int) -> None:
    made = package("a", Hooks())
    made = replace(made, packaged=replace(made.packaged, provider=provider))
    wanted = made.wanted(number=1, previous=None, commit=None, strategy=AllAtOnce())
    assert wanted["Resources"]["ApiAccessLogs"]["Properties"]["RetentionInDays"] == days


def test_functions_are_traced_unless_the_file_says_no() -> None:
    def modes(**changed: Any) -> set[str]:
        found = desired(packaged().template, release(**changed))["Resources"]["MetaLambdaFunction"]["Properties"]
        return set(found.get("TracingConfig", {}).values())

    assert modes() == {"Active"}
    assert modes(traced=False) == set()


def test_the_services_stack_tags_are_kept_beside_ours() -> None:
    wanted = desired(packaged().template, release(stack_tags={"team": "clocks", "hitless:stage": "x"}))
    assert wanted["Metadata"][STACK_TAGS] == {"team": "clocks", "hitless:stage": "x"}
    assert "Metadata" not in desired(packaged().template, release())
    state = deployable(
        service="clock", stage="dev", region="eu-central-1", bucket="b", template=wanted, role="", directory="d",
        tags=wanted["Metadata"][STACK_TAGS],
    )  # fmt: skip
    tags = {"team": "clocks", "hitless:service": "clock", "hitless:stage": "dev"}
    assert state["service"]["provider"]["stackTags"] == tags


def test_the_settings_are_read_from_what_osls_wrote() -> None:
    state = json.loads(STATE.read_text("utf-8"))
    state["service"]["provider"] |= {"tracing": {"lambda": False}, "stackTags": {"team": "clocks"}, "memorySize": 128}
    provider = read(json.dumps(state)).provider
    assert provider["tracing"] == {"lambda": False}
    assert provider["stackTags"] == {"team": "clocks"}
    assert "memorySize" not in provider


@pytest.mark.parametrize(
    ("provider", "named"),
    [
        ({"logs": {"restApi": {"role": "arn"}}}, "provider.logs.restApi.role"),
        ({"logs": {"restApi": {"roleManagedExternally": True}}}, "provider.logs.restApi.roleManagedExternally"),
        ({"rollbackConfiguration": {"MonitoringTimeInMinutes": 5}}, "provider.rollbackConfiguration"),
    ],
)
def test_what_has_no_effect_is_refused_by_name(provider: dict[str, Any], named: str) -> None:
    check_provider({"logs": {"restApi": {"level": "ERROR"}}})
    with pytest.raises(ServiceFileError) as refused:
        check_provider(provider)
    assert refused.value.message.startswith(f"{named}:")
