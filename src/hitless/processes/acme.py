"""Gets or renews one domain's certificate by ACME. Started by `hitless.engine.acme`.

The library takes 350 ms of processor time, so the daemon does not import it. The file is written last, by one rename,
with the chain and its key: after a power cut the next process finds the old certificate or the new one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from hitless.documents import replace_file
from hitless.errors import EngineError
from hitless.pipeline.children import serve_call

DEADLINE_S = 90.0
JITTER = 0.05
"""Share of the lifetime over which renewals are spread."""
NONCES = 10
ASK_AGAIN = timedelta(hours=6)

_PORT_80 = "let the domain's A and AAAA records name this machine, and open port 80 to the internet"
_CODES = (
    ("dns unknownHost", "the domain cannot be resolved", "add an A or AAAA record that names this machine"),
    ("connection tls", "the domain's port 80 cannot be reached", _PORT_80),
    ("unauthorized incorrectResponse", "port 80 of the domain is not this engine's", _PORT_80),
    ("caa", "the domain's CAA records forbid it", "allow this authority in the domain's CAA records, or remove them"),
    ("dnssec", "the domain's DNSSEC is broken", "fix its DS and DNSKEY records at the registrar"),
    ("rejectedIdentifier unsupportedIdentifier", "it issues none for such a domain", "use a public domain of your own"),
    ("rateLimited", "there were too many requests", "wait; `staging: true` is for trials"),
    ("invalidContact invalidEmail unsupportedContact", "it refuses the e-mail address", "correct or remove `email`"),
    ("externalAccountRequired", "it needs an account that is bound to a customer", "choose another `directory`"),
    ("userActionRequired", "its terms have changed", "agree to them as its message says"),
)
REFUSALS = {code: (what, hint) for codes, what, hint in _CODES for code in codes.split()}
"""Code of RFC 8555, section 6.7 → what it means and how to fix it."""


class AuthorityNetwork(client.ClientNetwork):
    """Requests to the authority. `again_at`: the Unix time before which it wants no other, by its last refusal."""

    again_at = 0.0

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """With a new nonce as often as it needs, where the library tries one (RFC 8555, section 6.5)."""
        for left in reversed(range(NONCES)):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce" or not left:
                    raise
        raise AssertionError

    def _send_request(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super()._send_request(*args, **kwargs)
        if response.status_code >= 400 and "Retry-After" in response.headers:
            self.again_at = client.ClientV2.retry_after(response, 0).timestamp()
        return response


def get(order: dict[str, Any]) -> dict[str, Any]:
    """{"next_at"}: when to call again (Unix time). Raises EngineError with what the authority refuses."""
    key = serialization.load_pem_private_key(Path(order["account"]).read_bytes(), None)
    network = AuthorityNetwork(JWKEC(key=key), alg=ES256, user_agent="hitless")
    file, now = Path(order["file"]), datetime.now(UTC)
    due = renewal(file)
    try:
        authority = client.ClientV2(client.ClientV2.get_directory(order["directory"], network), network)
        if due > now and (moment := _suggested(authority, file)) > now:
            return {"next_at": moment.timestamp()}
        _issue(authority, order)
        return {"next_at": _suggested(authority, file).timestamp()}
    except (errors.Error, JoseError, requests.RequestException, ValueError, LookupError, AttributeError) as error:
        if due > now:  # before it is due nothing is wrong
            return {"next_at": min(due, now + ASK_AGAIN).timestamp()}
        raise _refusal(order, error, network.again_at) from error


def renewal(file: Path, jitter: float = 0.0) -> datetime:
    """When two thirds of the certificate's lifetime are over; long ago if there is none that can be read."""
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins + (ends - begins) * (2 / 3 + jitter)


def _suggested(authority: client.ClientV2, file: Path) -> datetime:
    """When to call again: a moment that the authority suggests (RFC 9773), or soon after the renewal is due."""
    try:
        moment, ask_at = authority.renewal_time(file.read_bytes())
    except errors.ARIError:
        moment = None
    return min(moment, ask_at.astimezone(UTC)) if moment else renewal(file, random.uniform(0, JITTER))


def _issue(authority: client.ClientV2, order: dict[str, Any]) -> None:
    """Get a certificate for a new key."""
    contact = (f"mailto:{order['email']}",) if order["email"] else ()
    try:
        authority.new_account(messages.NewRegistration(contact=contact, terms_of_service_agreed=True))
    except errors.ConflictError as known:
        authority.net.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, form, encryption)
    wanted = authority.new_order(crypto_util.make_csr(key, [order["domain"]]))
    for one in wanted.authorizations:
        if one.body.status == messages.STATUS_PENDING:
            http = [each for each in one.body.challenges if isinstance(each.chall, challenges.HTTP01)]
            authority.answer_challenge(http[0], http[0].response(authority.net.key))
    issued = authority.poll_and_finalize(wanted, datetime.now() + timedelta(seconds=DEADLINE_S))
    replace_file(Path(order["file"]), issued.fullchain_pem.encode() + key, mode=0o600, durable=True)


def _refusal(order: dict[str, Any], error: Exception, again_at: float) -> EngineError:
    """The sentence and the hint for what went wrong."""
    problem = next(_problems(error), None)
    unknown = "the request failed", "check `directory`, this machine's network and the authority's status"
    what, hint = REFUSALS.get(str(problem.code) if problem else "", unknown)
    detail = problem.detail or problem.typ if problem else str(error) or f"no result within {DEADLINE_S:.0f} s"
    said = f"{urlsplit(order['directory']).netloc} issues no certificate for {order['domain']}: {what} ({detail:.300})"
    return EngineError(said, hint=hint, details={"again_at": again_at})


def _problems(error: Exception) -> Iterator[messages.Error]:
    """The authority's own words, the most specific first."""
    if isinstance(error, messages.Error):
        yield from (*(error.subproblems or ()), error)
    elif isinstance(error, errors.IssuanceError):
        yield from _problems(error.error)
    elif isinstance(error, errors.ValidationError):
        yield from (each.error for one in error.failed_authzrs for each in one.body.challenges if each.error)


if __name__ == "__main__":
    serve_call(get)
