"""A broken canary under load from several kinds of connections: whoever may be answered twice sees nothing of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process.conftest import Site
from tests.process.load import Seen, Wrk

pytestmark = pytest.mark.process

BROKEN = {
    "raises": "raise ValueError('on purpose')",
    "ends its process": "os._exit(3)",
    "answers 500": "return answer({}, 500)",
    "answers 507": "return answer({}, 507)",
    "hangs": "time.sleep(60)",
}
ANY_ANSWER = '    query = event.get("queryStringParameters") or {}\n'


def canary(site: Site, *, shield: bool = True, weight_percent: int = 20, alarm: str = "") -> None:
    """The service with a strategy that bakes long enough for every alarm; functions end after a second."""
    settings = f"strategy: Canary{weight_percent}Percent20Seconds\n        shield: {str(shield).lower()}{alarm}"
    site.edit("smoke: [GET /fast]", settings, "serverless.yml")
    site.edit("timeout: 5", "timeout: 1", "serverless.yml")
    site.up()


def ship_broken(site: Site, how: str) -> Any:
    site.edit(ANY_ANSWER, f"{ANY_ANSWER}    {BROKEN[how]}\n")
    return site.hitless("deploy", exit_code=3).document


def ship_under_load(site: Site, how: str) -> tuple[Any, Seen, Seen]:
    """The deploy's document, and what clients saw that keep their connections, and that close them."""
    gets = {"slow_one_in": 1 << 30, "post_one_in": 1 << 30}
    with (
        Wrk(site.url, connections=4, closing_one_in=1 << 30, **gets) as kept,
        Wrk(site.url, connections=2, closing_one_in=1, **gets) as closed,
    ):
        document = ship_broken(site, how)
        assert kept.running and closed.running, "the load outlasted the rollout"
        return document, kept.end(), closed.end()


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_canary_is_rolled_back_and_no_get_fails(site: Site, how: str) -> None:
    canary(site)
    document, kept, closed = ship_under_load(site, how)
    assert document["outcome"] == "rolled_back"
    assert "alarm" in document["reason"]
    assert (kept.failed, closed.failed) == (0, 0), (kept, closed)
    assert kept.requests > 100
    assert closed.requests > 100
    assert document["candidate"]["failed"] == 0
    assert document["candidate"]["shielded"] == document["candidate"]["requests"] >= 20
    assert document["live"]["failed"] == 0
    assert site.stage()["live"]["release"] == 1
