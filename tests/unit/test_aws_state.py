"""serverless-state.json as osls writes it, and the state and overlay that hitless gives to osls."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from hitless.aws.osls import decode, deployable, overlay_text, read
from hitless.errors import CloudError
from tests.unit.release_support import STATE, packaged

pytestmark = pytest.mark.unit


def test_the_template_and_names_are_read_from_serverless_state_json() -> None:
    found = packaged()
    assert (found.service, found.stage, found.region) == ("worldclock", "prod", "eu-central-1")
    assert found.stack_name == "worldclock-prod"
    assert found.function_names["worldclock-prod-zones"] == "zones"
    assert found.template["Resources"]["ApiGatewayRestApi"]["Type"] == "AWS::ApiGateway::RestApi"


def test_an_object_referred_to_twice_is_read_in_both_places() -> None:
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
def test_only_references_of_json_cycle_are_resolved(text: str, expected: Any) -> None:
    assert decode(text) == expected


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON", '{"service": {"service": "a", "provider": {}}}'])
def test_a_state_of_unknown_form_is_refused(text: str) -> None:
    with pytest.raises(CloudError, match="has an unknown form"):
        read(text)


def test_the_state_given_to_osls_for_deploying_has_no_functions_and_no_variables() -> None:
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


def test_the_overlay_sets_one_artifact_for_all_functions_and_changes_nothing_else() -> None:
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
