"""Attacks on the dashboard: no session, used links, other hosts, other pages' forms. Each guard was seen to fail when
removed.

Sources: RFC 6265, sections 5.1.4 and 8.5 (cookies, paths and ports); https://cheatsheetseries.owasp.org/cheatsheets/
Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html (origin and token); CSP Level 3, section 6.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hitless.cli.dashboard import tls_options
from hitless.dashboard.door import COOKIE, LINK_S, SESSION_S, Door
from hitless.dashboard.server import MAX_FORM_BYTES
from hitless.errors import UsageError
from tests.certificates import certificate, write_certificate
from tests.component.dashboard_site import HOST, DashboardSite, post, visit
from tests.fakes import FakeClock

pytestmark = pytest.mark.component

PAGES = (
    *("/", "/stages/staging", "/releases", "/stages/staging/releases/1", "/functions", "/runs", "/runs/1", "/events"),
    *("/access", "/static/dashboard.js"),
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DashboardSite]:
    one = DashboardSite(tmp_path)
    yield one
    one.close()


def get(site: DashboardSite, url: str, **headers: str) -> httpx.Response:
    """A response without a session."""

    async def story() -> httpx.Response:
        async with site.client(enter=False) as client:
            return await client.get(url, headers=headers)

    return asyncio.run(story())


def test_no_page_is_shown_without_a_session(site: DashboardSite) -> None:
    async def story() -> list[httpx.Response]:
        async with site.client(enter=False) as client:
            return [await client.get(path) for path in PAGES]

    for refused in asyncio.run(story()):
        assert refused.status_code == 403
        assert "Run `hitless dashboard` for a new link" in refused.text
        assert "staging" not in refused.text


def test_no_action_is_taken_without_a_session(site: DashboardSite) -> None:
    async def story() -> httpx.Response:
        async with site.client(enter=False) as client:
            return await client.post("/stages/staging/abort", data={"form_key": ""}, headers={"origin": HOST})

    assert asyncio.run(story()).status_code == 403
    assert site.engine.begun == []


def test_a_link_works_once(site: DashboardSite) -> None:
    link = HOST + site.door.new_link()
    assert COOKIE in get(site, link).headers["set-cookie"]
    again = get(site, link)
    assert again.status_code == 403
    assert "set-cookie" not in again.headers


def test_a_link_that_nobody_opened_ends(site: DashboardSite) -> None:
    link = HOST + site.door.new_link()
    site.clock.elapsed_s += LINK_S
    assert get(site, link).status_code == 403


def test_a_wrong_token_opens_no_session(site: DashboardSite) -> None:
    assert get(site, f"{HOST}{site.door.base}/enter/guess").status_code == 403


def test_a_session_ends(site: DashboardSite) -> None:
    async def story() -> list[int]:
        async with site.client() as client:
            before = await client.get("/")
            site.clock.elapsed_s += SESSION_S
            return [before.status_code, (await client.get("/")).status_code]

    assert asyncio.run(story()) == [200, 403]


def test_a_page_that_follows_gets_nothing_more_when_the_session_has_ended(site: DashboardSite) -> None:
    async def story() -> str:
        async with site.client() as client:
            site.clock.elapsed_s = SESSION_S - 3
            return (await client.get("/", headers={"accept": "text/event-stream"})).text

    assert asyncio.run(story()).startswith("data: ")
    assert site.clock.elapsed_s == SESSION_S


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example", "", "[", "10.0.0.1:9191"])
def test_a_foreign_host_name_is_refused_even_with_a_session(site: DashboardSite, host: str) -> None:
    """DNS rebinding: the attacker's name resolves to 127.0.0.1."""

    async def story() -> httpx.Response:
        async with site.client() as client:
            cookie = client.cookies[COOKIE]
            return await client.get("/", headers={"host": host, "cookie": f"{COOKIE}={cookie}"})

    refused = asyncio.run(story())
    assert refused.status_code == 403
    assert "not one of this dashboard" in refused.text


@pytest.mark.parametrize("host", ["localhost:9191", "127.0.0.1:2222", "[::1]:9191"])
def test_a_tunnel_may_have_another_port(host: str) -> None:
    assert Door(FakeClock()).refusal("GET", {"host": host}) is None


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8080", "http://attacker.example", "null", "https://127.0.0.1:9191", None]
)
def test_a_form_of_another_page_is_refused(site: DashboardSite, origin: str | None) -> None:
    """A service on another port of this host is the same *site*, so SameSite does not stop its forms."""
    refused = post(site, "/stages/staging/abort", origin=origin)
    assert refused.status_code == 403
    assert site.engine.begun == []


def test_a_form_without_the_sessions_key_is_refused(site: DashboardSite) -> None:
    refused = post(site, "/stages/staging/abort", {"form_key": "x"}, keyed=False)
    assert refused.status_code == 403
    assert site.engine.begun == []


def test_a_huge_form_is_refused(site: DashboardSite) -> None:
    assert post(site, "/runs/1/approve", {"why": "x" * MAX_FORM_BYTES}).status_code == 404
    assert site.engine.begun == []


def test_the_cookie_is_hidden_from_scripts_other_sites_and_other_ports(site: DashboardSite) -> None:
    cookie = get(site, HOST + site.door.new_link()).headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", f"Path={site.door.base}"} <= set(cookie)
    assert len(site.door.base) > 20
    link = Door(FakeClock(), secure=True)
    assert "; Secure" in str(link.enter(link.new_link().rpartition("/")[2]))


def test_two_dashboards_have_different_paths(site: DashboardSite) -> None:
    assert Door(FakeClock()).base != Door(FakeClock()).base


def test_no_page_runs_inline_scripts_or_is_framed_or_cached_and_text_is_escaped(site: DashboardSite) -> None:
    for path, page in zip(PAGES, visit(site, *PAGES), strict=True):
        policy = page.headers["content-security-policy"]
        assert page.status_code == 200
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src 'unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "no-store" in page.headers["cache-control"] or path.startswith("/static/")
        assert '<script>alert("x")' not in page.text, "of people and handlers"


def test_unknown_pages_and_files_are_not_found(site: DashboardSite) -> None:
    paths = ("/static/../door.py", "/static/door.py", "/stages/staging/releases/99", "/stages/nowhere", "/runs/x")
    assert {page.status_code for page in visit(site, *paths)} == {404}


def test_the_name_of_a_stage_is_no_path_to_a_log(site: DashboardSite) -> None:
    names = ("release", "method", "path", "query", "server", "request", "end")
    numbers = dict.fromkeys(("at_ms", "status", "duration_ms", "bytes"), 1)
    line = json.dumps({**dict.fromkeys(names, "elsewhere"), **numbers})
    for folder in (site.folders.data, site.folders.logs / "dev"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "access.log").write_text(line + "\n")
    outside, inside = visit(site, "/access?stage=..", "/access?stage=dev")
    assert "0 shown of 0" in outside.text
    assert "1 shown of 1" in inside.text


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "::", "shop.example.com"])
def test_an_address_that_other_machines_reach_needs_tls(host: str) -> None:
    with pytest.raises(UsageError, match="needs TLS"):
        tls_options(host, None, None)


def test_tls_needs_a_certificate_with_its_own_key(tmp_path: Path) -> None:
    write_certificate(tmp_path, "shop.example.com")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    assert tls_options("0.0.0.0", chain, key) == {"ssl_certfile": chain, "ssl_keyfile": key}
    with pytest.raises(UsageError, match="belong together"):
        tls_options("127.0.0.1", chain, None)
    key.write_bytes(certificate("shop.example.com")[1])
    with pytest.raises(UsageError, match="--certificate"):
        tls_options("0.0.0.0", chain, key)
