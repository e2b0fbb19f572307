"""Checks by a sample that osls compiles definitions to the same templates as the unit tests do."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hitless.aws.osls import find_osls, make_overlay
from hitless.cloud.transform.desired import desired
from tests.unit.definitions import REGION, STAGE, Definition, Function, Route
from tests.unit.transitions import DENY, OWN_ROLE, READ, TRANSITIONS, VPC, own_role, table

pytestmark = pytest.mark.aws

RICH = Definition(
    {
        "alpha": Function(
            (
                Route("GET", "items", private=True),
                Route("POST", "items", schema="object"),
                Route("GET", "items/{id+}", authorizer="check", ttl_s=60),
            ),
            properties={"MemorySize": 2048, "ReservedConcurrentExecutions": 5, "Architectures": ["arm64"]},
            schedule="rate(1 hour)",
        ),
        "gamma-one": Function((Route("GET", "a-b/{id}"), Route("ANY", "/")), name="other", properties=OWN_ROLE),
        "check": Function(properties={"Environment": {"Variables": {"TABLE": {"Ref": "Items"}}}}),
    },
    policies=(READ, DENY),
    managed=("arn:aws:iam::aws:policy/AmazonSQSReadOnlyAccess",),
    path="/service/",
    keys=(("first", None), ("second", "2" * 20)),
    resources={"Items": table("time"), "OwnRole": own_role(READ)},
    conditions={"IsProd": {"Fn::Equals": ["a", "a"]}},
)
BARE = Definition({"alpha": Function((Route("GET", "openapi.json"),), properties={"VpcConfig": VPC})})


def compiled_by_osls(definition: Definition, place: Path) -> dict[str, Any]:
    folder = place / "demo"
    folder.mkdir()
    document = definition.document()
    del document["package"]
    (folder / "serverless.yml").write_text(json.dumps(document))
    osls = find_osls(folder, os.environ)
    return osls.package(make_overlay(folder / "serverless.yml", place), stage=STAGE, region=REGION, params={}).template


@pytest.mark.parametrize("definition", [RICH, BARE], ids=["rich", "bare"])
def test_osls_compiles_a_definition_to_the_same_release_as_the_tests(definition: Definition, tmp_path: Path) -> None:
    _equals_the_output_of_osls(definition, tmp_path)


def _said() -> list[Definition]:
    """Each definition of the named transitions once, by its serverless.yml, which does not contain `api`."""
    by_text: dict[str, Definition] = {}
    for transition in TRANSITIONS:
        for one in (transition.before, transition.after):
            by_text.setdefault(json.dumps(one.document(), sort_keys=True), replace(one, api={}))
    return list(by_text.values())


@pytest.mark.long
@pytest.mark.parametrize("definition", _said(), ids=range(len(_said())))
def test_osls_compiles_each_named_transition_to_the_same_templates_as_the_tests(
    definition: Definition, tmp_path: Path
) -> None:
    _equals_the_output_of_osls(definition, tmp_path)


def _equals_the_output_of_osls(definition: Definition, tmp_path: Path) -> None:
    release = replace(definition.release(1), permissions_boundary="")
    theirs, mine = (
        _comparable(desired(template, release))
        for template in (compiled_by_osls(definition, tmp_path), definition.compiled())
    )
    assert mine.keys() == theirs.keys()
    for name in theirs:
        assert mine[name] == theirs[name], name


def _comparable(template: dict[str, Any]) -> dict[str, Any]:
    """The resources, without the order of their dependencies."""
    resources: dict[str, Any] = template["Resources"]
    for one in resources.values():
        if isinstance(one.get("DependsOn"), list):
            one["DependsOn"] = sorted(one["DependsOn"])
    return resources
