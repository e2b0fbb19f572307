"""Lambda authorizers of http events, as far as the engine enforces them: TOKEN and REQUEST, a function of the service.

What it does not enforce (IAM, Cognito, authorizers by ARN, other identity sources) stays refused by
`hitless.service.closed`. Source: `validate.js` of Serverless Framework (osls), for the forms and defaults.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

from hitless.service.events import RouteEvent
from hitless.service.integrations import mapped_routes
from hitless.service.keys import AUTHORIZER
from hitless.service.model import Authorizer, Route
from hitless.service.value import Notices, Value

_KEYS = {"name", "type", "resultTtlInSeconds", "identitySource", "identityValidationExpression"}
_SOURCE = re.compile(r"method\.request\.(header|querystring)\.([^\s,]+)")
_DEFAULT_SOURCE = "method.request.header.Authorization"


def with_authorizers(
    events: Mapping[str, tuple[RouteEvent, ...]], opened: Collection[Route], notices: Notices
) -> Mapping[str, tuple[RouteEvent, ...]]:
    """The events of each function with their authorizers. One that is not asked here gets a notice, which refuses it.

    A function that has guarded routes itself cannot be an authorizer: its workers would wait for each other.
    """
    known = {name for name, each in events.items() if not any(map(_declared, each))}

    def read(event: RouteEvent) -> RouteEvent:
        value = _declared(event)
        if value is None or not value.data:
            return event
        found = None if event.route in opened or mapped_routes([event]) else _authorizer(value, known)
        if found is None:
            notices.add("functions.*.events.*.http.authorizer", value, AUTHORIZER)
        return replace(event, authorizer=found)

    return {name: tuple(map(read, each)) for name, each in events.items()}


def _declared(event: RouteEvent) -> Value | None:
    at = event.at
    return at.get("authorizer") if not event.http_api and isinstance(at.data, Mapping) else None


def _authorizer(value: Value, functions: Collection[str]) -> Authorizer | None:
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
    sources = [_SOURCE.fullmatch(one) for one in _listed(value.get("identitySource")) or default]
    found = tuple((match[1], match[2].lower() if match[1] == "header" else match[2]) for match in sources if match)
    if len(found) < len(sources) or (kind == "TOKEN" and [where for where, _ in found] != ["header"]):
        return None
    validation = value.optional("identityValidationExpression", Value.text, "")
    try:
        re.compile(validation)
    except re.error:
        return None
    return Authorizer(name, kind, found, validation, ttl_s)


def _listed(value: Value | None) -> tuple[str, ...]:
    items = () if value is None else value.items() if isinstance(value.data, tuple) else (value,)
    return tuple(one.strip() for item in items for one in item.text().split(",") if one.strip())
