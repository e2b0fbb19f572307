"""Certificates by ACME (RFC 8555): when the authority is asked for each domain, and what it refused last.

A process of its own asks, `hitless.processes.acme`, for one domain after the other. It writes the chain and its key
into one file, which `Certificates` serves as it serves files that an operator replaced. The gateway answers challenges
with the account's thumbprint. A pause is on disk before the authority is asked, so that restarts cannot exceed rate
limits.
"""

from __future__ import annotations

import asyncio
import pkgutil
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hitless.clock import Clock
from hitless.documents import decode, replace_file, to_text
from hitless.errors import HitlessError, MachineError
from hitless.gateway.state import TlsListener

LOOK_EVERY_S = 2.0
PAUSES_S = (600, 1200, 2400, 4800, 9600, 21_600)
"""After refusals in a row. Let's Encrypt allows 5 failed validations of a domain an hour."""
INTERRUPTED = 10
"""An attempt whose end is unknown, because the daemon was killed, pauses for this part of the time."""


class AcmeRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A domain at one authority: when to ask next (Unix time), refusals in a row, the last one and its hint."""

    next_at: float = 0.0
    refusals: int = 0
    refusal: str = ""
    hint: str = ""


class Acme:
    """The account and the certificates in a folder. `call` runs the process with its order, a document."""

    def __init__(self, folder: Path, clock: Clock, call: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
        self._folder, self._clock, self._call = folder, clock, call
        self._account = folder / "account.pem"

    def thumbprint(self) -> str:
        """The thumbprint of the account's key (RFC 7638); makes the key if there is none. MachineError."""
        keys = pkgutil.resolve_name("joserfc.jwk:ECKey")
        try:
            if not self._account.exists():
                self._folder.mkdir(mode=0o700, exist_ok=True)
                replace_file(self._account, keys.generate_key("P-256").as_pem(private=True), mode=0o600, durable=True)
            return str(keys.import_key(self._account.read_bytes()).thumbprint())
        except (OSError, ValueError) as error:
            hint = "restore it from a backup, or remove it: the engine then makes another account"
            raise MachineError(f"{self._account} is not the key of an ACME account: {error}", hint=hint) from error

    def located(self, listener: TlsListener) -> TlsListener:
        """The listener with the file of its certificate, if ACME issues it."""
        if listener.settings.acme is None:
            return listener
        file = str(self._file(listener))
        return replace(listener, settings=msgspec.structs.replace(listener.settings, certificate=file, key=file))

    def trouble(self, listener: TlsListener) -> tuple[str, str]:
        """What the authority refused last, or "", and how to fix it."""
        if listener.settings.acme is None:
            return "", "replace its files"
        record = self._record(listener)
        if not record.refusal:
            return "", "the engine renews it automatically"
        serves = "the earlier certificate stays in use" if self._file(listener).exists() else "HTTPS is refused so far"
        at = datetime.fromtimestamp(record.next_at, UTC)
        return f"{record.refusal}; {serves}", f"{record.hint}; the engine tries again at {at:%Y-%m-%d %H:%M} UTC"

    def forget(self, domain: str) -> None:
        """Remove a domain's certificates, and when to ask for the next one."""
        for suffix in ("pem", "json"):
            for file in self._folder.glob(f"*/{domain}.{suffix}"):
                file.unlink(missing_ok=True)

    async def watch(
        self, listeners: Callable[[], Iterable[TlsListener]], serve: Callable[[TlsListener], Awaitable[None]]
    ) -> None:
        """Get and renew certificates when they are due, those with the fewest refusals first. Never returns."""
        while True:
            by_acme = [one for one in listeners() if one.settings.acme is not None]
            for listener in sorted(by_acme, key=lambda one: self._record(one).refusals):
                if self._clock.now().timestamp() >= self._record(listener).next_at:
                    await self._ask(listener)
                    if listener in listeners():
                        await serve(listener)
                    else:  # a preview that was removed meanwhile
                        self.forget(listener.domain or "")
            await self._clock.sleep(LOOK_EVERY_S)

    async def _ask(self, listener: TlsListener) -> None:
        before, acme, now = self._record(listener), listener.settings.acme, self._clock.now().timestamp()
        assert acme is not None
        count, pause_s = before.refusals + 1, PAUSES_S[min(before.refusals, len(PAUSES_S) - 1)]
        self._write(listener, msgspec.structs.replace(before, next_at=now + pause_s / INTERRUPTED, refusals=count))
        order = {"domain": listener.domain, "directory": acme.url, "email": acme.email}
        try:
            answer = await self._call({**order, "file": str(self._file(listener)), "account": str(self._account)})
        except (OSError, ValueError) as error:
            answer = {"error": {"message": f"the process that gets certificates failed: {error}"}}
        except asyncio.CancelledError:  # the daemon leaves, and the next one asks
            self._write(listener, before)
            raise
        if "next_at" in answer:
            return self._write(listener, AcmeRecord(answer["next_at"]))
        fault = answer.get("error", {})
        said = fault.get("message", f"the request of {listener.domain}'s certificate ended unexpectedly")
        again_at = max(now + pause_s, fault.get("details", {}).get("again_at", 0.0))
        hint = fault.get("hint", "see engine.log in the data folder")
        return self._write(listener, AcmeRecord(again_at, count, said, hint))

    def _file(self, listener: TlsListener) -> Path:
        assert listener.settings.acme is not None
        authority = re.sub(r"[^a-z0-9.-]+", "_", listener.settings.acme.url.partition("://")[2].lower())
        return self._folder / authority / f"{listener.domain}.pem"

    def _record(self, listener: TlsListener) -> AcmeRecord:
        file = self._file(listener).with_suffix(".json")
        try:
            return decode(file.read_bytes(), AcmeRecord, str(file))
        except (OSError, HitlessError):
            return AcmeRecord()

    def _write(self, listener: TlsListener, record: AcmeRecord) -> None:
        file = self._file(listener)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(file.with_suffix(".json"), to_text(record), mode=0o600, durable=True)
