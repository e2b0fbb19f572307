"""TLS at the gateway: protocols, headers on every way to a worker, and certificates that are replaced under load."""

from __future__ import annotations

import asyncio
import ssl
import stat
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from hitless.engine.certificates import read_certificate
from hitless.gateway.gateway import Gateway
from hitless.gateway.listeners import listen
from hitless.gateway.state import FULL_WEIGHT, TlsListener, redirect_of
from hitless.service.model import AcmeSettings, TlsSettings
from tests.certificates import DOMAIN, tls_listener, write_certificate
from tests.process.gateway_support import (
    Load,
    Workers,
    ask,
    event_of,
    finish,
    kill,
    new_gateway,
    routes_to,
    run_dir,
    shipped,
    with_release,
)
from tests.support import eventually

pytestmark = pytest.mark.process


@asynccontextmanager
async def secured(certificates: Path, **settings: Any) -> AsyncIterator[tuple[Gateway, Workers]]:
    """Stage dev with TLS and a release; `prod` without TLS."""
    write_certificate(certificates, DOMAIN)
    with run_dir() as folder, Workers(folder) as workers:
        own = listen("127.0.0.1", 0)
        listener = tls_listener(certificates, port=own.getsockname()[1], **settings)
        gateway = new_gateway(folder, tls=(listener,))
        sockets = {name: listen("127.0.0.1", 0) for name in gateway.state.listeners if name != "dev"}
        await gateway.certify("dev", read_certificate(listener).pem)
        await gateway.start({"dev": own, **sockets})
        try:
            await with_release(gateway, workers)
            yield gateway, workers
        finally:
            await finish(gateway)


def serial_at(address: tuple[str, int]) -> int:
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(address).encode()).serial_number


def test_certificates_are_replaced_under_load_without_a_failed_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secured(tmp_path) as (gateway, _):
            address, pid = gateway.addresses["dev"], gateway.haproxy_pid
            loads = [Load(address, keep_alive=keep, tls=True) for keep in (True, False)]
            with loads[0], loads[1]:
                for _ in range(20):
                    serial = write_certificate(tmp_path, DOMAIN)
                    pem = read_certificate(gateway.state.tls[0]).pem
                    assert await gateway.certify("dev", pem)
                    assert await asyncio.to_thread(serial_at, address) == serial
                    assert not await gateway.certify("dev", pem)
            assert [dict(load.failures) for load in loads] == [{}, {}]
            assert loads[0].sent > 100
            assert loads[1].sent > 20
            assert gateway.haproxy_pid == pid, "nothing was reloaded"
            file = gateway._layout.certificate("dev")
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            kill(gateway.haproxy_pid)
            await event_of(gateway, "HAProxy was restarted")
            assert await asyncio.to_thread(serial_at, address) == serial
            with pytest.raises(Exception, match="HAProxy refuses the certificate"):
                await gateway.certify("dev", pem.partition("-----BEGIN PRIVATE")[0])
            assert await asyncio.to_thread(serial_at, address) == serial

    asyncio.run(scenario())


def test_every_way_to_a_worker_tells_the_scheme_and_no_client_can(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secured(tmp_path, hsts_s=600) as (gateway, workers):
            address = gateway.addresses["dev"]
            servers = await asyncio.to_thread(workers.start, 2)
            await gateway.apply(shipped(gateway.state, "p01", 2, servers, "prod"))

            def told(
                path: str, method: str = "GET", body: bytes | None = None
            ) -> tuple[int, dict[str, str], str | None]:
                answer = ask(address, path, method, body, tls=True, headers={"x-hl-proto": "http"})
                headers = {name.lower(): value for name, value in answer.json.get("headers", ())}
                assert headers.get("x-hl-port") in (None, str(address[1]))
                return answer.status, answer.headers, headers.get("x-hl-proto")

            for words in (("/zones",), ("/zones", "POST", b"x" * 40_000)):
                status, headers, scheme = await asyncio.to_thread(told, *words)
                assert (status, scheme, headers["strict-transport-security"]) == (200, "https", "max-age=600")
            state = gateway.state.with_servers("p02", servers).with_routes("dev.2", routes_to("p02", 2))
            state = state.with_stage("dev", live=1, candidate=2, weight=FULL_WEIGHT, shield=True, announced=True)
            await gateway.apply(state)
            shielded = await asyncio.to_thread(told, "/broken/2/500")
            assert (shielded[0], shielded[1]["x-hitless-shielded"], shielded[2]) == (200, "1", "https")
            tried = await asyncio.to_thread(told, "/zones", "POST", b"{}")
            assert (tried[0], tried[1]["x-release"], tried[2]) == (200, "2", "https")
            refused = await asyncio.to_thread(told, "/zones", "TRACE")
            assert (refused[0], refused[1]["strict-transport-security"]) == (403, "max-age=600")
            plain = await asyncio.to_thread(ask, gateway.addresses["prod"], "/zones", headers={"x-hl-proto": "https"})
            names = {name.lower() for name, _ in plain.json["headers"]}
            assert "x-hl-proto" not in names
            assert "strict-transport-security" not in plain.headers

    asyncio.run(scenario())


def test_clients_get_http2_and_no_old_tls(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secured(tmp_path) as (gateway, _):
            port = gateway.addresses["dev"][1]
            curl = ["curl", "--silent", "--http2", "--cacert", str(tmp_path / "chain.pem"), "--max-time", "10"]
            to = ["--resolve", f"{DOMAIN}:{port}:127.0.0.1", f"https://{DOMAIN}:{port}/zones"]
            format_ = ["--output", "/dev/null", "--write-out", "%{http_version} %{http_code}"]
            done = await asyncio.to_thread(subprocess.run, [*curl, *format_, *to], capture_output=True, text=True)
            assert done.stdout == "2 200", done.stderr
            for option, accepted in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
                # SECLEVEL=0: otherwise openssl itself would not offer TLS 1.1
                words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", option, "-cipher", "ALL:@SECLEVEL=0"]
                done = await asyncio.to_thread(
                    subprocess.run, words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
                )
                assert ("Cipher is (NONE)" not in done.stdout) is accepted, done.stdout

    asyncio.run(scenario())


class Challenges(BaseHTTPRequestHandler):
    """Stands for an ACME client that answers a challenge."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, format: str, *args: object) -> None:
        return


def test_http_is_redirected_and_challenges_reach_the_acme_client(tmp_path: Path) -> None:
    async def scenario(client: tuple[str, int]) -> None:
        async with secured(tmp_path, redirect=("127.0.0.1", 80), challenges=client) as (gateway, _):
            to = gateway.addresses[redirect_of("dev")]
            port = gateway.addresses["dev"][1]
            answer = await asyncio.to_thread(ask, to, "/zones?a=b%20c", "POST", b"{}", {"host": "evil.example.org"})
            assert (answer.status, answer.headers["location"]) == (308, f"https://{DOMAIN}:{port}/zones?a=b%20c")
            kill(gateway.haproxy_pid)
            await event_of(gateway, "HAProxy was restarted")
            await gateway.counts()
            challenge = "/.well-known/acme-challenge/token"
            answer = await asyncio.to_thread(ask, to, challenge)
            assert (answer.status, answer.body) == (200, challenge.encode())

    with HTTPServer(("127.0.0.1", 0), Challenges) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        asyncio.run(scenario(("127.0.0.1", server.server_port)))
        server.shutdown()
        thread.join()


def test_a_stage_whose_certificate_acme_issues_starts_without_one_and_answers_challenges(tmp_path: Path) -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            own, plain = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
            settings = TlsSettings(redirect=("127.0.0.1", 80), acme=AcmeSettings())
            listener = TlsListener("dev", own.getsockname()[1], DOMAIN, settings)
            gateway = new_gateway(folder, tls=(listener,), thumbprint="the-thumbprint")
            sockets = {"dev": own, redirect_of("dev"): plain}
            rest = {name: listen("127.0.0.1", 0) for name in gateway.state.listeners if name not in sockets}
            await gateway.start({**sockets, **rest})
            try:
                await with_release(gateway, workers)
                http, https = plain.getsockname(), own.getsockname()
                token = "/.well-known/acme-challenge/fjAUiT0u64hEZ-GI1D0z4A_jPST"
                found = await asyncio.to_thread(ask, http, token)
                assert (found.status, found.body) == (200, b"fjAUiT0u64hEZ-GI1D0z4A_jPST.the-thumbprint")
                for path in (f"{token}%0d%0a", "/.well-known/acme-challenge/", f"{token}/more", "/zones"):
                    assert (await asyncio.to_thread(ask, http, path)).status == 308, path
                with pytest.raises(ssl.SSLError):
                    await asyncio.to_thread(ask, https, "/zones", tls=True)
                serial = write_certificate(tmp_path, DOMAIN)
                assert await gateway.certify(listener.name, read_certificate(tls_listener(tmp_path)).pem)
                for _ in range(2):
                    with Load(https, tls=True, host=DOMAIN, clients=1) as load:
                        await asyncio.to_thread(eventually, lambda load=load: load.sent > 3)
                    assert not load.failures
                    kill(gateway.haproxy_pid)
                    await event_of(gateway, "HAProxy was restarted")
                words = ["openssl", "s_client", "-connect", f"127.0.0.1:{https[1]}", "-servername", DOMAIN]
                shown = await asyncio.to_thread(
                    subprocess.run, words, stdin=subprocess.DEVNULL, capture_output=True, timeout=10
                )
                assert x509.load_pem_x509_certificate(shown.stdout).serial_number == serial
            finally:
                await finish(gateway)

    asyncio.run(scenario())
