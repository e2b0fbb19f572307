"""CloudFormation's YAML: short tags in their long form, versions as text, reproducible JSON."""

from __future__ import annotations

import json

import pytest

from hitless.aws.template import dump_template, load_template, parse_template

pytestmark = pytest.mark.unit


def test_short_form_tags_become_their_long_form() -> None:
    template = parse_template(
        """
        Conditions: {Both: !And [!Condition A, !Not [!Equals [!Ref B, '']]]}
        Resources:
          R:
            Arn: !GetAtt Vpc.Default.Group
            Name: !Sub '${Service}-x'
            First: !Select [0, !GetAZs '']
        """
    )
    assert template["Conditions"]["Both"] == {
        "Fn::And": [{"Condition": "A"}, {"Fn::Not": [{"Fn::Equals": [{"Ref": "B"}, ""]}]}]
    }
    assert template["Resources"]["R"] == {
        "Arn": {"Fn::GetAtt": ["Vpc", "Default.Group"]},
        "Name": {"Fn::Sub": "${Service}-x"},
        "First": {"Fn::Select": [0, {"Fn::GetAZs": ""}]},
    }


def test_a_policys_version_is_read_as_text_not_as_a_date() -> None:
    assert parse_template("{Resources: {R: {Version: 2012-10-17}}}")["Resources"]["R"]["Version"] == "2012-10-17"


def test_a_template_may_be_json() -> None:
    assert parse_template(dump_template(load_template("core"), indent=2)) == load_template("core")


@pytest.mark.parametrize(
    "text", ["", "[]", "Parameters: {}", "Resources: [", "Resources: {a: !!python/name:os.system }"]
)
def test_a_malformed_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a template"):
        parse_template(text)


@pytest.mark.parametrize("name", ["core", "pipeline"])
def test_our_templates_are_reproducible_and_fit_into_an_api_call(name: str) -> None:
    text = dump_template(load_template(name))
    assert text == dump_template(load_template(name))
    assert len(text.encode()) < 51_200
    assert json.loads(text)["AWSTemplateFormatVersion"] == "2010-09-09"
