"""Stages of several services at one HTTP and one HTTPS port: host, base path, certificate by SNI."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from hitless.engine.certificates import read_certificate
from hitless.gateway.accesslog import AccessLine, newest
from hitless.gateway.gateway import Gateway
from hitless.gateway.listeners import listen
from hitless.gateway.state import EVERY, SHARED, SHARED_TLS, Access, SharedTls
from hitless.service.model import Sticky, StickyBy
from tests.certificates import tls_listener, write_certificate
from tests.process.gateway_support import (
    Workers,
    ask,
    event_of,
    finish,
    haproxy_version,
    kill,
    new_gateway,
    run_dir,
    running_gateway,
    shipped,
    until,
)

pytestmark = pytest.mark.process

API, SHOP = "api.example.org", "shop.example.org"


async def certified(gateway: Gateway, folder: Path, host: str) -> int:
    """Give the gateway a new certificate for the host; returns its serial number."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 - of the tests
    serial = write_certificate(folder, host)
    assert await gateway.certify(host, read_certificate(tls_listener(folder, domain=host)).pem)
    return serial


def curl(address: tuple[str, int], url: str, *options: str) -> tuple[str, str]:
    """What `curl --http2` shows: version, status and location, and the body. The handshake's alert if it fails."""
    host = url.partition("://")[2].partition("/")[0]
    port = address[1]
    words = ["curl", "--silent", "--show-error", "--http2", "--insecure", "--path-as-is", "--max-time", "10", *options]
    words += ["--resolve", f"{host}:{port}:127.0.0.1", url.replace(host, f"{host}:{port}")]
    done = subprocess.run(
        [*words, "--write-out", "\n%{http_version} %{http_code} %{redirect_url}"], capture_output=True, text=True
    )
    body, _, how = done.stdout.rpartition("\n")
    return done.stderr if done.returncode else how.strip(), body


def serial_by_sni(address: tuple[str, int], host: str) -> int | None:
    """The certificate that `openssl s_client` gets for that name; None if the gateway refuses the handshake."""
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{address[1]}", "-servername", host]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    if "BEGIN CERTIFICATE" not in done.stdout:
        assert "unrecognized name" in done.stderr, done.stderr
        return None
    return x509.load_pem_x509_certificate(done.stdout.encode()).serial_number


def test_services_share_a_port_by_host_base_path_and_certificate(tmp_path: Path) -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            https = listen("127.0.0.1", 0)
            gateway = new_gateway(folder, stages=(), shared=True, secure=SharedTls(https.getsockname()[1]))
            await gateway.start({SHARED: listen("127.0.0.1", 0), SHARED_TLS: https})
            try:
                await shares(gateway, workers, tmp_path)
            finally:
                await finish(gateway)

    async def shares(gateway: Gateway, workers: Workers, tmp_path: Path) -> None:
        plain, secure = gateway.addresses[SHARED], gateway.addresses[SHARED_TLS]

        async def ask(url: str, *options: str) -> tuple[str, Any]:
            how, body = await asyncio.to_thread(curl, plain if url.startswith("http:") else secure, url, *options)
            return how, body

        assert await asyncio.to_thread(serial_by_sni, secure, API) is None, "no certificate yet"
        serial = await certified(gateway, tmp_path / "api", API)
        old = "old.example.org"
        sites = (("orders_prod", API, "/orders", 600), ("root_prod", API, "", 0), ("old_prod", old, "/v1", None))
        for number, (stage, host, base, hsts_s) in enumerate(sites, 1):
            servers = await asyncio.to_thread(workers.start, number, 1)
            await gateway.apply(gateway.state.with_new_stage(stage, host, base, hsts_s))
            await gateway.apply(shipped(gateway.state, f"p0{number}", number, servers, stage))
        pid = gateway.haproxy_pid

        for url, release in ((f"https://{API}/orders/zones", 1), (f"https://{API}/zones", 2),
                             ("http://old.example.org/v1/zones", 3)):  # fmt: skip
            how, body = await ask(url)
            assert how == ("1.1 200" if release == 3 else "2 200"), (url, how)
            told = json.loads(body)
            assert (told["release"], told["path"]) == (str(release), "/zones"), url
        assert ["x-hl-base", "/v1"] in told["headers"]
        for path in ("/ordersx/zones", "//orders/zones", "/Orders/zones"):
            assert json.loads((await ask(f"https://{API}{path}"))[1])["release"] == "2", "a base path is one segment"
        assert (await ask("https://old.example.org/v1/zones"))[0].startswith("curl: (35)"), "no handshake"
        assert (await ask(f"https://{API}/zones", "--header", "host: old.example.org"))[0] == "2 404"
        assert (await ask(f"https://{API}/zones", "--header", f"host: evil.{API}"))[0] == "2 404"
        how, _ = await ask(f"https://{API}/zones", "--header", f"host: {API}/orders")
        assert how == "2 404" or (haproxy_version() > (2, 6) and how.startswith("curl: (92)")), "3.0 resets the stream"
        how, _ = await ask(f"http://{API}/orders/zones?a=b%20c")
        assert how == f"1.1 308 https://{API}:{secure[1]}/orders/zones?a=b%20c"
        assert (await ask("http://other.example.org/zones"))[0] == "1.1 404"
        _, headers = await ask(f"https://{API}/orders/zones", "--head")
        assert "strict-transport-security: max-age=600" in headers
        _, headers = await ask(f"https://{API}/zones", "--head")
        assert "strict-transport-security" not in headers

        serial_shop = await certified(gateway, tmp_path / "shop", SHOP)
        assert await asyncio.to_thread(serial_by_sni, secure, SHOP) == serial_shop
        renewed = await certified(gateway, tmp_path / "api", API)
        assert renewed != serial
        assert await asyncio.to_thread(serial_by_sni, secure, API) == renewed
        assert gateway.haproxy_pid == pid, "nothing was reloaded"

        kill(gateway.haproxy_pid)
        await event_of(gateway, "HAProxy was restarted")
        assert await asyncio.to_thread(serial_by_sni, secure, API) == renewed
        assert (await ask(f"https://{API}/orders/zones"))[0] == "2 200"
        await gateway.apply(gateway.state.without_stage("root_prod"))
        assert (await ask(f"https://{API}/zones"))[0] == "2 404"
        for _ in range(2):
            await gateway.certify(SHOP, None)
            assert await asyncio.to_thread(serial_by_sni, secure, SHOP) is None
        again = await certified(gateway, tmp_path / "shop", SHOP)
        assert await asyncio.to_thread(serial_by_sni, secure, SHOP) == again

    asyncio.run(scenario())


def test_each_stage_at_a_shared_listener_has_its_own_log_counts_and_sticky_clients() -> None:
    sticky = {"shop_prod": Sticky(StickyBy.HEADER, "x-user"), "users_prod": Sticky(StickyBy.COOKIE, "sid")}

    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder, stages=(), shared=True, logs=folder / "logs") as gateway:
                for number, stage in enumerate(sticky):
                    (folder / "logs" / stage).mkdir(parents=True)
                    await gateway.apply(gateway.state.with_new_stage(stage, SHOP, f"/{stage}"[: 6 * number]))
                    for release in (1, 2):
                        servers = await asyncio.to_thread(workers.start, release, 1, tag=stage)
                        pool = f"p0{2 * number + release}"
                        await gateway.apply(shipped(gateway.state, pool, release, servers, stage))
                    await gateway.apply(gateway.state.with_access(stage, Access(EVERY)))
                await ships(gateway, folder / "logs")

    async def ships(gateway: Gateway, logs: Path) -> None:
        address = gateway.addresses[SHARED]

        def release(base: str, user: str) -> str:
            headers = {"host": SHOP, "x-user": user, "cookie": f"a=b; sid={user}"}
            return str(ask(address, f"{base}/zones?token=x", headers=headers).json["release"])

        users = [f"u{number}" for number in range(40)]
        moved: dict[str, set[str]] = {}
        for weight in (2000, 6000):
            for (stage, by), base in zip(sticky.items(), ("", "/users"), strict=True):
                state = gateway.state.with_stage(stage, live=1, candidate=2, weight=weight, sticky=by)
                await gateway.apply(state)
                now = {user for user in users if await asyncio.to_thread(release, base, user) == "2"}
                assert moved.get(stage, set()) < now < set(users)
                moved[stage] = now
        await gateway.apply(gateway.state.with_stage("shop_prod", live=1))
        assert ask(address, "/users/zones", "TRACE", headers={"host": SHOP}).status == 403
        assert ask(address, "/zones", headers={"host": "unknown.example.org"}).status == 404

        def lines(stage: str) -> list[AccessLine]:
            return newest(logs / stage / "access.log", 1000)

        await until(lambda: [len(lines(stage)) for stage in sticky] == [80, 81], "all lines")
        assert {one.target for stage in sticky for one in lines(stage)} == {"/zones?token=***", "/zones"}
        assert lines("users_prod")[-1].method == "TRACE"
        counts = await gateway.stage_counts()
        assert {stage: (one["2xx"], one["4xx"]) for stage, one in counts.items()} == {
            "shop_prod": (80, 0),
            "users_prod": (80, 1),
        }
        kill(gateway.haproxy_pid)
        await event_of(gateway, "HAProxy was restarted")
        assert await asyncio.to_thread(release, "", "u0") == "1"
        assert (await gateway.stage_counts())["shop_prod"]["2xx"] == 81

    asyncio.run(scenario())
