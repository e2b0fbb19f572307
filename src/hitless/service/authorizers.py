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
from typing import Any

import msgspec
from msgspec.structs import replace

from hitless.service.event_sources import Authorizer, Route
from hitless.service.events import RouteEvent, read_payload
from hitless.service.integrations import mapped_routes
from hitless.service.keys import AUTHORIZER
from hitless.service.model import CHECKS
from hitless.service.value import Notices, Value

_TOKEN_OR_REQUEST = {"name", "type", "resultTtlInSeconds", "identitySource", "identityValidationExpression"}
_USER_POOL = {"name", "type", "resultTtlInSeconds", "identitySource", "arn", "scopes"}
_JWT = {"type", "identitySource", "issuerUrl", "audience"}
_REQUEST = {"type", "name", "functionName", "resultTtlInSeconds", "enableSimpleResponses", "payloadVersion"}
_SOURCE = re.compile(r"(?:method\.|\$)request\.(header|querystring)\.([^\s,]+)")
_AUTHORIZATION = ("method.request.header.Authorization",)
_POOL = re.compile(r"arn:aws(?:-us-gov)?:cognito-idp:([a-z0-9-]+):\d{12}:userpool/([\w-]+)")

Sources = tuple[tuple[str, str], ...]
"""Places and names of an identity."""


class _NotAskedError(Exception):
    """The engine does not enforce an authorizer of this form."""


class AuthorizerReader(msgspec.Struct, frozen=True):
    """Reads the authorizers of a service's events. An unenforced one gets a notice, which refuses the route.

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
        payloads = {name: read_payload(self.provider, self.entries[name]) for name in events}
        return {name: tuple(self._with(one, known, payloads[name]) for one in each) for name, each in events.items()}

    def _with(self, event: RouteEvent, functions: Collection[str], payload: str) -> RouteEvent:
        value = _declared(event)
        if value is None or not value.data:
            return event
        try:
            _demand(event.route not in self.opened and not mapped_routes([event]))
            found = self._http_api(value, functions, payload) if event.http_api else _rest(value, functions)
        except _NotAskedError:
            kind = "httpApi" if event.http_api else "http"
            self.notices.add(f"functions.*.events.*.{kind}.authorizer", value, AUTHORIZER)
            return event
        return replace(event, authorizer=replace(found, keys=self.keys.get(found.issuer, "")))

    def _http_api(self, value: Value, functions: Collection[str], payload: str) -> Authorizer:
        own = value.data if isinstance(value.data, Mapping) else {"name": value}
        declared = self.provider.optional("httpApi", lambda api: api.get("authorizers"), None)
        shared = declared.mapping().get(str(own["name"].data)) if declared is not None and "name" in own else None
        if shared is None:
            raise _NotAskedError
        one, scopes = shared.mapping(), _texts(own.get("scopes"))
        kind = _kind(one, "JWT")
        _demand(own.keys() <= {"name", "type", "scopes"} and _kind(own, kind) == kind)
        if kind != "JWT":
            _demand(kind == "REQUEST" and not scopes and one.keys() <= _REQUEST | {"identitySource"})
            return _http_lambda(shared, functions, payload)
        issuer, audience = _texts(one.get("issuerUrl")), _texts(one.get("audience"))
        sources = _sources(one.get("identitySource"), _AUTHORIZATION)
        _demand(one.keys() <= _JWT and len(issuer) == len(sources) == 1 and audience != ())
        _demand(issuer[0].startswith("https://"))
        return _tokens(issuer[0], sources, scopes, audience=audience, payload=payload)


def read_jwks(value: Value) -> dict[str, str]:
    """Issuer → its JSON Web Key Set as text. ServiceFileError for an entry that is no such set of public keys."""
    found: dict[str, str] = {}
    for issuer, entry in value.mapping().items():
        keys = entry.optional("keys", Value.items, ())
        if not keys or any(key.get("kid") is None or key.get("d") is not None for key in keys):
            raise entry.fault("is not a set of public keys with a kid", f"write {issuer}: ${{file(jwks.json)}}")
        found[issuer] = json.dumps(entry.plain())
    return found


def _declared(event: RouteEvent) -> Value | None:
    at = event.at
    return at.get("authorizer") if not event.url and isinstance(at.data, Mapping) else None


def _demand(condition: bool) -> None:
    if not condition:
        raise _NotAskedError


def _tokens(issuer: str, sources: Sources, scopes: tuple[str, ...], **http_api: Any) -> Authorizer:
    return Authorizer(CHECKS.name, "JWT", sources, issuer=issuer, scopes=scopes, **http_api)


def _rest(value: Value, functions: Collection[str]) -> Authorizer:
    own = value.data if isinstance(value.data, Mapping) else {"name": value}
    arn = own.get("arn", value).data
    if (pool := _POOL.fullmatch(arn) if isinstance(arn, str) else None) is None:
        return _lambda(own, functions)
    _demand(own.keys() <= _USER_POOL and _kind(own, "COGNITO_USER_POOLS") == "COGNITO_USER_POOLS")
    issuer = f"https://cognito-idp.{pool[1]}.amazonaws.com/{pool[2]}"
    return _tokens(issuer, _header(own), _texts(own.get("scopes")))


def _kind(own: Mapping[str, Value], default: str) -> str:
    return own["type"].text().upper() if "type" in own else default


def _lambda(own: Mapping[str, Value], functions: Collection[str]) -> Authorizer:
    """A Lambda authorizer of a REST API."""
    _demand(own.keys() <= _TOKEN_OR_REQUEST and "name" in own and own["name"].data in functions)
    _demand((kind := _kind(own, "TOKEN")) in ("TOKEN", "REQUEST"))
    ttl_s = own["resultTtlInSeconds"].integer(0, 3600) if "resultTtlInSeconds" in own else 300
    default = _AUTHORIZATION if ttl_s else ()
    sources = _header(own) if kind == "TOKEN" else _sources(own.get("identitySource"), default)
    validation = own["identityValidationExpression"].text() if "identityValidationExpression" in own else ""
    try:
        re.compile(validation)
    except re.error:
        raise _NotAskedError from None
    return Authorizer(own["name"].text(), kind, sources, validation, ttl_s)


def _http_lambda(value: Value, functions: Collection[str], payload: str) -> Authorizer:
    """A Lambda authorizer of an HTTP API, whose event has the format of the route's."""
    name, sources = value.optional("functionName", Value.text, ""), _sources(value.get("identitySource"), ())
    version = value.optional("payloadVersion", Value.text, "2.0")[0] + ".0"
    simple = value.optional("enableSimpleResponses", Value.flag, False)
    ttl_s = value.optional("resultTtlInSeconds", lambda ttl: ttl.integer(0, 3600), 0)
    _demand(name in functions and version == payload and not (simple and version != "2.0"))
    _demand(sources != () or not ttl_s)
    return Authorizer(name, "REQUEST", sources, "", ttl_s, payload, simple)


def _header(own: Mapping[str, Value]) -> Sources:
    """The one header that has the token."""
    sources = _sources(own.get("identitySource"), _AUTHORIZATION)
    _demand([where for where, _ in sources] == ["header"])
    return sources


def _sources(value: Value | None, default: tuple[str, ...]) -> Sources:
    listed = [one.strip() for text in _texts(value) for one in text.split(",") if one.strip()]
    found = [_SOURCE.fullmatch(one) for one in listed or default]
    _demand(all(found))
    return tuple((one[1], one[2].lower() if one[1] == "header" else one[2]) for one in found if one)


def _texts(value: Value | None) -> tuple[str, ...]:
    """The texts of a list or of one."""
    items = () if value is None or value.data is None else value.items() if isinstance(value.data, tuple) else (value,)
    _demand(all(isinstance(item.data, str | int) for item in items))
    return tuple(map(Value.text, items))
