"""Tokens of JWT authorizers and user pools: which are accepted, and what handlers and clients get.

AWS: docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html: "Currently, only RSA-based
algorithms are supported"; "kid – The token must have a header claim that matches the key in the jwks_uri that signed
the token"; "aud or client_id – Must match one of the audience entries"; "exp – Must be after the current time";
"scope or scp – The token must include at least one of the scopes".
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from functools import cache
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey
from urllib3.exceptions import HTTPError

from hitless.checks.tokens import DISCOVERY, Issuers, Refused, check, fetch

pytestmark = pytest.mark.unit

ISSUER = "https://issuer.example.com/"
NOW = int(time.time())
CLAIMS = {"iss": ISSUER, "aud": "api", "exp": NOW + 3600, "iat": NOW - 5, "sub": "me"}


@cache
def key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid}, private=True)


def jwks(*kids: str) -> dict[str, Any]:
    return {"keys": [*(key(kid).as_dict(private=False) for kid in kids), {"kty": "EC", "kid": "ec", "crv": "P-256"}]}


def token(more: dict[str, Any], alg: str = "RS256", signer: Key | None = None, kid: str | None = "one") -> str:
    header = {"alg": alg, **({"kid": kid} if kid else {})}
    claims = {name: value for name, value in {**CLAIMS, **more}.items() if value is not None}
    return jwt.encode(header, claims, signer or key("one"), algorithms=[alg])


def asked(text: str, **more: Any) -> dict[str, Any]:
    event = {"token": text, "issuer": ISSUER, "audience": ["api", "b"], "scopes": [], "payload": "2.0"}
    event |= {"keys": json.dumps(jwks("one")), **more}
    return check(event, None)


def reason(answer: dict[str, Any]) -> str:
    status, text, challenge = answer["denied"]
    assert (status, text) == (401, "Unauthorized")
    return str(challenge).removeprefix('Bearer scope="" error="invalid_token" error_description=').strip('"')


@pytest.mark.parametrize("alg", ["RS256", "RS384", "RS512"])
def test_an_rsa_signature_of_the_issuers_key_is_accepted(alg: str) -> None:
    answer = asked(token({}, alg))
    told = {"claims": {**CLAIMS, "exp": str(NOW + 3600), "iat": str(NOW - 5)}, "scopes": None}
    assert answer["context"] == {"jwt": told}
    assert asked(token({}, alg), payload="1.0")["context"] == told
    assert 0 < answer["valid_s"] <= 60
    assert asked(token({"exp": int(time.time()) + 20}))["valid_s"] <= 20, "never beyond the token's end"


@pytest.mark.parametrize("aud", ["b", ["x", "api"], None])
def test_an_audience_matches_or_else_the_client_id(aud: Any) -> None:
    assert "context" in asked(token({"aud": aud, "client_id": "api" if aud is None else None}))


def by_hand(alg: str, secret: bytes = b"", kid: Any = "one") -> str:
    """A token that no library would sign: without a signature, or with the public key as the secret of an HMAC."""
    parts = [json.dumps(one).encode() for one in ({"alg": alg, "kid": kid}, CLAIMS)]
    signed = b".".join(base64.urlsafe_b64encode(one).rstrip(b"=") for one in parts)
    signature = hmac.digest(secret, signed, "sha256") if secret else b""
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: "token", "invalid token"),
        (lambda: "", "invalid token"),
        (lambda: by_hand("none"), "invalid token"),
        (lambda: by_hand("HS256", key("one").as_pem(private=False)), "invalid token"),
        (lambda: token({}, "ES256", ECKey.generate_key("P-256")), "invalid token"),
        (lambda: token({}, "PS256"), "invalid token"),
        (lambda: by_hand("RS256", kid=["one"]), "unable to find a key for the token"),
        (lambda: token({}, kid="two"), "unable to find a key for the token"),
        (lambda: token({}, kid=None), "unable to find a key for the token"),
        (lambda: token({}, kid="ec"), "unable to find a key for the token"),
        (lambda: token({}, signer=key("two")), "invalid token"),
        (lambda: token({})[:-8] + "AAAAAAAA", "invalid token"),
        (lambda: token({"iss": ISSUER.rstrip("/")}), "invalid token"),
        (lambda: token({"iss": None}), "invalid token"),
        (lambda: token({"aud": "other", "client_id": "api"}), "the token does not have a valid audience"),
        (lambda: token({"aud": None}), "the token does not have a valid audience"),
        (lambda: token({"exp": NOW - 1}), "the token has expired"),
        (lambda: token({"exp": None}), "invalid token"),
        (lambda: token({"nbf": NOW + 3600}), "invalid token"),
        (lambda: token({"iat": NOW + 3600}), "invalid token"),
    ],
)
def test_any_other_token_is_refused(make: Any, why: str) -> None:
    assert reason(asked(make())) == why


def test_one_scope_of_the_route_is_enough() -> None:
    assert asked(token({"scope": "a b"}), scopes=["b", "c"])["context"]["jwt"]["scopes"] == ["a", "b"]
    assert asked(token({"scp": ["c"]}), scopes=["b", "c"])["context"]["jwt"]["scopes"] == ["c"]
    for more in ({}, {"scope": "bc"}, {"scp": ["x"]}):
        denied = asked(token(more), scopes=["b", "c"])["denied"]
        assert denied == [403, "Forbidden", 'Bearer scope="b c" error="insufficient_scope"']


def test_a_user_pool_takes_id_tokens_and_for_scopes_access_tokens() -> None:
    """apigateway-enable-cognito-user-pool: without scopes an identity token, else an access token, and a missing scope
    is a 401; github.com/aws-amplify/amplify-js/issues/6060: {"message":"The incoming token has expired"}.
    """
    rest: dict[str, Any] = {"payload": "", "audience": []}
    unauthorized = {"denied": [401, "Unauthorized", ""]}
    assert asked(token({"token_use": "id"}), **rest)["context"].keys() == {"claims"}
    assert asked(token({"token_use": "access"}), **rest) == unauthorized
    assert asked(token({"token_use": "access", "scope": "a"}), scopes=["b"], **rest) == unauthorized
    expired = asked(token({"token_use": "id", "exp": NOW - 1}), **rest)
    assert expired == {"denied": [401, "The incoming token has expired", ""]}


def test_claims_are_texts() -> None:
    """aws-solutions-library-samples/guidance-for-claude-code-with-amazon-bedrock#803: an HTTP API writes
    lists as [a b]; awsdocs/amazon-api-gateway-developer-guide#158: a user pool's claims are strings as well.
    """
    more = {"cognito:groups": ["a", "b"], "email_verified": True, "n": 1, "token_use": "id", "exp": 4102444800}
    http, rest = asked(token(more))["context"]["jwt"]["claims"], asked(token(more), payload="")["context"]["claims"]
    assert (http["cognito:groups"], http["email_verified"], http["n"], http["exp"]) == (
        "[a b]",
        "true",
        "1",
        "4102444800",
    )
    assert (rest["cognito:groups"], rest["exp"]) == ("a,b", "Fri Jan 01 00:00:00 UTC 2100")


class Web:
    """An issuer's pages; `down` makes it unreachable."""

    def __init__(self) -> None:
        self.kids, self.down, self.now_s, self.fetched = ["one"], False, 0.0, 0

    def get(self, url: str) -> Any:
        self.fetched += 1
        if self.down:
            raise HTTPError("unreachable")
        if url == ISSUER.rstrip("/") + DISCOVERY:
            return {"jwks_uri": "https://keys.example.com"}
        assert url == "https://keys.example.com"
        return jwks(*self.kids)


def test_keys_are_kept_for_two_hours_and_a_failure_for_10_s() -> None:
    """AWS, http-api-jwt-authorizer.html: "API Gateway can cache the public key for two hours. As a best practice, when
    you rotate keys, allow a grace period during which both the old and new keys are valid."
    """
    web = Web()
    issuers = Issuers(web.get, lambda: web.now_s)
    web.down = True
    for _ in range(3):
        with pytest.raises(Refused, match="OIDC discovery endpoint communication error"):
            issuers.keys(ISSUER)
    assert web.fetched == 1
    web.down, web.now_s = False, 10
    for _ in range(3):
        assert issuers.keys(ISSUER).keys() == {"one"}
    assert web.fetched == 3, "the discovery document and the keys"
    web.kids, web.now_s = ["one", "two"], 7209
    assert issuers.keys(ISSUER).keys() == {"one"}
    web.now_s = 7210
    assert issuers.keys(ISSUER).keys() == {"one", "two"}


@pytest.mark.parametrize("url", ["http://keys.example.com", "file:///etc/passwd", "ftp://keys.example.com"])
def test_keys_are_fetched_by_https_only(url: str) -> None:
    with pytest.raises(ValueError, match="not an HTTPS address"):
        fetch(url)
