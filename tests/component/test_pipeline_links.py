"""Approval links: each is valid for one question."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hitless.api.receiver import MAX_FORM_BYTES
from hitless.pipeline import approvals
from tests.component.receiver_site import ASKED, Site

pytestmark = pytest.mark.component


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.remote.store.close()


def test_an_approval_link_shows_its_question_and_accepts_one_answer(site: Site) -> None:
    page = site.ask("GET", f"/approve/7?token={site.token()}")
    assert page.status_code == 200
    assert "Count &lt;zones&gt;" in page.text
    form = {"token": site.token(), "verb": "approve", "by": "Bo", "why": "seen"}
    assert "approved" in site.ask("POST", "/approve/7", data=form).text
    assert site.engine.asked("/pipeline/runs/7/approve") == [{"by": "Bo (by link)", "why": "seen"}]
    assert site.ask("POST", "/approve/7", data=form).status_code == 403, "the question has its answer"
    assert len(site.engine.asked("/pipeline/runs/7/approve")) == 1


def test_an_approvers_name_is_required_and_cleaned(site: Site) -> None:
    form = {"token": site.token(), "verb": "reject", "by": " \x1b\n "}
    assert site.ask("POST", "/approve/7", data=form).status_code == 400
    assert (
        site.ask("POST", "/approve/7", data={**form, "by": f"\x1b[2J{'o' * 200}", "why": "w" * 600}).status_code == 200
    )
    (answer,) = site.engine.asked("/pipeline/runs/7/reject")
    assert answer == {"by": f"[2J{'o' * 96} (by link)", "why": "w" * 500}


def test_an_approval_page_runs_no_script_and_is_not_cached(site: Site) -> None:
    headers = site.ask("GET", f"/approve/7?token={site.token()}").headers
    assert headers["content-security-policy"].startswith("default-src 'none';")
    assert (headers["referrer-policy"], headers["cache-control"]) == ("no-referrer", "no-store")


def test_an_approval_link_is_valid_only_for_its_own_question(site: Site) -> None:
    for wrong in ("", "0" * 64, site.token(run=8), site.token(asked="2026-11-23T06:00:00.000Z")):
        assert site.ask("GET", "/approve/7", params={"token": wrong}).status_code == 403
        form = {"token": wrong, "verb": "approve", "by": "Bo"}
        assert site.ask("POST", "/approve/7", data=form).status_code == 403
    assert site.engine.asked("/pipeline/runs/7/approve") == []


def test_notifications_have_an_approval_link_if_the_receiver_has_an_address(tmp_path: Path) -> None:
    assert approvals.approval_link(tmp_path, 7, ASKED) is None
    approvals.publish_receiver(tmp_path, "https://ci.example.org/")
    link = approvals.approval_link(tmp_path, 7, ASKED)
    assert (
        link == f"https://ci.example.org/approve/7?token={approvals.link_token(approvals.link_key(tmp_path), 7, ASKED)}"
    )
    assert (tmp_path / "link.key").stat().st_mode & 0o777 == 0o600


def test_the_key_file_for_links_is_synced_before_it_is_used(tmp_path: Path) -> None:
    file, synced = tmp_path / "link.key", list[tuple[bool, bool]]()

    def sync(descriptor: int) -> None:
        synced.append((os.path.sameopenfile(descriptor, holder), file.exists()))
        assert file.exists() or os.fstat(descriptor).st_size == approvals.KEY_BYTES

    holder = os.open(tmp_path, os.O_RDONLY)
    try:
        key = approvals.link_key(tmp_path, sync=sync)
    finally:
        os.close(holder)
    assert synced == [(False, False), (True, True)]
    assert approvals.link_key(tmp_path) == key


@pytest.mark.parametrize("left", [b"", b"half a key"])
def test_an_incomplete_key_for_links_is_replaced(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "link.key").write_bytes(left)
    key = approvals.link_key(tmp_path)
    assert len(key) == approvals.KEY_BYTES
    assert [one.name for one in tmp_path.iterdir()] == ["link.key"]
    assert approvals.link_key(tmp_path) == key


def test_the_question_about_a_fork_shows_its_changed_files(site: Site) -> None:
    fork = {"number": 5, "origin": "stranger/shop", "base": "dev"}
    commits = [{"commit": "1a2b3c4d5e", "subject": "<script>alert(1)</script>"}]
    asked = {"run": 7, "fork": fork, "commit": "1a2b3c4d5e", "commits": commits, "files": ["<b>.py"]}
    site.engine.run = {**site.engine.run, "stage": None, "question": asked}
    page = site.ask("GET", f"/approve/7?token={site.token()}").text
    assert "test the code of a stranger?" in page
    assert "<li>&lt;b&gt;.py" in page
    assert "<script>" not in page


def test_an_approval_link_can_only_approve_or_reject(site: Site) -> None:
    for verb in ("retry", "stop", "../8/approve", ""):
        form = {"token": site.token(), "verb": verb, "by": "Bo"}
        assert site.ask("POST", "/approve/7", data=form).status_code == 403
    assert [path for path, _ in site.engine.calls if path != "/pipeline/runs/7"] == []


def test_a_too_large_approval_form_is_refused(site: Site) -> None:
    form = {"token": site.token(), "verb": "approve", "by": "Bo", "why": "x" * MAX_FORM_BYTES}
    assert site.ask("POST", "/approve/7", data=form).status_code == 403
    assert site.engine.asked("/pipeline/runs/7/approve") == []


def test_an_endless_approval_form_times_out(site: Site) -> None:
    site.receiver.body_s = 0.2

    async def endless() -> AsyncIterator[bytes]:
        yield b"verb=approve"
        await asyncio.Event().wait()

    async def asked() -> int:
        async with asyncio.timeout(60), site.client() as client:
            return (await client.post("/approve/7", content=endless())).status_code

    assert asyncio.run(asked()) == 403
    assert site.receiver.bodies == {}


def test_concurrent_readers_get_the_same_key_for_links(tmp_path: Path) -> None:
    """The engine makes a link while the receiver checks one."""
    for number in range(30):
        folder = tmp_path / str(number)
        folder.mkdir()
        with ThreadPoolExecutor(4) as several:
            keys = set(several.map(lambda _, folder=folder: approvals.link_key(folder), range(4)))
        assert len(keys) == 1
        assert [path.name for path in folder.iterdir()] == ["link.key"]
