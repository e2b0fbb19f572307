"""Verifies tokens for JWT authorizers and Cognito user pools: `check` is the handler of `hitless.service.model.CHECKS`.

Workers invoke it like a Lambda authorizer. It runs in a pool of its own, which only a release with such a route has,
and imports nothing of hitless. Only RSA signatures are accepted, and keys are fetched by HTTPS only. Sources:
docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html and
apigateway-enable-cognito-user-pool.html; github.com/aws-amplify/amplify-js/issues/6060 for an expired token.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import RSAKey

ALGORITHMS: Final = ("RS256", "RS384", "RS512")
"""AWS: "Currently, only RSA-based algorithms are supported." """
DISCOVERY: Final = "/.well-known/openid-configuration"
_VALID_S: Final = 7200.0
_AGAIN_S: Final = 10.0
_FETCH_WITHIN_S: Final = 1.5
_MOST_BYTES: Final = 256 * 1024
_CACHED_S: Final = 60.0
"""Workers keep a verdict that long, and never beyond the token's end."""

Keys = dict[str, RSAKey]


class Refused(Exception):
    """The token is not accepted; the message is for the client."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


def fetch(url: str) -> Any:
    """The JSON document at an HTTPS address. Raises OSError or ValueError."""
    if not url.startswith("https://"):
        raise ValueError("not an HTTPS address")
    with urllib.request.build_opener(_NoRedirect).open(url, timeout=_FETCH_WITHIN_S) as response:
        return json.loads(response.read(_MOST_BYTES))


def public_keys(document: Any) -> Keys:
    """The RSA keys of a JSON Web Key Set by `kid`. Raises ValueError, KeyError or TypeError."""
    rsa = (one for one in document["keys"] if one.get("kty") == "RSA" and one.get("use", "sig") == "sig")
    return {one["kid"]: RSAKey.import_key({"kty": "RSA", "n": one["n"], "e": one["e"]}) for one in rsa}


@cache
def _given_keys(text: str) -> Keys:
    return public_keys(json.loads(text))


class Issuers:
    """The keys of issuers, kept for two hours. An unknown `kid` or a failure makes it fetch again after 10 s."""

    def __init__(self, fetch: Callable[[str], Any] = fetch, now_s: Callable[[], float] = time.monotonic) -> None:
        self._fetch, self._now_s = fetch, now_s
        self._known: dict[str, tuple[float, float, Keys]] = {}

    def keys(self, issuer: str, kid: str) -> Keys:
        """The issuer's keys, with that one if it has it. Raises Refused if they cannot be had."""
        now_s = self._now_s()
        fetched_s, tried_s, keys = self._known.get(issuer, (-_VALID_S, -_VALID_S, {}))
        if now_s - fetched_s >= _VALID_S:
            keys = {}
        if kid not in keys and now_s - tried_s >= _AGAIN_S:
            self._known[issuer] = fetched_s, now_s, keys
            try:
                keys = public_keys(self._fetch(self._fetch(issuer.rstrip("/") + DISCOVERY)["jwks_uri"]))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, JoseError):
                pass
            else:
                self._known[issuer] = now_s, now_s, keys
        if not keys:
            raise Refused("OIDC discovery endpoint communication error")
        return keys


ISSUERS: Final = Issuers()


def check(event: dict[str, Any], context: Any, issuers: Issuers = ISSUERS) -> dict[str, Any]:
    """`claims`, `scopes` and how long both may be kept, or `denied`: status, message, challenge.

    The event has the `token` and what the authorizer requires. `style` is `rest` for a REST API's Cognito user pool.
    """
    rest = event["style"] == "rest"
    try:
        claims = _verified(event, issuers)
    except (Refused, JoseError, ValueError) as error:
        expired = isinstance(error, ExpiredTokenError)
        if rest:
            return {"denied": [401, "The incoming token has expired" if expired else "Unauthorized", ""]}
        reason = "the token has expired" if expired else str(error) if isinstance(error, Refused) else "invalid token"
        return {"denied": [401, "Unauthorized", f'Bearer scope="" error="invalid_token" error_description="{reason}"']}
    granted = [*_words(claims.get("scope")), *_words(claims.get("scp"))]
    wanted = event["scopes"]
    if wanted and not set(granted).intersection(wanted):
        if rest:
            return {"denied": [401, "Unauthorized", ""]}
        return {"denied": [403, "Forbidden", f'Bearer scope="{" ".join(wanted)}" error="insufficient_scope"']}
    texts = {name: _text(name, value, rest) for name, value in claims.items()}
    valid_s = min(claims["exp"] - time.time(), _CACHED_S)
    return {"claims": texts, "scopes": granted if wanted else None, "valid_s": valid_s}


def _verified(event: dict[str, Any], issuers: Issuers) -> dict[str, Any]:
    header = jws.extract_compact(event["token"].encode()).headers()
    if header.get("alg") not in ALGORITHMS:
        raise Refused("unsupported signing algorithm")
    kid = header.get("kid")
    known = _given_keys(event["keys"]) if event["keys"] else issuers.keys(event["issuer"], str(kid))
    if kid not in known:
        raise Refused("unable to find a key for the token")
    claims = jwt.decode(event["token"], known[kid], algorithms=ALGORITHMS).claims
    required = {"iss": {"essential": True, "value": event["issuer"]}, "exp": {"essential": True}}
    jwt.JWTClaimsRegistry(**required).validate(claims)  # type: ignore[arg-type]
    audience = claims.get("aud", claims.get("client_id"))
    if event["audience"] and not any(one in event["audience"] for one in _listed(audience)):
        raise Refused("the token does not have a valid audience")
    if event["use"] and claims.get("token_use") != event["use"]:
        raise Refused(f"the token is no {event['use']} token")
    return claims


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [value]


def _words(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else [str(one) for one in value] if isinstance(value, list) else []


def _text(name: str, value: Any, rest: bool) -> str:
    """A claim as handlers get it: always text. A REST API writes instants as dates, and lists with commas."""
    if rest and name in ("exp", "iat"):
        return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(value))
    if isinstance(value, list):
        texts = [one if isinstance(one, str) else json.dumps(one) for one in value]
        return ",".join(texts) if rest else f"[{' '.join(texts)}]"
    return value if isinstance(value, str) else json.dumps(value)
