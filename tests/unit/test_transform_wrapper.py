"""The wrapper, and the alarms on its metrics, in the templates of a release."""

from __future__ import annotations

import copy
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.aws.layer import hitless_wrapper
from hitless.cloud.release.packaging import layer_code, write_layer
from hitless.cloud.transform.desired import desired
from hitless.cloud.transform.functions import is_shielded, is_wrapped
from hitless.cloud.transform.model import Code, FunctionIds, of_type
from hitless.rollout.alarms import is_above
from hitless.service.model import AlarmSettings
from hitless.service.strategy import parse
from tests.aws.front.alarms import evaluate_metrics
from tests.unit.cloud_fakes import World, small
from tests.unit.release_support import RememberedStack, packaged, release, sha256

pytestmark = pytest.mark.unit

COMPILED = packaged().template
LAYER = Code(sha256("e"), "artifacts/layer.zip")
ZONES = FunctionIds("Zones")


def shipped(*numbers_and_bytes: tuple[int, str], **changed: Any) -> RememberedStack:
    stack = RememberedStack()
    for number, letter in numbers_and_bytes:
        stack.ship(COMPILED, release(number, {"zones": letter}, layer=LAYER, **changed))
    return stack


def test_handlers_with_routes_are_called_through_the_wrapper_layer() -> None:
    resources = shipped((1, "a"), idempotent=("PUT /zones/{id}", "POST /convert")).live.resources
    function = resources["ZonesLambdaFunction"]
    assert is_wrapped(function)
    variables = function["Properties"]["Environment"]["Variables"]
    assert variables["HITLESS_HANDLER"] == COMPILED["Resources"]["ZonesLambdaFunction"]["Properties"]["Handler"]
    assert variables["HITLESS_SHIELD"] == ZONES.shield_variable == "hitlessShieldZones"
    assert variables["HITLESS_IDEMPOTENT"] == "PUT /zones/{id},POST /convert"
    (layer,) = of_type(resources, "AWS::Lambda::LayerVersion")
    assert function["Properties"]["Layers"] == [{"Ref": layer}]
    assert resources[layer]["Properties"]["Content"] == {"S3Bucket": "artifact-bucket", "S3Key": "artifacts/layer.zip"}


def test_functions_without_routes_python_or_room_for_a_layer_are_not_wrapped() -> None:
    compiled = copy.deepcopy(COMPILED)
    functions = of_type(compiled["Resources"], "AWS::Lambda::Function")
    functions["ZonesLambdaFunction"]["Properties"]["Runtime"] = "nodejs22.x"
    functions["MetaLambdaFunction"]["Properties"]["Layers"] = [f"arn:layer:{at}" for at in range(5)]
    for name, method in of_type(compiled["Resources"], "AWS::ApiGateway::Method").items():
        if "ConvertLambdaFunction" in str(method):
            del compiled["Resources"][name]
    for deployment in of_type(compiled["Resources"], "AWS::ApiGateway::Deployment").values():
        deployment["DependsOn"] = []
    made = desired(compiled, release(1, layer=LAYER))["Resources"]
    assert {name: is_wrapped(made[f"{name}LambdaFunction"]) for name in ("Zones", "Meta", "Convert", "Meetings")} == {
        "Zones": False,
        "Meta": False,
        "Convert": False,
        "Meetings": True,
    }


def test_without_the_shield_the_wrapper_only_counts_requests() -> None:
    function = shipped((1, "a"), shield=False, idempotent=("PUT /zones/{id}",)).live.resources["ZonesLambdaFunction"]
    assert is_wrapped(function)
    assert not is_shielded(function)
    assert "HITLESS_IDEMPOTENT" not in function["Properties"]["Environment"]["Variables"]


def test_a_changed_wrapper_publishes_new_versions_and_its_old_layer_is_removed_a_release_later() -> None:
    stack = shipped((1, "a"))
    before = set(of_type(stack.live.resources, "AWS::Lambda::Version"))
    (old,) = of_type(stack.live.resources, "AWS::Lambda::LayerVersion")
    newer = Code(sha256("f"), "artifacts/newer.zip")
    stack.published.clear()  # the same bytes with another layer are another version to Lambda
    stack.ship(COMPILED, release(2, layer=newer))
    assert set(of_type(stack.live.resources, "AWS::Lambda::Version")) > before
    assert old in of_type(stack.live.resources, "AWS::Lambda::LayerVersion")
    stack.ship(COMPILED, release(3, {"zones": "b"}, layer=newer))
    (left,) = of_type(stack.live.resources, "AWS::Lambda::LayerVersion")
    assert left != old


def metrics_of(stack: RememberedStack, kind: str) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The queries of the newest alarm of that kind, and its metrics by id."""
    group = stack.live.resources["ZonesDeploymentGroup"]["Properties"]["AlarmConfiguration"]
    (name,) = (one["Name"]["Ref"] for one in group["Alarms"] if one["Name"]["Ref"].startswith(kind))
    queries = stack.live.resources[name]["Properties"]["Metrics"]
    return queries, {one["Id"]: one["MetricStat"] for one in queries if "MetricStat" in one}


@pytest.mark.parametrize(
    ("counts", "rings"),
    [
        ({"n": 100, "e": 1, "r": 2, "s": 3}, True),
        ({"n": 100, "e": None, "r": None, "s": None}, False),
        ({"n": 100, "e": None, "r": 3, "s": None}, True),
        ({"n": 100, "e": None, "r": 2, "s": None}, False),
        ({"n": 20, "e": 1, "r": None, "s": None}, False),
        ({"n": 20, "e": 2, "r": None, "s": None}, True),
        ({"n": 20, "e": 15, "r": 15, "s": None}, True),
        ({"n": 19, "e": 19, "r": None, "s": None}, False),
        ({"n": None, "e": None, "r": None, "s": None}, False),
    ],
)
def test_the_error_alarm_counts_errors_5xx_responses_and_shielded_requests(
    counts: dict[str, float | None], rings: bool
) -> None:
    queries, metrics = metrics_of(shipped((1, "a")), "ZonesAlarm")
    assert (evaluate_metrics(queries, counts) > 1) is rings
    names = {name: (one["Metric"]["Namespace"], one["Metric"]["MetricName"]) for name, one in metrics.items()}
    assert names == {
        "e": ("AWS/Lambda", "Errors"),
        "n": ("AWS/Lambda", "Invocations"),
        "r": (hitless_wrapper.NAMESPACE, hitless_wrapper.FAILED),
        "s": (hitless_wrapper.NAMESPACE, hitless_wrapper.SHIELDED),
    }
    assert [one["Name"] for one in metrics["r"]["Metric"]["Dimensions"]] == ["FunctionName", "ExecutedVersion"]


def test_the_error_alarm_judges_as_the_engine_does() -> None:
    queries, _ = metrics_of(shipped((1, "a")), "ZonesAlarm")

    @given(st.integers(20, 5000), st.integers(0, 5000), st.sampled_from([0, 0.5, 1, 5]))
    def judge(requests: int, failed: int, limit_percent: float) -> None:
        bound = evaluate_metrics(queries, {"n": requests, "e": failed, "r": None, "s": None})
        assert (bound > limit_percent) is is_above(failed, requests, limit_percent) or abs(bound - limit_percent) < 1e-9

    judge()


@pytest.mark.parametrize(
    ("strategy", "period_s"),
    [
        ("Canary10Percent5Minutes", 300),
        ("Canary10Percent20Seconds", 60),
        ("Canary10Percent90Minutes", 1800),
        ("Linear10PercentEvery1Minute", 540),
        ("Linear50PercentEvery3Minutes", 180),
        ("AllAtOnce", 120),
    ],
)
def test_the_alarms_judge_all_requests_since_the_shift_began(strategy: str, period_s: int) -> None:
    alarms = AlarmSettings(p99_ms=5, p99_relative_percent=200, guard_s=90)
    stack = shipped((1, "a"), strategy=parse(strategy), alarms=alarms)
    for kind in ("ZonesAlarm", "ZonesSlowAlarm", "ZonesSlowerAlarm"):
        assert {one["Period"] for one in metrics_of(stack, kind)[1].values()} == {period_s}


@pytest.mark.parametrize(
    ("seen", "rings"),
    [
        ({"n": 50, "m": 50, "d": 201, "l": 100}, True),
        ({"n": 50, "m": 50, "d": 199, "l": 100}, False),
        ({"n": 50, "m": 50, "d": 6, "l": 2}, False),
        ({"n": 50, "m": 50, "d": 8, "l": 2}, True),
        ({"n": 19, "m": 50, "d": 900, "l": 100}, False),
        ({"n": 50, "m": 19, "d": 900, "l": 100}, False),
        ({"n": 50, "m": None, "d": 900, "l": None}, False),
    ],
    ids=["twice as slow", "nearly", "below the floor", "above it", "too few", "too few live ones", "nobody live"],
)
def test_the_relative_latency_alarm_compares_the_p99_of_both_versions(
    seen: dict[str, float | None], rings: bool
) -> None:
    stack = shipped((1, "a"), (2, "b"), alarms=AlarmSettings(p99_relative_percent=200))
    queries, metrics = metrics_of(stack, "ZonesSlowerAlarm")
    assert (evaluate_metrics(queries, seen) > 0) is rings
    versions = {
        name: one["Value"]
        for name in metrics
        for one in metrics[name]["Metric"]["Dimensions"]
        if one["Name"] == "ExecutedVersion"
    }
    assert versions["l"] == versions["m"] == "1"
    assert versions["d"] == versions["n"] != "1"
    assert metrics["d"]["Stat"] == metrics["l"]["Stat"] == "p99"


def test_the_users_own_alarms_are_watched_as_well() -> None:
    stack = shipped((1, "a"), alarms=AlarmSettings(also=("disk", "queue")))
    group = stack.live.resources["ZonesDeploymentGroup"]["Properties"]["AlarmConfiguration"]
    assert [one["Name"] for one in group["Alarms"]][1:] == ["disk", "queue"]
    assert len(group["Alarms"]) == 3


def test_a_first_release_is_compared_with_a_version_that_has_no_requests() -> None:
    _, metrics = metrics_of(shipped((1, "a"), alarms=AlarmSettings(p99_relative_percent=200)), "ZonesSlowerAlarm")
    assert metrics["l"]["Metric"]["Dimensions"][-1] == {"Name": "ExecutedVersion", "Value": "0"}


def test_the_layers_zip_is_reproducible_and_contains_only_the_wrapper(tmp_path: Path) -> None:
    write_layer(tmp_path / "layer.zip")
    assert hashlib.sha256((tmp_path / "layer.zip").read_bytes()).hexdigest() == layer_code().sha256
    with zipfile.ZipFile(tmp_path / "layer.zip") as archive:
        assert archive.namelist() == ["python/hitless_wrapper.py"]
        assert archive.read("python/hitless_wrapper.py") == Path(str(hitless_wrapper.__file__)).read_bytes()


def test_a_deploy_names_the_functions_without_a_shield() -> None:
    meta = copy.deepcopy(small().template["Resources"]["MetaLambdaFunction"])
    meta["Properties"]["Runtime"] = "nodejs22.x"
    world = World(also={"MetaLambdaFunction": meta})
    world.deploy("a")
    (note,) = [one for one in world.said if "no shield" in one]
    assert note.startswith(
        "note: meta: no shield, and only Lambda's Errors count as failures: its runtime is not Python"
    )
