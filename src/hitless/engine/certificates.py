"""The certificates of stages with TLS: checked, given to the gateway, and given again when their files change.

A certificate that clients would not accept never replaces one that serves. `cryptography` is imported when a stage has
TLS.
"""

from __future__ import annotations

import pkgutil
import stat
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hitless.clock import Clock
from hitless.errors import HitlessError, MachineError
from hitless.gateway.runtime import UnreachableError
from hitless.gateway.state import TlsListener

LOOK_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain and its key. `subject` is for messages."""

    subject: str
    pem: str
    ends: datetime

    def fault(self, now: datetime) -> str:
        """A sentence if it has expired, else "". Pure."""
        return f"{self.subject} expired on {self.ends:%Y-%m-%d}: renew it" if now >= self.ends else ""


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
        raise MachineError(f"everybody may read the key {key_file}", hint=f"`chmod 600 {key_file}`")
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
    """Keeps the gateway's certificates as the files are, by `Gateway.certify`. `say(sentence, stage)` reports."""

    def __init__(
        self, certify: Callable[[str, str], Awaitable[bool]], clock: Clock, say: Callable[[str, str], None]
    ) -> None:
        self._certify, self._clock, self._say = certify, clock, say
        self._said: dict[str, str] = {}

    async def load(self, listeners: Iterable[TlsListener]) -> None:
        """Give the gateway what it starts with, an expired certificate too. MachineError, except for a shared listener,
        whose other services start.
        """
        for listener in listeners:
            try:
                await self._certify(listener.name, read_certificate(listener).pem)
            except MachineError as error:
                if not listener.shared:
                    raise
                self._say(
                    f"{error.message}; its clients are refused until it can be read; {error.hint}", listener.stage
                )

    async def watch(self, listeners: Callable[[], Iterable[TlsListener]]) -> None:
        """Replace certificates whose files have changed. Never returns."""
        while True:
            for listener in listeners():
                await self._look(listener)
            await self._clock.sleep(LOOK_EVERY_S)

    async def _look(self, listener: TlsListener) -> None:
        said = ""
        try:
            certificate = read_certificate(listener)
            if fault := certificate.fault(self._clock.now()):
                said = f"{fault}; no other certificate replaces the one in use"
            elif await self._certify(listener.name, certificate.pem):
                said = f"a new certificate is in use; it ends on {certificate.ends:%Y-%m-%d}"
        except UnreachableError:
            return  # HAProxy is restarting: try again
        except HitlessError as error:
            said = f"{error.message}; the earlier certificate stays in use; {error.hint}"
        if said and said != self._said.get(listener.stage):
            self._say(said, listener.stage)
        self._said[listener.stage] = said
