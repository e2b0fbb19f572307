"""Certificates of stages: what is refused, and what replaces one that serves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hitless.clock import SystemClock
from hitless.engine.acme import Acme
from hitless.engine.certificates import Certificates, read_certificate
from hitless.errors import HitlessError, MachineError
from hitless.gateway.runtime import RejectedError, UnreachableError
from hitless.gateway.state import GatewayState, TlsListener
from tests.certificates import DOMAIN, certificate, no_authority, tls_listener, write_certificate

pytestmark = pytest.mark.component
NO_ACME = Acme(Path("/nowhere"), SystemClock(), no_authority)


class FakeGateway:
    """Holds what it was given; `error` is raised instead."""

    def __init__(self, listener: TlsListener) -> None:
        self.state = GatewayState.initial(("dev",), tls=(listener,))
        self.error: HitlessError | None = None
        self.pem = ""

    async def certify(self, stage: str, pem: str) -> bool:
        if self.error is not None:
            raise self.error
        changed, self.pem = pem != self.pem, pem
        return changed


def test_a_certificate_is_read_with_its_chain_and_key(tmp_path: Path) -> None:
    write_certificate(tmp_path, DOMAIN)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"Subject: a comment\n\n" + chain.read_bytes() + certificate("ca.example.org")[0])
    found = read_certificate(tls_listener(tmp_path))
    assert (found.pem.count("BEGIN CERTIFICATE"), found.pem.count("PRIVATE KEY")) == (2, 2)
    assert "\n\n" not in found.pem, "an empty line would end HAProxy's command"
    assert read_certificate(tls_listener(tmp_path, domain=None)).pem == found.pem


@pytest.mark.parametrize("names", [(DOMAIN,), ("*.example.org",), ("www.example.org", DOMAIN)])
def test_a_certificate_must_have_the_domain(names: tuple[str, ...], tmp_path: Path) -> None:
    write_certificate(tmp_path, *names)
    read_certificate(tls_listener(tmp_path))
    with pytest.raises(MachineError, match=r"is for .*, not for other\.org"):
        read_certificate(tls_listener(tmp_path, domain="other.org"))
    with pytest.raises(MachineError, match=r"not for a\.b\.example\.org"):
        read_certificate(tls_listener(tmp_path, domain="a.b.example.org"))


@pytest.mark.parametrize(
    ("harm", "said", "hint"),
    [
        (lambda at: (at / "key.pem").write_bytes(certificate(DOMAIN)[1]), "does not match the key", "privkey.pem"),
        (lambda at: (at / "key.pem").write_text("no key"), "is not a private key", "without a password"),
        (lambda at: (at / "key.pem").chmod(0o644), "everybody can read the key", "chmod 600"),
        (lambda at: (at / "key.pem").unlink(), "cannot be read: No such file", "deploy hook"),
        (lambda at: (at / "chain.pem").write_bytes(b"\0"), "is not PEM", "fullchain.pem"),
        (lambda at: (at / "chain.pem").write_bytes((at / "chain.pem").read_bytes() * 40), "longer than 15 kB", "root"),
    ],
    ids=["another key", "no key", "open key", "missing key", "no chain", "huge chain"],
)
def test_a_certificate_that_cannot_serve_is_refused_with_a_hint(
    harm: Callable[[Path], Any], said: str, hint: str, tmp_path: Path
) -> None:
    write_certificate(tmp_path, DOMAIN)
    harm(tmp_path)
    with pytest.raises(MachineError, match=said) as error:
        read_certificate(tls_listener(tmp_path))
    assert hint in error.value.hint
    assert "PRIVATE" not in str(error.value.to_json())


def test_changed_files_replace_the_certificate_and_bad_ones_do_not(tmp_path: Path) -> None:
    write_certificate(tmp_path, DOMAIN)
    gateway, said = FakeGateway(tls_listener(tmp_path)), list[str]()
    watched = Certificates(
        gateway.certify, SystemClock(), *2 * (lambda sentence, stage: said.append(sentence),), NO_ACME
    )

    async def look() -> list[str]:
        await watched.look(gateway.state.tls[0])
        told, said[:] = said[:], []
        return told

    async def story() -> None:
        await watched.load(gateway.state.tls)
        first = gateway.pem
        assert await look() == []
        (tmp_path / "key.pem").write_bytes(certificate(DOMAIN)[1])
        assert "does not match the key" in (await look())[0]
        assert (await look(), gateway.pem) == ([], first), "said once"
        write_certificate(tmp_path, DOMAIN)
        assert "a new certificate is in use" in (await look())[0]
        second = gateway.pem
        assert second != first
        write_certificate(tmp_path, DOMAIN, ends_in_days=-1)
        assert "expired on" in (await look())[0]
        assert gateway.pem == second
        write_certificate(tmp_path, DOMAIN)
        gateway.error = UnreachableError("HAProxy is restarting")
        assert await look() == []
        gateway.error = RejectedError("HAProxy refuses the certificate: unable to load")
        assert "unable to load" in (await look())[0]
        gateway.error = None
        assert "a new certificate is in use" in (await look())[0]

    asyncio.run(story())


class Later(SystemClock):
    """The machine's clock, some days ahead."""

    days = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(self.days)


def test_people_are_warned_21_7_and_1_days_before_a_certificate_ends(tmp_path: Path) -> None:
    write_certificate(tmp_path, DOMAIN, ends_in_days=22)
    gateway, warned, clock = FakeGateway(tls_listener(tmp_path)), list[str](), Later()
    watched = Certificates(
        gateway.certify, clock, lambda *_: None, lambda sentence, stage: warned.append(sentence), NO_ACME
    )

    async def look() -> str:
        warned.clear()
        await watched.look(gateway.state.tls[0])
        return warned[0] if warned else ""

    async def story() -> None:
        for days, said in ((0, ""), (2, "within 21 days: renew"), (3, ""), (16, "within 7 days"), (17, ""),
                           (21.5, "within 1 day:"), (23, "expired on")):  # fmt: skip
            clock.days = days
            told = await look()
            assert said in told, told
            assert bool(said) is bool(told), told
        assert "expired on" in watched.troubles["dev"][0]
        write_certificate(tmp_path, DOMAIN, ends_in_days=90)
        assert await look() == watched.troubles["dev"][0] == ""

    asyncio.run(story())


def test_an_expired_certificate_still_starts(tmp_path: Path) -> None:
    write_certificate(tmp_path, DOMAIN, ends_in_days=-1)
    gateway = FakeGateway(tls_listener(tmp_path))
    asyncio.run(Certificates(gateway.certify, SystemClock(), *2 * (lambda *_: None,), NO_ACME).load(gateway.state.tls))
    assert "PRIVATE KEY" in gateway.pem


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_key_of_another_user_is_named(tmp_path: Path) -> None:
    write_certificate(tmp_path, DOMAIN)
    (tmp_path / "key.pem").chmod(0)
    with pytest.raises(MachineError, match="Permission denied"):
        read_certificate(replace(tls_listener(tmp_path)))
