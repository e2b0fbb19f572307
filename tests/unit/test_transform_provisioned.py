"""Provisioned concurrency as osls compiles it, and as the release layer changes it."""

from __future__ import annotations

import pytest

from hitless.cloud.transform.desired import desired
from hitless.cloud.transform.functions import Ready, concurrency_needed, kept_ready
from hitless.cloud.transform.model import FunctionIds, of_type
from hitless.errors import ServiceFileError
from tests.unit.release_support import packaged, release, with_provisioned

pytestmark = pytest.mark.unit

COMPILED = packaged().template
ZONES = FunctionIds("Zones")


def test_the_osls_alias_for_provisioned_concurrency_becomes_a_number() -> None:
    plain = desired(COMPILED, release(1))
    compiled = with_provisioned(COMPILED, "Zones", 4)
    assert "provisioned" in str(of_type(compiled["Resources"], "AWS::ApiGateway::Method"))
    made = desired(compiled, release(1))
    assert kept_ready(made) == {ZONES: Ready(4)}
    assert kept_ready(plain) == {}
    del made["Resources"]["ZonesLambdaFunction"]["Metadata"]["hitless:provisioned"]
    assert made["Resources"] == plain["Resources"]


def test_reserved_concurrency_must_be_at_least_twice_the_provisioned_concurrency() -> None:
    compiled = with_provisioned(COMPILED, "Zones", 4)
    properties = compiled["Resources"]["ZonesLambdaFunction"]["Properties"]
    properties["ReservedConcurrentExecutions"] = 8
    desired(compiled, release(1))
    properties["ReservedConcurrentExecutions"] = 7
    with pytest.raises(ServiceFileError, match=r"functions.zones: provisionedConcurrency 4 is needed twice"):
        desired(compiled, release(1))


def test_the_needed_concurrency_includes_both_versions_of_a_shift() -> None:
    assert concurrency_needed([]) == 100
    assert concurrency_needed([(4, None), (0, 30), (10, 15), (0, None)]) == 100 + 8 + 30 + 20
