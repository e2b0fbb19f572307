"""Certificates by ACME from pebble, which validates each domain at the engine's HTTP port."""

from __future__ import annotations

import ssl
import stat
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.pebble import MISSING, Pebble, pebble
from tests.process.gateway_support import Load, ask
from tests.process.test_sites import SharedSite, made
from tests.support import eventually, free_port

pytestmark = [pytest.mark.process, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

SHOP, USERS, LOST = "shop.example.org", "users.example.org", "lost.example.org"


def served(port: int, name: str, *checks: str) -> str:
    """The serial number of the certificate that `openssl s_client` gets for the name, or ""."""
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name, *checks]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    if done.returncode or "BEGIN CERTIFICATE" not in done.stdout:
        return ""
    words = ["openssl", "x509", "-noout", "-serial"]
    return subprocess.run(words, input=done.stdout, capture_output=True, text=True, check=True).stdout.strip()


def trusted(port: int, name: str, root: Path) -> str:
    """The serial number, if the name's certificate has a chain to the authority's root."""
    return served(port, name, "-verify_return_error", "-CAfile", str(root), "-verify_hostname", name)


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def authority(tmp_path: Path, ports: tuple[int, int]) -> Iterator[Pebble]:
    with pebble(tmp_path / "pebble", http_port=ports[0], lifetime_s=24) as running:
        (tmp_path / "root.pem").write_bytes(running.root())
        yield running


def site_of(folder: Path, authority: Pebble, name: str, domain: str) -> SharedSite:
    acme = f"{{directory: '{authority.directory}', email: ops@example.org}}"
    site = made(folder, name, f"domain: {domain}, tls: {{acme: {acme}}}")
    site.environ["REQUESTS_CA_BUNDLE"] = str(authority.trust)
    return site


@pytest.fixture
def sites(tmp_path: Path, authority: Pebble) -> Iterator[list[SharedSite]]:
    names = (("shop", SHOP), ("lost", LOST), ("users", USERS))
    found = [site_of(tmp_path, authority, *each) for each in names]
    yield found
    found[0].hitless("down", "--engine", "--force", exit_code=None)
    eventually(lambda: not found[0].folders.remains(), what="every process of the engine has ended")


def troubles(site: SharedSite) -> dict[str, Any]:
    return {one["stage"]: one.get("troubles", [None])[0] for one in site.status()["stages"]}


def test_a_shared_engine_gets_and_renews_certificates_while_one_domain_fails(
    sites: list[SharedSite], authority: Pebble, ports: tuple[int, int], tmp_path: Path
) -> None:
    shop, lost, users = sites
    http, https = ports
    root = tmp_path / "root.pem"
    for domain in (SHOP, USERS):
        authority.resolve(domain, "127.0.0.1")
    lost.hitless("up", "--detach", f"--shared=127.0.0.1:{http}", f"--shared-tls=127.0.0.1:{https}")
    for site in (shop, users):
        site.hitless("up", "--detach")
    with pytest.raises(ssl.SSLError):
        ask(("127.0.0.1", https), "/zones", headers={"host": LOST}, tls=True)
    first = {name: eventually(partial(trusted, https, name, root), deadline_s=60) for name in (SHOP, USERS)}
    answer = ask(("127.0.0.1", http), "/zones", headers={"host": SHOP})
    assert (answer.status, answer.headers["location"]) == (308, f"https://{SHOP}:{https}/zones")
    problem = eventually(lambda: troubles(shop)["lost_prod"], what="the refusal")
    assert "the domain's port 80 cannot be reached" in problem["what"], problem
    assert "could not resolve" in problem["what"]
    assert problem["what"].endswith("; HTTPS is refused so far")
    assert "let the domain's A and AAAA records name this machine" in problem["mends"]
    assert {troubles(shop)[f"{name}_prod"] for name in ("shop", "users")} == {None}

    authority.resolve(LOST, "127.0.0.1")
    load = Load(("127.0.0.1", https), tls=True, host=SHOP, keep_alive=False, clients=1)
    with load:
        renewed = eventually(lambda: (now := served(https, SHOP)) != first[SHOP] and now, deadline_s=60)
    assert renewed
    assert not load.failures
    assert load.sent > 20
    kept = [path for path in (tmp_path / "home" / "acme").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
