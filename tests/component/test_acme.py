"""Certificates by ACME: what pebble refuses, what the engine keeps of it, and when it asks again."""

from __future__ import annotations

import asyncio
import http.server
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from acme import errors, messages
from cryptography import x509

from hitless.clock import SystemClock
from hitless.engine.acme import INTERRUPTED, PAUSES_S, Acme
from hitless.errors import EngineError, MachineError
from hitless.gateway.state import TlsListener
from hitless.processes import acme as process
from hitless.service.model import LETS_ENCRYPT, LETS_ENCRYPT_STAGING, AcmeSettings, TlsSettings
from tests.certificates import DOMAIN, certificate
from tests.pebble import MISSING, pebble

pytestmark = pytest.mark.component
LISTENER = TlsListener("dev", 443, DOMAIN, TlsSettings(acme=AcmeSettings()))


class Later(SystemClock):
    """The machine's clock, ahead by `s` seconds; ends the watch at its first sleep."""

    s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.s)

    async def sleep(self, seconds: float) -> None:
        raise asyncio.CancelledError


class Engine:
    """An engine's `Acme` over an authority that answers what the test says."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.orders, self.answer = Later(), list[dict[str, Any]](), dict[str, Any]()
        self.acme = Acme(folder, self.clock, self._call)

    async def _call(self, order: dict[str, Any]) -> dict[str, Any]:
        self.orders.append(order)
        return self.answer

    def look(self, *listeners: TlsListener) -> int:
        """How many domains the authority was asked for."""
        before = len(self.orders)

        async def served(_: TlsListener) -> None:
            return None

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(self.acme.watch(lambda: listeners or (LISTENER,), served))
        return len(self.orders) - before


def refused(again_at: float = 0.0) -> dict[str, Any]:
    return {"error": EngineError("no", hint="fix it", details={"again_at": again_at}).to_json()}


def test_pauses_grow_and_outlive_the_engine(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    for pause_s in (*PAUSES_S, PAUSES_S[-1]):
        engine.answer = refused()
        assert engine.look() == 1
        assert engine.look() == 0
        clock, engine = engine.clock, Engine(tmp_path)  # a restart
        engine.clock.s = clock.s + pause_s - 5
        assert engine.look() == 0
        engine.clock.s += 10
    assert engine.acme.trouble(LISTENER)[0] == "no; HTTPS is refused so far"
    assert engine.acme.trouble(LISTENER)[1].startswith("fix it; the engine tries again at ")
    engine.answer = {"next_at": engine.clock.now().timestamp() + 60}
    assert engine.look() == 1
    assert engine.acme.trouble(LISTENER)[0] == ""
    engine.clock.s += 61
    assert (engine.look(), engine.look(replace(LISTENER, stage="prod"))) == (1, 1), "not due again, but it said so"


def test_an_engine_that_dies_while_it_asks_has_paused(tmp_path: Path) -> None:
    engine = Engine(tmp_path)

    async def dies(order: dict[str, Any]) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(Acme(tmp_path, engine.clock, dies).watch(lambda: (LISTENER,), lambda _: asyncio.sleep(0)))
    assert engine.look() == 0
    engine.clock.s = PAUSES_S[0] / INTERRUPTED + 1
    assert engine.look() == 1, "a process that printed nothing"
    assert "ended unexpectedly" in engine.acme.trouble(LISTENER)[0]


def test_a_daemon_that_leaves_while_it_asks_does_not_delay_the_next_one(tmp_path: Path) -> None:
    async def story() -> None:
        asked = asyncio.Event()

        async def call(order: dict[str, Any]) -> dict[str, Any]:
            asked.set()
            await asyncio.Event().wait()
            return {}

        acme = Acme(tmp_path, Later(), call)
        task = asyncio.create_task(acme.watch(lambda: (LISTENER,), lambda _: asyncio.sleep(0)))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())
    assert Engine(tmp_path).look() == 1


def test_a_certificate_that_arrives_after_its_preview_has_gone_is_not_kept(tmp_path: Path) -> None:
    engine, there, served = Engine(tmp_path), [LISTENER], list[TlsListener]()

    async def call(order: dict[str, Any]) -> dict[str, Any]:
        await asyncio.to_thread(Path(order["file"]).write_text, "a certificate and its key")
        there.clear()
        return {"next_at": 0.0}

    async def serve(listener: TlsListener) -> None:
        served.append(listener)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Acme(tmp_path, engine.clock, call).watch(lambda: tuple(there), serve))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert served == []


def test_the_authority_may_ask_for_a_longer_pause(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.answer = refused(again_at=engine.clock.now().timestamp() + 7200)
    assert engine.look() == 1
    engine.clock.s = 7000
    assert engine.look() == 0
    engine.clock.s = 7300
    assert engine.look() == 1


def test_each_authority_has_its_own_certificate_and_pauses(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.answer = refused()
    staging = replace(LISTENER, settings=TlsSettings(acme=AcmeSettings("a@example.org", staging=True)))
    assert engine.look(LISTENER, staging) == 2
    assert [one["directory"] for one in engine.orders] == [LETS_ENCRYPT, LETS_ENCRYPT_STAGING]
    assert len({engine.acme.located(one).settings.certificate for one in (LISTENER, staging)}) == 2
    assert engine.look(LISTENER, staging) == 0


def test_the_account_is_kept_and_a_damaged_key_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "acme"
    thumbprint = Engine(folder).acme.thumbprint()
    assert Engine(folder).acme.thumbprint() == thumbprint
    assert [stat.S_IMODE(one.stat().st_mode) for one in (folder, folder / "account.pem")] == [0o700, 0o600]
    (folder / "account.pem").write_text("no key")
    with pytest.raises(MachineError, match="not the key of an ACME account") as error:
        Engine(folder).acme.thumbprint()
    assert "restore it from a backup" in error.value.hint


def test_every_refusal_is_a_sentence_with_a_hint() -> None:
    """The codes are those of RFC 8555, section 6.7, as the library has them."""
    order = {"domain": DOMAIN, "directory": LETS_ENCRYPT}
    for code in messages.ERROR_CODES:
        error = messages.Error.with_code(code, detail="the authority's words")
        found = process._refusal(order, error, 5.0)
        assert found.message.startswith(f"acme-v02.api.letsencrypt.org issues no certificate for {DOMAIN}: ")
        assert found.message.endswith("(the authority's words)")
        assert found.hint
        assert found.details == {"again_at": 5.0}
    expected = ["dns", "connection", "unauthorized", "caa", "rejectedIdentifier", "rateLimited"]
    assert set(expected) <= set(process.REFUSALS) <= {*messages.ERROR_CODES, "userActionRequired"}
    parts = [{"type": "urn:ietf:params:acme:error:caa", "detail": "CAA record prevents issuance"}]
    compound = messages.Error.from_json({"type": "urn:ietf:params:acme:error:compound", "subproblems": parts})
    assert "CAA" in process._refusal(order, errors.IssuanceError(compound), 0.0).hint
    assert "(no result within 90 s)" in process._refusal(order, errors.TimeoutError(), 0.0).message


@contextmanager
def responder(address: str, port: int, said: Callable[[str], str]) -> Iterator[int]:
    """An HTTP server; responds with 404 if nothing is said."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = said(self.path.rpartition("/")[2]).encode()
            self.send_response(200 if body else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer((address, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_pebble_issues_renews_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Engine(tmp_path / "acme").acme
    thumbprint = acme.thumbprint()

    def order(domain: str, directory: str = "", email: str = "ops@example.org") -> dict[str, Any]:
        files = {"file": str(tmp_path / f"{domain}.pem"), "account": str(tmp_path / "acme" / "account.pem")}
        return {"domain": domain, "directory": directory or running.directory, "email": email, **files}

    def refusal(*words: str) -> str:
        with pytest.raises(EngineError) as error:
            process.get(order(*words))
        return f"{error.value.message}; {error.value.hint}"

    with (
        responder("127.0.0.1", 0, lambda token: f"{token}.{thumbprint}") as port,
        responder("127.0.0.2", port, lambda token: ""),
        pebble(tmp_path / "pebble", http_port=port) as running,
        ThreadPoolExecutor(8) as at_once,
    ):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(running.trust))
        for name, address in ((DOMAIN, "127.0.0.1"), ("elsewhere.org", "127.0.0.2"), ("closed.org", "127.0.0.3")):
            running.resolve(name, address)
        issued = at_once.submit(process.get, order(DOMAIN))
        cases = {
            "elsewhere.org": ("port 80 of the domain is not this engine's", "returned 404", "name this machine"),
            "closed.org": ("the domain's port 80 cannot be reached", "connection refused", "open port 80"),
            "unknown.org": ("cannot be reached", "could not resolve", "A and AAAA records"),
            "blocked.example.org": ("it issues none for such a domain", "forbidden by policy", "public domain"),
        }
        for domain, said in zip(cases, at_once.map(refusal, cases), strict=True):
            assert f" issues no certificate for {domain}: " in said
            assert all(words in said for words in cases[domain]), said
        for directory in ("https://127.0.0.1:1/dir", f"https://localhost:{running.management}/roots/0"):
            assert "check `directory`" in refusal("unknown.org", directory)
        next_at = issued.result()["next_at"]
        file = tmp_path / f"{DOMAIN}.pem"
        first = x509.load_pem_x509_certificate(file.read_bytes())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        share = (next_at - first.not_valid_before_utc.timestamp()) / (90 * 86_400)
        assert 2 / 3 <= share <= 2 / 3 + process.JITTER
        assert process.get(order(DOMAIN))["next_at"] > datetime.now(UTC).timestamp() + 86_400
        assert x509.load_pem_x509_certificate(file.read_bytes()) == first, "it is not due"
        chain, key, _ = certificate(DOMAIN, ends_in_days=29, before=61)
        file.write_bytes(chain + key)
        process.get(order(DOMAIN))
        assert x509.load_pem_x509_certificate(file.read_bytes()).not_valid_before_utc >= first.not_valid_before_utc
        file.write_bytes(chain + key)
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        assert "CERTIFICATE_VERIFY_FAILED" in refusal(DOMAIN)
        assert file.read_bytes() == chain + key, "the earlier certificate is kept"
