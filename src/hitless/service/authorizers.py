"""Authorizers of http and httpApi events, as far as the engine enforces them.

Those are functions of the service (TOKEN and REQUEST), Cognito user pools by ARN, and an HTTP API's JWT authorizers.
What it does not enforce (IAM, functions by ARN, other identity sources, values that CloudFormation resolves) stays
refused by `hitless.service.closed`. Sources: `validate.js` and `http-api.js` of Serverless Framework (osls), for the
forms and defaults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from hitless.service.events import RouteEvent, read_payload
from hitless.service.integrations import mapped_routes
from hitless.service.keys import AUTHORIZER
from hitless.service.model import CHECKS, Authorizer, Route
from hitless.service.value import Notices, Value

_KEYS = {"name", "type", "resultTtlInSeconds", "identitySource", "identityValidationExpression"}
_COGNITO_KEYS = {"name", "type", "resultTtlInSeconds", "identitySource", "arn", "scopes"}
_HTTP_KEYS = {
    "jwt": {"type", "identitySource", "issuerUrl", "audience"},
    "request": {
        *("type", "name", "functionName", "resultTtlInSeconds", "enableSimpleResponses", "payloadVersion"),
        "identitySource",
    },
}
_SOURCE = re.compile(r"(?:method\.|\$)request\.(header|querystring)\.([^\s,]+)")
_DEFAULT_SOURCE = "method.request.header.Authorization"
_POOL = re.compile(r"arn:aws(?:-us-gov)?:cognito-idp:([a-z0-9-]+):\d{12}:userpool/([\w-]+)")


@dataclass(frozen=True, slots=True)
class AuthorizerReader:
    """Reads the authorizers of a service's events. One that is not asked here gets a notice, which refuses the route.

    `keys`: issuer → JSON Web Key Set, of `custom.hitless.jwks`.
    """

    entries: Mapping[str, Value]
    provider: Value
    opened: Collection[Route]
    keys: Mapping[str, str]
    notices: Notices

    def read(self, events: Mapping[str, tuple[RouteEvent, ...]]) -> Mapping[str, tuple[RouteEvent, ...]]:
        """The events of each function with their authorizers.

        A function that has guarded routes itself cannot be an authorizer: its workers would wait for each other.
        """
        known = {name for name, each in events.items() if not any(map(_declared, each))}
        return {
            name: tuple(self._with(event, known, read_payload(self.provider, self.entries[name])) for event in each)
            for name, each in events.items()
        }

    def _with(self, event: RouteEvent, functions: Collection[str], payload: str) -> RouteEvent:
        value = _declared(event)
        if value is None or not value.data:
            return event
        found = None
        if event.route not in self.opened and not mapped_routes([event]):
            found = self._http_api(value, functions, payload) if event.http_api else self._rest(value, functions)
        if found is None:
            self.notices.add(
                f"functions.*.events.*.{'httpApi' if event.http_api else 'http'}.authorizer", value, AUTHORIZER
            )
        return replace(event, authorizer=found)

    def _rest(self, value: Value, functions: Collection[str]) -> Authorizer | None:
        own = value.data if isinstance(value.data, Mapping) else {"arn": value}
        arn = own.get("arn")
        pool = _POOL.fullmatch(arn.data) if arn is not None and isinstance(arn.data, str) else None
        if pool is None:
            return _lambda(value, functions)
        sources, scopes = _sources(own.get("identitySource"), (_DEFAULT_SOURCE,)), _texts(own.get("scopes"))
        if own.keys() - _COGNITO_KEYS or ("type" in own and _word(own["type"]) != "cognito_user_pools"):
            return None
        if sources is None or scopes is None or [where for where, _ in sources] != ["header"]:
            return None
        return self._tokens(f"https://cognito-idp.{pool[1]}.amazonaws.com/{pool[2]}", sources, (), scopes, "")

    def _http_api(self, value: Value, functions: Collection[str], payload: str) -> Authorizer | None:
        own = value.mapping() if isinstance(value.data, Mapping) else {"name": value}
        named = own.get("name")
        declared = self.provider.get("httpApi", "authorizers")
        shared = declared.get(str(named.data)) if declared is not None and named is not None else None
        if shared is None or own.keys() - {"name", "type", "scopes"}:
            return None
        kind, scopes = shared.optional("type", _word, "jwt"), _texts(own.get("scopes"))
        if shared.mapping().keys() - _HTTP_KEYS.get(kind, set()) or scopes is None:
            return None
        if "type" in own and _word(own["type"]) != kind:
            return None
        if kind == "jwt":
            sources = _sources(shared.get("identitySource"), ("$request.header.Authorization",))
            issuer, audience = shared.get("issuerUrl"), _texts(shared.get("audience"))
            plain = issuer is not None and isinstance(issuer.data, str) and issuer.data.startswith("https://")
            if issuer is None or not plain or not audience or sources is None or len(sources) != 1:
                return None
            return self._tokens(issuer.text(), sources, audience, scopes, payload)
        return None if scopes else _http_lambda(shared, functions, payload)

    def _tokens(
        self, issuer: str, sources: tuple[tuple[str, str], ...], audience: tuple[str, ...], scopes: tuple[str, ...],
        payload: str,
    ) -> Authorizer:  # fmt: skip
        given = self.keys.get(issuer, "")
        return Authorizer(
            CHECKS.name, "JWT", sources, payload=payload, issuer=issuer, audience=audience, scopes=scopes, keys=given
        )


def read_jwks(value: Value) -> dict[str, str]:
    """Issuer → its JSON Web Key Set as text. ServiceFileError for an entry that is no such set of public keys."""
    found: dict[str, str] = {}
    for issuer, entry in value.mapping().items():
        keys = entry.get("keys")
        for key in keys.items() if keys is not None else ():
            if key.get("kid") is None or key.get("d") is not None:
                raise key.fault("is not a public key with a kid", "give the document that the issuer's jwks_uri has")
        if keys is None or not keys.items():
            raise entry.fault("has no keys", f"write {issuer}: ${{file(jwks.json)}}")
        found[issuer] = json.dumps(entry.plain())
    return found


def _declared(event: RouteEvent) -> Value | None:
    at = event.at
    return at.get("authorizer") if not event.url and isinstance(at.data, Mapping) else None


def _lambda(value: Value, functions: Collection[str]) -> Authorizer | None:
    """A Lambda authorizer of a REST API."""
    if isinstance(value.data, str):
        return Authorizer(value.data, "TOKEN", (("header", "authorization"),)) if value.data in functions else None
    if not isinstance(value.data, Mapping) or not value.data.keys() <= _KEYS:
        return None
    kind, name = value.optional("type", Value.text, "token").upper(), value.optional("name", Value.text, "")
    if kind not in ("TOKEN", "REQUEST") or name not in functions:
        return None
    ttl = value.get("resultTtlInSeconds")
    ttl_s = 300 if ttl is None else ttl.integer(0, 3600)
    default = () if kind == "REQUEST" and not ttl_s else (_DEFAULT_SOURCE,)
    sources = _sources(value.get("identitySource"), default)
    if sources is None or (kind == "TOKEN" and [where for where, _ in sources] != ["header"]):
        return None
    validation = value.optional("identityValidationExpression", Value.text, "")
    try:
        re.compile(validation)
    except re.error:
        return None
    return Authorizer(name, kind, sources, validation, ttl_s)


def _http_lambda(value: Value, functions: Collection[str], payload: str) -> Authorizer | None:
    """A Lambda authorizer of an HTTP API, whose event has the format of the route's."""
    name, sources = value.optional("functionName", Value.text, ""), _sources(value.get("identitySource"), ())
    version = value.optional("payloadVersion", Value.text, "2.0")[0] + ".0"
    simple = value.optional("enableSimpleResponses", Value.flag, False)
    ttl = value.get("resultTtlInSeconds")
    ttl_s = 0 if ttl is None else ttl.integer(0, 3600)
    if name not in functions or sources is None or version != payload or (simple and version != "2.0"):
        return None
    return None if ttl_s and not sources else Authorizer(name, "REQUEST", sources, "", ttl_s, payload, simple)


def _sources(value: Value | None, default: tuple[str, ...]) -> tuple[tuple[str, str], ...] | None:
    """Places and names of the identity; None if one of them is not read here."""
    listed = _listed(value)
    found = [_SOURCE.fullmatch(one) for one in listed or default]
    if not all(found):
        return None
    return tuple((one[1], one[2].lower() if one[1] == "header" else one[2]) for one in found if one)


def _texts(value: Value | None) -> tuple[str, ...] | None:
    """The texts of a list or of one; None if CloudFormation resolves one of them."""
    items = () if value is None else value.items() if isinstance(value.data, tuple) else (value,)
    return tuple(map(Value.text, items)) if all(isinstance(item.data, str | int) for item in items) else None


def _word(value: Value) -> str:
    return value.text().lower()


def _listed(value: Value | None) -> tuple[str, ...]:
    items = () if value is None else value.items() if isinstance(value.data, tuple) else (value,)
    return tuple(one.strip() for item in items for one in item.text().split(",") if one.strip())
