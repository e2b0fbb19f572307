"""Verifies tokens for JWT authorizers and Cognito user pools: `check` is the handler of `hitless.service.model.CHECKS`.

Workers invoke it like a Lambda authorizer. It runs in a pool of its own, which only a release with such a route has,
and imports nothing of hitless. Only RSA signatures are accepted, and keys are fetched by HTTPS only. Sources:
docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html and
apigateway-enable-cognito-user-pool.html; github.com/aws-amplify/amplify-js/issues/6060 for an expired token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import urllib3
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import RSAKey

ALGORITHMS: Final = ("RS256", "RS384", "RS512")
"""AWS: "Currently, only RSA-based algorithms are supported." """
DISCOVERY: Final = "/.well-known/openid-configuration"
_VALID_S, _AGAIN_S, _CACHED_S = 7200.0, 10.0, 60.0

Keys = dict[str, RSAKey]


class Refused(Exception):
    """The token is not accepted; the message is for the client."""


def fetch(url: str) -> Any:
    """The JSON document at an HTTPS address. Raises HTTPError or ValueError."""
    if not url.startswith("https://"):
        raise ValueError("not an HTTPS address")
    answer = urllib3.request("GET", url, timeout=1.5, redirect=False, retries=False, preload_content=False)
    return json.loads(answer.read(256 * 1024))


@cache
def _keys_of(text: str) -> Keys:
    """The RSA keys of a JSON Web Key Set by `kid`. Raises ValueError, KeyError, TypeError or AttributeError."""
    rsa = (one for one in json.loads(text)["keys"] if one.get("kty") == "RSA" and one.get("use", "sig") == "sig")
    return {one["kid"]: RSAKey.import_key({"kty": "RSA", "n": one["n"], "e": one["e"]}) for one in rsa}


class Issuers:
    """The keys of issuers, kept for two hours, as API Gateway does; after a failure it fetches again in 10 s."""

    def __init__(self, fetch: Callable[[str], Any] = fetch, now_s: Callable[[], float] = time.monotonic) -> None:
        self._fetch, self._now_s = fetch, now_s
        self._known: dict[str, tuple[float, Keys]] = {}

    def keys(self, issuer: str) -> Keys:
        """The issuer's keys. Raises Refused if they cannot be had."""
        now_s = self._now_s()
        valid_until_s, keys = self._known.get(issuer, (now_s, {}))
        if now_s >= valid_until_s:
            try:
                keys = _keys_of(json.dumps(self._fetch(self._fetch(issuer.rstrip("/") + DISCOVERY)["jwks_uri"])))
            except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError, AttributeError, JoseError):
                keys = {}
            self._known[issuer] = now_s + (_VALID_S if keys else _AGAIN_S), keys
        if not keys:
            raise Refused("OIDC discovery endpoint communication error")
        return keys


ISSUERS: Final = Issuers()


def check(event: dict[str, Any], context: Any, issuers: Issuers = ISSUERS) -> dict[str, Any]:
    """The event's `authorizer` context and how long it may be kept, or `denied`: status, message, challenge.

    The event has the `token`, what it must have, and the `payload` of an HTTP API; "" for a REST API's user pool.
    """
    rest, wanted = not event["payload"], event["scopes"]
    try:
        claims = _verified(event, issuers)
    except (Refused, JoseError, ValueError) as error:
        expired = isinstance(error, ExpiredTokenError)
        if rest:
            return {"denied": [401, "The incoming token has expired" if expired else "Unauthorized", ""]}
        reason = "the token has expired" if expired else str(error) if isinstance(error, Refused) else "invalid token"
        return {"denied": [401, "Unauthorized", f'Bearer scope="" error="invalid_token" error_description="{reason}"']}
    granted = [*_words(claims.get("scope")), *_words(claims.get("scp"))]
    if wanted and not set(granted).intersection(wanted):
        challenge = f'Bearer scope="{" ".join(wanted)}" error="insufficient_scope"'
        return {"denied": [401, "Unauthorized", ""] if rest else [403, "Forbidden", challenge]}
    texts = {name: _text(name, value, rest) for name, value in claims.items()}
    told = {"claims": texts} if rest else {"claims": texts, "scopes": granted if wanted else None}
    valid_s = min(claims["exp"] - time.time(), _CACHED_S)
    return {"context": {"jwt": told} if event["payload"] == "2.0" else told, "valid_s": valid_s}


def _verified(event: dict[str, Any], issuers: Issuers) -> dict[str, Any]:
    kid = jws.extract_compact(event["token"].encode()).headers().get("kid")
    known = _keys_of(event["keys"]) if event["keys"] else issuers.keys(event["issuer"])
    if not isinstance(kid, str) or kid not in known:
        raise Refused("unable to find a key for the token")
    claims = jwt.decode(event["token"], known[kid], algorithms=ALGORITHMS).claims
    required = {"iss": {"essential": True, "value": event["issuer"]}, "exp": {"essential": True}}
    jwt.JWTClaimsRegistry(**required).validate(claims)  # type: ignore[arg-type]
    audience = claims.get("aud", claims.get("client_id"))
    given = audience if isinstance(audience, list) else [audience]
    if event["audience"] and not any(one in event["audience"] for one in given):
        raise Refused("the token does not have a valid audience")
    if not event["payload"] and claims.get("token_use") != ("access" if event["scopes"] else "id"):
        raise Refused("the token has another use")
    return claims


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
