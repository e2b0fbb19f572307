"""The dashboard's pages and actions, over a real state file and a recorded engine."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hitless.dashboard.door import SESSION_S
from tests.component.dashboard_site import CANDIDATE, HOST, ON_AWS, DashboardSite, post, stage, visit

pytestmark = pytest.mark.component

PERSON = "ada@here (dashboard)"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DashboardSite]:
    one = DashboardSite(tmp_path, releases=3)
    yield one
    one.close()


def words_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split()).replace(" ,", ",")


def test_the_overview_says_what_is_live_what_ships_and_what_waits(site: DashboardSite) -> None:
    text = words_of(visit(site, "/")[0].text)
    assert "shop: 2 of 3 stages live, 1 shipping, 1 waiting for approval" in text
    assert "staging : release 12 has 10 % of the traffic, 22 s left" in text
    assert "asks whether c0ffeec0 may ship to prod" in text
    assert "differs from dev" not in text, "a stage that ships shows its rollout instead"
    site.engine.stages[1] = stage("staging")
    site.clock.elapsed_s += 5
    assert "differs from dev" in words_of(visit(site, "/")[0].text)


def test_a_rollout_is_shown_beside_the_live_release_with_its_limit_and_readings(site: DashboardSite) -> None:
    text = visit(site, "/stages/staging")[0].text
    shown = words_of(text)
    assert "Release 12 is baking with 10 % of the traffic, 22 s left" in shown
    assert "candidate 12 810 2 40 1.5 ms 12.5 ms live 11 7,190 0 – 1.25 ms 7.5 ms" in shown
    assert "✓ ok 42 of 8100 requests failed" in shown
    assert "alarm above 1 %" in text
    assert "42 of 810 requests failed" in shown
    assert "1.2 busy workers on average" in shown


def test_latency_is_drawn_while_a_rollout_is_watched(site: DashboardSite) -> None:
    site.engine.stages[1] = stage("staging", candidate={**CANDIDATE, "release": 3})
    first = visit(site, "/stages/staging")[0].text
    site.clock.elapsed_s += 2
    second = visit(site, "/stages/staging")[0].text
    assert "p50 and p99 of both releases in milliseconds" not in first, "one reading is no line"
    assert "p50 and p99 of both releases in milliseconds" in second
    assert all(f'class="line {name}"' in second for name in ("candidate", "candidate p50", "live", "live p50"))


def test_a_stage_on_aws_is_shown_beside_the_others_and_no_page_waits_for_it(site: DashboardSite) -> None:
    answers = threading.Event()

    def elsewhere() -> list[dict[str, Any]]:
        answers.wait(60)
        return ON_AWS

    feed = site.dashboard.pages.feed
    feed.elsewhere = elsewhere

    async def story() -> tuple[str, str, str]:
        async with site.client() as client:
            before = (await client.get("/")).text
            answers.set()
            assert feed._look is not None
            await feed._look
            site.clock.elapsed_s += 2
            return before, (await client.get("/")).text, (await client.get("/stages/cloud")).text

    before, overview, page = asyncio.run(story())
    assert "cloud" not in before
    text = words_of(overview)
    assert "shop: 3 of 5 stages live, 1 unknown, 1 shipping" in text
    assert "on AWS requests/s – p99 – failed – 1 problem" in text
    assert "AWS cannot be reached" in text
    shown = words_of(page)
    assert "release 11 is live on AWS" in shown
    assert "version 7 90 %, version 8 10 %" in shown
    assert "alias live: was moved by hand; hitless aws repair" in shown
    assert "/rollback" not in page, "the engine cannot act there"


@pytest.mark.parametrize(
    ("path", "fields", "asked", "body"),
    [
        ("/stages/staging/abort", {}, "/stages/staging/abort", {}),
        ("/stages/staging/rollback", {"release": "2"}, "/stages/staging/rollback", {"release": 2, "wait": False}),
        ("/stages/staging/rollback", {"why": "slow"}, "/stages/staging/rollback", {"message": "slow"}),
        ("/stages/staging/rollback", {}, "/stages/staging/rollback", {"release": None, "wait": False}),
        ("/stages/prod/promote", {"from": "staging"}, "/stages/prod/promote", {"from": "staging", "actor": PERSON}),
        ("/runs/1/approve", {"why": "read it"}, "/pipeline/runs/1/approve", {"by": PERSON, "why": "read it"}),
        ("/runs/1/reject", {"why": ""}, "/pipeline/runs/1/reject", {"by": PERSON, "why": None}),
        ("/runs/1/retry", {}, "/pipeline/runs/1/retry", {"by": PERSON}),
        ("/runs/1/stop", {}, "/pipeline/runs/1/stop", {"by": PERSON}),
    ],
)  # fmt: skip
def test_an_action_asks_the_engine_and_shows_the_result(
    site: DashboardSite, path: str, fields: dict[str, str], asked: str, body: dict[str, Any]
) -> None:
    response = post(site, path, fields)
    assert response.status_code == 303
    ((called, given),) = site.engine.begun
    assert called == asked
    assert body.items() <= given.items()


def test_a_refused_action_shows_the_engines_reason_once(site: DashboardSite) -> None:
    site.engine.refuses = "staging has no rollout in progress"

    async def story() -> list[str]:
        async with site.client() as client:
            sent = await client.post("/stages/staging/abort", data=site.form(), headers={"origin": HOST})
            return [(await client.get(HOST + sent.headers["location"])).text for _ in range(2)]

    first, second = asyncio.run(story())
    assert "staging has no rollout in progress. try again" in first
    assert "staging has no rollout in progress" not in second


@pytest.mark.parametrize("path", ["/stages/staging/explode", "/runs/1/explode"])
def test_an_unknown_action_is_not_found(site: DashboardSite, path: str) -> None:
    assert post(site, path).status_code == 404


def test_a_follower_gets_the_page_again_only_when_it_has_changed(site: DashboardSite) -> None:
    async def story() -> list[str]:
        async with site.client() as client:
            site.clock.elapsed_s = SESSION_S - 20
            return (await client.get("/functions", headers={"accept": "text/event-stream"})).text.split("\n\n")

    events = asyncio.run(story())
    pages = [json.loads(one.removeprefix("data: ")) for one in events if one.startswith("data: ")]
    assert len(pages) == 1
    assert "<html" not in pages[0]
    assert ":" in events, "a quiet stream sends a comment, so that a browser that has gone is noticed"


def test_history_is_shown_when_no_engine_runs(site: DashboardSite) -> None:
    site.engine.runs = False
    overview, releases, run, one = visit(site, "/", "/releases", "/runs/1", "/stages/staging")
    assert "The engine is not running" in overview.text
    assert "rolled back" in words_of(releases.text)
    assert "waiting for approval" in words_of(run.text)
    assert "<form" not in run.text + one.text, "nothing can be asked of it"


def test_sixty_stages_and_ten_thousand_releases_stay_small(tmp_path: Path) -> None:
    site = DashboardSite(tmp_path)
    try:
        with site.store.transaction() as db:
            rows = [(f"s{number % 60}", number) for number in range(2, 10_001)]
            db.executemany(
                "INSERT INTO rollouts (stage, release, verb, strategy, state, outcome, started_at) VALUES"
                " (?, ?, 'deploy', 'AllAtOnce', 'ended', 'live', '2026-11-24T05:50:00.000Z')",
                rows,
            )
        site.engine.stages = [stage(f"s{number}") for number in range(60)]
        overview, first, functions = visit(site, "/", "/releases", "/functions")
        assert overview.text.count('class="stop"') == 60
        assert first.text.count("<tr>") == 51
        assert functions.text.count("<tr>") == 51
        assert max(len(page.content) for page in (overview, first, functions)) < 100_000
        older = re.search(r'href="(\?before=\d+)">Older', first.text)
        assert older
        (second,) = visit(site, "/releases" + older[1])
        assert "/stages/s50/releases/9950" in second.text
        assert "/stages/s40/releases/10000" not in second.text
        (last,) = visit(site, "/releases?stage=s5&outcome=live&before=100")
        assert set(re.findall(r"/stages/(\w+)/releases", last.text)) == {"s5"}
        assert "Older" not in last.text
    finally:
        site.close()
