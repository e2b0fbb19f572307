"""Certificates for tests, made in a millisecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hitless.gateway.state import TlsListener
from hitless.service.model import TlsSettings

DOMAIN = "api.example.org"


async def no_authority(order: dict[str, Any]) -> dict[str, Any]:
    """Answers an order of ACME."""
    return {"error": {"message": "there is no authority", "hint": "add one"}}


def certificate(*names: str, ends_in_days: int = 30, before: int = 60) -> tuple[bytes, bytes, int]:
    """A self-signed chain, its key and its serial number, for these names; valid since `before` days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hitless test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=before))
        .not_valid_after(now + timedelta(days=ends_in_days))
    )
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
    signed = made.sign(key, hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return signed.public_bytes(serialization.Encoding.PEM), secret, signed.serial_number


def write_certificate(folder: Path, *names: str, ends_in_days: int = 30) -> int:
    """Replace `chain.pem` and `key.pem` in the folder; returns the serial number."""
    chain, key, serial = certificate(*names, ends_in_days=ends_in_days)
    for file, content in ((folder / "chain.pem", chain), (folder / "key.pem", key)):
        file.touch(0o600)
        file.write_bytes(content)
    return serial


def tls_listener(
    folder: Path, *, port: int = 443, domain: str | None = DOMAIN, stage: str = "dev", **settings: object
) -> TlsListener:
    """A stage with TLS by the files of `write_certificate`."""
    files = TlsSettings(str(folder / "chain.pem"), str(folder / "key.pem"), **settings)  # type: ignore[arg-type]
    return TlsListener(stage, port, domain, files)
