"""The dashboard in a real Chromium: every page and action, live updates, a phone, and what axe-core finds."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from hitless.clock import SystemClock
from hitless.dashboard.door import SESSION_S
from hitless.gateway.listeners import listen
from hitless.store.runs import RunRecords
from tests.browser.chrome import Chrome, chrome
from tests.component.dashboard_site import CANDIDATE, ON_AWS, DashboardSite, samples, stage
from tests.support import eventually

pytestmark = pytest.mark.browser

AXE = Path(__file__).parents[2] / "node" / "node_modules" / "axe-core" / "axe.min.js"
PAGES = ("/", "/stages/staging", "/stages/cloud", "/releases", "/functions", "/runs", "/runs/1", "/events", "/access")
RECEIPT = "/stages/staging/releases/2"
MOST_BYTES = 150_000


class AgingClock(SystemClock):
    """The machine's clock, which a test sets forward."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class Visitor:
    """A browser with a session at a dashboard."""

    def __init__(self, browser: Chrome, site: DashboardSite, clock: AgingClock, address: str) -> None:
        self.chrome, self.site, self.clock = browser, site, clock
        self.address, self.base = address, address + site.door.base

    def enter(self) -> None:
        self.chrome.open(self.address + self.site.door.new_link())
        self.chrome.wait("!!document.querySelector('.link.on')")

    def open(self, path: str) -> None:
        self.chrome.open(self.base + path)


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    folder, clock = tmp_path_factory.mktemp("dashboard"), AgingClock()
    site = DashboardSite(folder, releases=2, clock=clock)
    site.engine.stages[1] = stage("staging", candidate={**CANDIDATE, "release": 2})
    site.dashboard.pages.feed.elsewhere.statuses = lambda: ON_AWS
    site.engine.recent = samples(*((second, 2, 50) for second in range(900, 0, -2)))
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(site.application, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with chrome(folder) as browser:
                one = Visitor(browser, site, clock, f"http://127.0.0.1:{listener.getsockname()[1]}")
                browser.look_like(width=1240)
                one.enter()
                yield one
        except FileNotFoundError as missing:
            pytest.skip(str(missing))
        finally:
            server.should_exit = True
            thread.join()
            site.close()


def test_a_page_is_small_and_loads_nothing_from_elsewhere(visitor: Visitor) -> None:
    browser = visitor.chrome
    browser.do("Network.clearBrowserCache")
    browser.bytes_received = 0
    visitor.open("/stages/staging")
    browser.wait("!!document.querySelector('.link.on')")
    loaded = browser.run("performance.getEntriesByType('resource').map(one => one.name)")
    assert len(loaded) >= 3
    assert all(one.startswith((visitor.base, "data:")) for one in loaded)
    assert 5_000 < browser.bytes_received < MOST_BYTES


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(visitor: Visitor, dark: bool) -> None:
    if not AXE.exists():
        pytest.skip("needs axe-core: scripts/setup --dev")
    browser, found, script = visitor.chrome, [], AXE.read_text() + ";0"
    browser.look_like(width=1240, dark=dark)
    rules = "{runOnly: ['color-contrast']}" if dark else "{resultTypes: ['violations']}"
    for path in ("/", "/stages/staging", "/runs/1") if dark else (*PAGES, RECEIPT):
        visitor.open(path)
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        browser.run(script)
        text = browser.run(f"axe.run({rules}).then((all) => JSON.stringify(all.violations))")
        serious = [one for one in json.loads(text) if one["impact"] in ("serious", "critical")]
        found += [(path, one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in serious]
    assert found == []


@pytest.mark.parametrize("width", [360, 1240])
def test_every_page_fits_its_window_and_the_console_stays_empty(visitor: Visitor, width: int) -> None:
    browser = visitor.chrome
    browser.messages.clear()
    browser.look_like(width=width)
    for path in (*PAGES, RECEIPT):
        visitor.open(path)
        assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0, path
        outside = "[...document.querySelectorAll('h1, h2, p, button')].filter((one) => "
        outside += "one.getBoundingClientRect().right > innerWidth && !one.closest('.scroll, nav')).length"
        assert browser.run(outside) == 0, path
    assert browser.messages == []


def test_an_inline_script_would_be_seen_on_the_console(visitor: Visitor) -> None:
    browser = visitor.chrome
    visitor.open("/")
    browser.messages.clear()
    browser.run("document.body.append(Object.assign(document.createElement('script'), {textContent: '1'}))")
    browser.wait("true")
    eventually(lambda: browser.run("1") and browser.messages, what="the refused script's message")
    assert "Content Security Policy" in browser.messages[0]


def test_a_page_changes_by_itself_and_keeps_what_a_person_types(visitor: Visitor) -> None:
    browser, engine = visitor.chrome, visitor.site.engine
    browser.look_like(width=1240)
    visitor.open("/stages/staging")
    browser.run("document.querySelector('#rollback summary').click()")
    browser.wait("document.activeElement.name === 'release'")
    browser.do("Input.insertText", text="7")
    engine.stages[1] = stage("staging", candidate={**CANDIDATE, "weight_percent": 50, "requests": 4321})
    browser.wait("document.querySelector('.rollout').innerText.includes('50 % of the traffic')")
    browser.wait("document.querySelector('.rollout').innerText.includes('4,321')")
    assert browser.run("document.activeElement.name + document.activeElement.value") == "release7"
    assert browser.run("document.querySelector('#rollback').open")
    engine.stages[1] = stage("staging", candidate=CANDIDATE)


@pytest.mark.parametrize(
    ("page", "form", "asked"),
    [
        ("/stages/staging", "abort", "/stages/staging/abort"),
        ("/stages/staging", "rollback", "/stages/staging/rollback"),
        ("/stages/staging", "promote", "/stages/staging/promote"),
        ("/runs/1", "approve", "/pipeline/runs/1/approve"),
        ("/runs/1", "reject", "/pipeline/runs/1/reject"),
    ],
)
def test_an_action_works_by_the_keyboard(visitor: Visitor, page: str, form: str, asked: str) -> None:
    browser, engine = visitor.chrome, visitor.site.engine
    engine.begun.clear()
    visitor.open(page)
    browser.run(f"document.querySelector('#{form} summary').focus()")
    browser.press("Enter")
    browser.wait(f"document.querySelector('#{form}').open")
    browser.run(f"document.querySelector('#{form} form button').focus()")
    browser.press("Enter")
    browser.wait("document.querySelector('.said')?.innerText.includes('the engine has accepted it')")
    assert [path for path, _ in engine.begun] == [asked]


@pytest.mark.parametrize(("state", "form"), [("failed", "retry"), ("running", "stop")])
def test_a_run_offers_what_its_state_allows(visitor: Visitor, state: str, form: str) -> None:
    browser, engine = visitor.chrome, visitor.site.engine
    engine.begun.clear()
    records = RunRecords(visitor.site.store)
    try:
        records.set_state(1, state, None, None)
        visitor.open("/runs/1")
        assert browser.run("[...document.querySelectorAll('.ask')].map((one) => one.id).join()") == form
        browser.run(f"document.querySelector('#{form} form').requestSubmit()")
        browser.wait("!!document.querySelector('.said')")
        assert [path for path, _ in engine.begun] == [f"/pipeline/runs/1/{form}"]
    finally:
        records.set_state(1, "waiting_for_approval", None, None)


def test_escape_closes_a_form_and_returns_to_its_button(visitor: Visitor) -> None:
    browser = visitor.chrome
    visitor.open("/stages/staging")
    browser.run("document.querySelector('#abort summary').click()")
    browser.wait("document.querySelector('#abort').open")
    browser.press("Escape")
    browser.wait("!document.querySelector('#abort').open")
    assert browser.run("document.activeElement.parentElement.id") == "abort"


def test_the_first_tab_stop_skips_the_navigation(visitor: Visitor) -> None:
    visitor.open("/")
    visitor.chrome.press("Tab")
    assert visitor.chrome.run("document.activeElement.innerText") == "Skip to the content"


def test_a_page_says_when_its_session_has_ended(visitor: Visitor) -> None:
    visitor.open("/events")
    visitor.chrome.wait("!!document.querySelector('.link.on')")
    visitor.clock.ahead_s += SESSION_S
    visitor.chrome.wait("document.querySelector('#link').innerText.includes('run hitless dashboard again')")
    visitor.enter()
