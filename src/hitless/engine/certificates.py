"""The certificates of stages with TLS: checked, given to the gateway, and given again when their files change.

A certificate that clients would not accept never replaces one that serves. `cryptography` is imported when a stage has
TLS.
"""

from __future__ import annotations

import pkgutil
import stat
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from hitless.clock import Clock
from hitless.engine.acme import Acme
from hitless.errors import HitlessError, MachineError
from hitless.gateway.runtime import UnreachableError
from hitless.gateway.state import TlsListener

LOOK_EVERY_S = 5.0
WARN_DAYS = (1, 7, 21)
Say = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain and its key. `subject` is for messages."""

    subject: str
    pem: str
    ends: datetime

    def trouble(self, now: datetime) -> str:
        """A sentence if it has expired, or ends in fewer days than one of WARN_DAYS, else "". Pure."""
        if now >= self.ends:
            return f"{self.subject} expired on {self.ends:%Y-%m-%d}: renew it"
        within = next((days for days in WARN_DAYS if self.ends - now < timedelta(days)), None)
        return (
            f"{self.subject} ends on {self.ends:%Y-%m-%d}, within {within} day{'s' * (within > 1)}: renew it"
            if within
            else ""
        )


def read_certificate(listener: TlsListener) -> Certificate:
    """The certificate in the files, whatever its age. MachineError if the gateway could not serve the stage with it."""
    x509 = pkgutil.resolve_name("cryptography.x509")
    serialization = pkgutil.resolve_name("cryptography.hazmat.primitives.serialization")
    file, key_file = Path(listener.settings.certificate), Path(listener.settings.key)
    subject = f"the certificate of stage {listener.stage}, {file},"
    try:
        chain_pem, key_pem, mode = file.read_bytes(), key_file.read_bytes(), stat.S_IMODE(key_file.stat().st_mode)
    except OSError as error:
        hint = "check the path, and who can read it: certbot's own files are root's, so copy them in a deploy hook"
        raise MachineError(f"{error.filename} cannot be read: {error.strerror}", hint=hint) from error
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError as error:
        raise MachineError(f"{subject} is not PEM", hint="name the whole chain, such as fullchain.pem") from error
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        hint = "name the key in PEM, without a password, such as privkey.pem"
        raise MachineError(f"{key_file} is not a private key", hint=hint) from error
    if mode & stat.S_IROTH:
        raise MachineError(f"everybody can read the key {key_file}", hint=f"`chmod 600 {key_file}`")
    if key.public_key() != chain[0].public_key():
        hint = "name the key that it was made with: in certbot's folder, privkey.pem beside fullchain.pem"
        raise MachineError(f"{subject} does not match the key {key_file}", hint=hint)
    found = [one.value for one in chain[0].extensions if isinstance(one.value, x509.SubjectAlternativeName)]
    names = [name for one in found for name in one.get_values_for_type(x509.DNSName)]
    if listener.domain and not {listener.domain, f"*.{listener.domain.partition('.')[2]}"} & {*names}:
        hint = "name a certificate for the stage's domain, or change `domain`"
        raise MachineError(f"{subject} is for {', '.join(names) or 'no name'}, not for {listener.domain}", hint=hint)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    parts = [one.public_bytes(encoding) for one in chain]
    pem = b"".join([*parts, key.private_bytes(encoding, form, serialization.NoEncryption())]).decode()
    if len(pem) > 15_000:  # a command to HAProxy must fit its buffer
        raise MachineError(f"{subject} is longer than 15 kB with its key", hint="leave out the root's certificate")
    return Certificate(subject, pem, chain[0].not_valid_after_utc)


class Certificates:
    """Keeps the gateway's certificates as the files are, by `Gateway.certify`. `say` reports, `warn` also notifies."""

    def __init__(
        self, certify: Callable[[str, str], Awaitable[bool]], clock: Clock, say: Say, warn: Say, acme: Acme
    ) -> None:
        self._certify, self._clock, self._say, self._warn, self._acme = certify, clock, say, warn, acme
        self.troubles: dict[str, tuple[str, str]] = {}
        """Stage → what is wrong with its certificate, or "", and how to fix it."""

    async def load(self, listeners: Iterable[TlsListener]) -> None:
        """Give the gateway what it starts with, an expired certificate too. MachineError, except for a shared listener,
        whose other services start.
        """
        for listener in listeners:
            try:
                if not _is_awaited(listener):
                    await self._certify(listener.name, read_certificate(listener).pem)
            except MachineError as error:
                if not listener.shared and listener.settings.acme is None:
                    raise
                self._warn(f"{error.message}; its clients are refused until then; {error.hint}", listener.stage)

    async def watch(self, listeners: Callable[[], Iterable[TlsListener]]) -> None:
        """Replace certificates whose files have changed. Never returns."""
        while True:
            there = tuple(listeners())
            self.troubles = {one.stage: self.troubles[one.stage] for one in there if one.stage in self.troubles}
            for listener in there:
                await self.look(listener)
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self, listener: TlsListener) -> None:
        """Serve the certificate if it has changed, and say what is wrong with it."""
        now, (trouble, fix) = self._clock.now(), self._acme.trouble(listener)
        try:
            certificate = None if _is_awaited(listener) else read_certificate(listener)
            if certificate and (listener.settings.acme is None or now >= certificate.ends):
                trouble = trouble or certificate.trouble(now)
            if certificate and now < certificate.ends and await self._certify(listener.name, certificate.pem):
                self._say(f"a new certificate is in use; it ends on {certificate.ends:%Y-%m-%d}", listener.stage)
        except UnreachableError:
            return  # HAProxy is restarting: try again
        except HitlessError as error:
            trouble = f"{error.message}; the earlier certificate stays in use; {error.hint}"
        if trouble and trouble != self.troubles.get(listener.stage, ("", ""))[0]:
            self._warn(trouble, listener.stage)
        self.troubles[listener.stage] = trouble, fix


def _is_awaited(listener: TlsListener) -> bool:
    """Whether ACME has not issued the first certificate yet."""
    return listener.settings.acme is not None and not Path(listener.settings.certificate).exists()
