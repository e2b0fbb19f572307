"""The dashboard's pages and actions, over a real state file and a recorded engine."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from hitless.dashboard.door import SESSION_S
from hitless.service.model import Home
from hitless.store.runs import NewRun, RunRecords
from tests.component.dashboard_site import AT, HOST, ON_AWS, DashboardSite, post, samples, stage, visit
from tests.unit.test_receipt_page import NASTY

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


LATENCY = "p50 and p99 of both releases in milliseconds"


def test_the_latency_of_a_rollout_is_drawn_by_the_engines_samples_whenever_the_page_is_opened(
    site: DashboardSite,
) -> None:
    start_s = (site.clock.now() - datetime.fromisoformat(AT)).total_seconds()
    site.engine.recent = samples((start_s + 5, 3, 9), (start_s, 1, 90), (5, 1, 7))
    (before,) = visit(site, "/stages/staging")
    assert LATENCY not in before.text, "no sample of release 3 during its rollout"
    site.engine.recent = samples((start_s, 3, 10))
    site.clock.elapsed_s += 2
    (after,) = visit(site, "/stages/staging")
    assert LATENCY in after.text
    assert all(f'class="line {name}"' in after.text for name in ("candidate", "candidate p50"))


def test_the_last_hour_is_drawn_with_gaps_where_no_request_came(site: DashboardSite) -> None:
    site.engine.recent = samples((7_000, 2, 999), (600, 2, 300), (598, 2, 300), (90, 2, 600))
    (page,) = visit(site, "/stages/staging")
    assert "The last hour" in page.text
    assert "−30 min" in page.text
    assert "20 /s" in page.text, "600 requests in 20 s, under the next round tick"
    assert len(re.findall(r'<polyline class="line all"', page.text)) == 2, "one part for each time with requests"
    assert len(re.findall(r'<polyline class="line requests"', page.text)) == 1
    site.engine.recent = []
    site.clock.elapsed_s += 5
    assert "The last hour" not in visit(site, "/stages/staging")[0].text


async def far_pages(site: DashboardSite, client: httpx.AsyncClient, *paths: str) -> list[str]:
    """The pages after AWS has responded to what they asked."""
    elsewhere = site.dashboard.pages.feed.elsewhere
    elsewhere.statuses = lambda: ON_AWS
    for path in ("/", *paths):
        await client.get(path)
        await asyncio.gather(*elsewhere._asking.values())
        site.clock.elapsed_s += 2
    return [(await client.get(path)).text for path in paths]


def test_a_stage_on_aws_is_shown_beside_the_others_and_no_page_waits_for_it(site: DashboardSite) -> None:
    answers = threading.Event()

    def statuses() -> list[dict[str, Any]]:
        answers.wait(60)
        return ON_AWS

    elsewhere = site.dashboard.pages.feed.elsewhere
    elsewhere.statuses = statuses

    async def story() -> tuple[str, ...]:
        async with site.client() as client:
            before = (await client.get("/")).text
            answers.set()
            await asyncio.gather(*elsewhere._asking.values())
            return before, *await far_pages(site, client, "/", "/stages/cloud", "/stages/cloud/releases/12")

    before, overview, page, receipt = asyncio.run(story())
    assert "cloud" not in before
    text = words_of(overview)
    assert "shop: 3 of 5 stages live, 1 unknown, 1 shipping" in text
    assert "on AWS requests/s – p99 – failed – 1 problem" in text
    assert "AWS cannot be reached" in text
    seen = words_of(page)
    assert "release 11 is live on AWS" in seen
    assert "version 7 90 %, version 8 10 %" in seen
    assert "alias live: was moved by hand; hitless aws repair" in seen
    assert "12 ✕ rolled back an alarm AllAtOnce 1a2b3c4d" in seen
    assert NASTY not in page
    assert "release 12: 2 of 8,000 requests failed" in receipt


@pytest.mark.parametrize(
    ("verb", "fields", "asked", "said"),
    [
        ("rollback", {"release": "9", "why": "slow"}, ("rollback", 9, "slow"), "Rollback of cloud: live, release 9."),
        ("rollback", {}, ("rollback", None, None), "Rollback of cloud: live, release 10."),
        ("abort", {}, ("abort",), "Abort of cloud: aborted, release –."),
    ],
)
def test_an_action_on_aws_is_that_of_the_command_line_and_shows_its_result(
    site: DashboardSite, verb: str, fields: dict[str, str], asked: tuple[Any, ...], said: str
) -> None:
    async def story() -> str:
        async with site.client() as client:
            (page,) = await far_pages(site, client, "/stages/cloud")
            assert f'/stages/cloud/{verb}"' in page or verb == "abort"
            assert page.count('name="home" value="aws"') == page.count('name="form_key"') > 0
            form = site.form(home="aws", **fields)
            sent = await client.post(f"/stages/cloud/{verb}", data=form, headers={"origin": HOST})
            return (await client.get(HOST + sent.headers["location"])).text

    assert said in asyncio.run(story())
    place = site.far.asked.index(asked)
    assert site.far.asked[place - 1] == (Home.AWS, "cloud")
    assert site.far.asked[place + 1 :] == [(Home.AWS, "cloud")], "its releases are read again"
    assert site.engine.begun == []


def test_a_missing_permission_on_aws_is_a_sentence_on_each_page(site: DashboardSite) -> None:
    site.far.denies = "user/ada is not authorized to perform s3:GetObject"

    async def story() -> tuple[str, str, str]:
        async with site.client() as client:
            page, receipt = await far_pages(site, client, "/stages/cloud", "/stages/cloud/releases/12")
            form = site.form(home="aws")
            sent = await client.post("/stages/cloud/rollback", data=form, headers={"origin": HOST})
            return page, receipt, (await client.get(HOST + sent.headers["location"])).text

    assert all(site.far.denies in page for page in asyncio.run(story()))


def test_a_promotion_to_or_from_aws_names_the_homes_and_the_folder(site: DashboardSite, tmp_path: Path) -> None:
    async def story() -> None:
        async with site.client() as client:
            await far_pages(site, client, "/")
            assert '<option value="aws/cloud">cloud</option>' in (await client.get("/stages/dev")).text
            for target, source in (("cloud", "staging"), ("dev", "aws/cloud"), ("prod", "staging")):
                form = site.form(home="aws" if target == "cloud" else "engine", **{"from": source})
                await client.post(f"/stages/{target}/promote", data=form, headers={"origin": HOST})

    asyncio.run(story())
    asked = [(path, body["from_home"], body["folder"]) for path, body in site.engine.begun]
    assert asked == [
        ("/stages/cloud/promote", "engine", str(tmp_path)),
        ("/stages/dev/promote", "aws", str(tmp_path)),
        ("/stages/prod/promote", "engine", None),
    ]


def test_an_action_on_aws_needs_the_forms_key_and_origin(site: DashboardSite) -> None:
    async def story() -> list[int]:
        async with site.client() as client:
            await far_pages(site, client, "/")
            site.far.asked.clear()
            tries = ((site.form(home="aws"), "http://evil.example"), ({"form_key": "x", "home": "aws"}, HOST))
            return [
                (await client.post("/stages/cloud/rollback", data=form, headers={"origin": origin})).status_code
                for form, origin in tries
            ]

    assert asyncio.run(story()) == [403, 403]
    assert site.far.asked == []


def test_an_action_never_reaches_the_other_home_that_has_a_stage_of_the_same_name(site: DashboardSite) -> None:
    """The stages on AWS are known seconds after the first page, and a stage may have moved since."""

    async def story() -> list[str]:
        async with site.client() as client:
            await far_pages(site, client, "/")
            site.far.asked.clear()
            pages = []
            for name, home, verb in (("cloud", "engine", "rollback"), ("staging", "aws", "abort")):
                data = site.form(home=home)
                sent = await client.post(f"/stages/{name}/{verb}", data=data, headers={"origin": HOST})
                pages.append((await client.get(HOST + sent.headers["location"])).text)
            return pages

    cloud, staging = asyncio.run(story())
    assert "the page was out of date: AWS serves cloud" in cloud
    assert "the page was out of date: the engine serves staging" in staging
    assert not [asked for asked in site.far.asked if asked[0] in ("rollback", "abort")]
    assert site.engine.begun == []


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


def test_runs_and_promotions_of_services_that_share_the_engine_name_the_service(site: DashboardSite) -> None:
    new = NewRun(branch="feature", commit="c0ffee", verb="push", actor="ada", message=None, options={})
    RunRecords(site.store, "users").add(new, state="queued", at="2026-11-24T05:50:00.000Z")
    site.engine.stages = [stage(name) for name in ("users_dev", "users_prod", "shop_dev")]
    runs, one = visit(site, "/runs", "/stages/users_prod")
    assert "feature (users)" in words_of(runs.text)
    assert re.findall(r"<option [^>]*>(\w+)</option>", one.text) == ["users_dev"], "no release of another service"


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
