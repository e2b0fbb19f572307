"""serverless-state.json as osls wrote it, and the state and overlay that it is given."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from hitless.aws.osls import decode, deployable, overlay_text, read
from hitless.errors import CloudError
from tests.unit.release_support import STATE, packaged

pytestmark = pytest.mark.unit


def test_a_recorded_state_gives_its_template_and_names() -> None:
    found = packaged()
    assert (found.service, found.stage, found.region) == ("worldclock", "prod", "eu-central-1")
    assert found.stack_name == "worldclock-prod"
    assert found.function_names["worldclock-prod-zones"] == "zones"
    assert found.template["Resources"]["ApiGatewayRestApi"]["Type"] == "AWS::ApiGateway::RestApi"


def test_a_shared_object_is_found_in_its_second_place() -> None:
    recorded = decode(STATE.read_text("utf-8"))
    service = recorded["service"]
    assert service["initialServerlessConfig"]["provider"] is service["provider"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": {"b": [1, 2]}, "c": {"$ref": "$[\\"a\\"][\\"b\\"]"}}', {"a": {"b": [1, 2]}, "c": [1, 2]}),
        ('{"a": [{"x": 1}], "b": {"$ref": "$[\\"a\\"][0]"}}', {"a": [{"x": 1}], "b": {"x": 1}}),
        ('{"q\\"x": 5, "b": {"$ref": "$[\\"q\\\\\\"x\\"]"}}', {'q"x': 5, "b": 5}),
        ('{"schema": {"$ref": "#/definitions/a"}}', {"schema": {"$ref": "#/definitions/a"}}),
    ],
)
def test_references_of_json_cycle_are_followed_and_others_are_left(text: str, expected: Any) -> None:
    assert decode(text) == expected


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON", '{"service": {"service": "a", "provider": {}}}'])
def test_a_state_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(CloudError, match="has an unknown form"):
        read(text)


def test_the_state_that_goes_to_aws_names_no_function_and_no_variable() -> None:
    state = deployable(
        service="a", stage="prod", region="eu-central-1", bucket="b", template={"Resources": {}}, role="arn:role",
        directory="serverless/a/prod/1",
    )  # fmt: skip
    assert state["service"]["functions"] == {}
    assert set(state["service"]) == {"service", "provider", "functions", "layers"}
    assert state["service"]["provider"]["iam"] == {"deploymentRole": "arn:role"}
    assert state["service"]["provider"]["deploymentMethod"] == "direct"
    json.dumps(state)


SERVICE = """
service: a
provider: {name: aws, environment: {TABLE: !Ref Table, WHEN: 08:30, ANSWER: yes}}
plugins: [serverless-python-requirements, serverless-other]
package: {individually: true, patterns: ['!**']}
functions:
  one: &one
    handler: one.handler
    package: {patterns: [one/**]}
  two: *one
resources:
  Resources:
    Table: {Type: AWS::DynamoDB::Table, Properties: {Name: !Sub '${AWS::StackName}-x'}}
"""


def test_the_overlay_takes_one_artifact_for_all_and_leaves_everything_else_as_written() -> None:
    text = overlay_text(SERVICE, "/empty.zip")
    assert "!Ref 'Table'" in text or "!Ref Table" in text
    assert "08:30" in text
    assert "ANSWER: yes" in text
    read_back = yaml.load(text, Loader=_Loose)
    assert read_back["package"] == {"artifact": "/empty.zip"}
    assert "package" not in read_back["functions"]["one"]
    assert "package" not in read_back["functions"]["two"]
    assert read_back["plugins"] == ["serverless-other"]


class _Loose(yaml.SafeLoader):
    """Reads any tag as text."""


_Loose.add_multi_constructor("!", lambda loader, suffix, node: f"{suffix} {node.value}")
