"""Scaled provisioned concurrency from version to version, and the check that the account has room for two versions."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from hitless.aws.codedeploy import Deployment
from hitless.aws.lambdas import Autoscaling
from hitless.cloud.release.rollback import rollback
from hitless.errors import CloudError, ServiceFileError
from hitless.release.result import Outcome
from tests.unit.cloud_fakes import World

pytestmark = pytest.mark.unit

META = "worldclock-prod-meta"


def scaled(least: int = 3, most: int | None = 20) -> World:
    """A stage whose first release is live."""
    world = World(provisioned=least, max_provisioned=most)
    assert world.deploy("a").outcome is Outcome.LIVE
    return world


def test_the_first_version_gets_the_scaling_limits_of_its_release() -> None:
    assert scaled().scaled == {(META, "1"): (3, 20, 70)}


def test_the_next_version_starts_at_the_live_size_and_gets_its_limits_after_the_shift() -> None:
    world = scaled()
    world.ready[META, "1"] = 11
    during: list[dict[tuple[str, str], Any]] = []

    def look(_: int, moment: str) -> None:
        if moment == "look at a deployment":
            during.append(dict(world.scaled))

    world.at = look
    assert world.deploy("b").outcome is Outcome.LIVE
    assert during
    assert all(seen == {(META, "1"): (3, 20, 70), (META, "2"): (11, 20, 70)} for seen in during)
    assert world.scaled == {(META, "2"): (3, 20, 70)}
    assert world.ready == {(META, "2"): 11}


def test_scaling_starts_after_provisioning_and_stops_before_deprovisioning() -> None:
    world = scaled()
    world.moments.clear()
    world.deploy("b")
    told = [one for one in world.moments if ("scale" in one or "provision" in one) and "read" not in one]
    assert told[:3] == ["provision a version", "await a provisioned version", "scale a version"]
    assert told[-2:] == ["scale no more", "provision no more"]


def test_a_rolled_back_candidate_is_no_longer_scaled_and_the_live_version_is_unchanged() -> None:
    world = scaled()

    def fail(_: int, name: str) -> None:
        if name == "look at a deployment":
            last = f"d-{len(world.deployments) - 1}"
            world.deployments[last] = (world.deployments[last][0], Deployment("Failed", "an alarm rang"))

    world.at, world.max_provisioned = fail, 50
    assert world.deploy("b").outcome is Outcome.ROLLED_BACK
    assert world.scaled == {(META, "1"): (3, 20, 70)}
    assert world.ready == {(META, "1"): 3}


def test_a_release_with_only_new_limits_sets_them_on_the_live_version_without_shrinking_it() -> None:
    world = scaled()
    world.ready[META, "1"] = 9
    world.max_provisioned = 30
    world.unreserved = 100  # none of it is asked for anew
    assert world.deploy("a").outcome is Outcome.LIVE
    assert world.scaled == {(META, "1"): (3, 30, 70)}
    assert world.ready == {(META, "1"): 9}


def test_the_previous_version_keeps_its_scaling_limits_if_the_release_fails() -> None:
    world = scaled()
    world.moments.clear()

    def fail(_: int, moment: str) -> None:
        if moment == "update the stack" and world.moments.count(moment) == 2:
            raise CloudError("the stack's second update failed", hint="fix it")

    world.at, world.max_provisioned = fail, 50
    assert world.deploy("a").outcome is Outcome.ROLLED_BACK
    assert world.scaled == {(META, "1"): (3, 20, 70)}


def test_without_scaling_a_version_gets_its_fixed_number_of_environments_again() -> None:
    world = scaled()
    world.ready[META, "1"] = 9
    world.max_provisioned = None
    assert world.deploy("a").outcome is Outcome.LIVE
    assert (world.scaled, world.ready) == ({}, {(META, "1"): 3})


def test_after_a_rollback_the_version_has_the_current_size_and_limits() -> None:
    world = scaled()
    assert world.deploy("b").outcome is Outcome.LIVE
    world.ready[META, "2"] = 15
    assert rollback(world.cloud(), 1).outcome is Outcome.LIVE
    assert world.scaled == {(META, "1"): (3, 20, 70)}
    assert world.ready == {(META, "1"): 15}


@pytest.mark.parametrize(("grown", "unreserved", "fits"), [(3, 103, True), (3, 102, False), (9, 108, False)])
def test_a_release_beyond_the_accounts_concurrency_is_refused_before_anything_changes(
    grown: int, unreserved: int, fits: bool
) -> None:
    world = scaled()
    world.ready[META, "1"], world.unreserved = grown, unreserved
    if fits:
        assert world.deploy("b").outcome is Outcome.LIVE
        return
    documents = dict(world.documents)
    with pytest.raises(
        ServiceFileError, match=rf"has room for {unreserved - 100} more, and the release takes {grown} "
    ):
        world.deploy("b")
    assert world.documents == documents


class FakeClient:
    """Application Auto Scaling that refuses each call with one code."""

    def __init__(self, code: str) -> None:
        self._code = code

    def register_scalable_target(self, **_: Any) -> None:
        raise ClientError({"Error": {"Code": self._code, "Message": "no"}}, "RegisterScalableTarget")

    def deregister_scalable_target(self, **_: Any) -> None:
        raise ClientError({"Error": {"Code": self._code, "Message": "no"}}, "DeregisterScalableTarget")


def test_a_denied_scaling_call_refers_to_bootstrap_and_a_missing_target_is_ignored() -> None:
    with pytest.raises(CloudError, match="scaling its provisioned concurrency was denied") as caught:
        Autoscaling(FakeClient("AccessDeniedException")).scale("f", "1", least=1, most=2, target_percent=70)
    assert "hitless aws bootstrap" in str(caught.value.hint)
    Autoscaling(FakeClient("ObjectNotFoundException")).stop_scaling("f", "1")
    with pytest.raises(ClientError):
        Autoscaling(FakeClient("ValidationException")).scale("f", "1", least=1, most=2, target_percent=70)
