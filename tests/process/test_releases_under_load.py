"""Healthy releases ship under load: GET, POST, slow requests, closing connections; nothing fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.conftest import Site
from tests.process.load import Seen, Wrk

pytestmark = pytest.mark.process

SABOTAGE = Path(__file__).with_name("sabotage")


def ship_ten(site: Site) -> Seen:
    """Ship ten releases during one load."""
    with Wrk(site.url) as load:
        for number in range(10):
            site.touch(f"release {number}")
            assert site.hitless("deploy").document["outcome"] == "live"
        assert load.running, "the load outlasted the releases"
        return load.end()


def test_ten_releases_fail_no_request_of_a_mixed_load(running: Site) -> None:
    seen = ship_ten(running)
    assert seen.failed == 0, seen
    assert seen.requests > 2_000
    assert running.stage()["live"]["release"] == 11


def test_without_draining_the_same_load_has_failed_requests(site: Site) -> None:
    """Shows that the test above can fail: the daemon starts without the waiting (see sabotage/)."""
    site.environ["PYTHONPATH"] = str(SABOTAGE)
    site.up()
    assert ship_ten(site).failed > 0
