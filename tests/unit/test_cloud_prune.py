"""Lambda keeps every version until it is deleted: a release deletes those that nobody lives on or goes back to."""

from __future__ import annotations

import copy
import functools

import pytest
from botocore.exceptions import ClientError

from hitless.cloud.release.executor import KEPT_RELEASES
from hitless.cloud.release.rollback import rollback
from hitless.release.result import Outcome
from tests.unit.cloud_fakes import World

pytestmark = pytest.mark.unit

META = "worldclock-prod-meta"
LETTERS = "0123456789abcd"


@functools.cache
def _shipped() -> World:
    world = World()
    for letter in LETTERS:
        assert world.deploy(letter, "AllAtOnce").outcome is Outcome.LIVE
    return world


def test_only_versions_of_the_last_live_releases_are_kept() -> None:
    world = copy.deepcopy(_shipped())
    numbers = [str(one) for one in range(1, len(LETTERS) + 1)]
    assert world.kept_versions(META) == numbers[-KEPT_RELEASES:]
    oldest = len(LETTERS) - KEPT_RELEASES + 1
    assert rollback(world.cloud(), oldest).outcome is Outcome.LIVE
    assert world.serves() == LETTERS[oldest - 1]


def test_the_target_of_a_rollback_is_kept_while_a_rollback_can_return_to_it() -> None:
    world = copy.deepcopy(_shipped())
    oldest = len(LETTERS) - KEPT_RELEASES + 1
    rollback(world.cloud(), oldest)
    assert world.deploy("e", "AllAtOnce").outcome is Outcome.LIVE
    assert str(oldest) in world.kept_versions(META)
    assert rollback(world.cloud(), None).release == oldest
    assert world.serves() == LETTERS[oldest - 1]


def test_without_permission_to_delete_versions_a_release_goes_live_with_a_message() -> None:
    world = copy.deepcopy(_shipped())

    def at(_: int, name: str) -> None:
        if name == "delete a version":
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DeleteFunction")

    world.at = at
    assert world.deploy("e", "AllAtOnce").outcome is Outcome.LIVE
    assert [one for one in world.said if "older versions of functions were not deleted" in one]
