"""Authorizers: a function decides, by a policy, a simple response or a token, whether a request may reach the handler.

The worker with the request invokes the authorizer's pool through HAProxy's inner socket; the daemon has no part in it.
Each worker caches policies by itself. A statement with a condition never allows anything: none is evaluated.
Sources: docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-input.html,
api-gateway-lambda-authorizer-output.html and http-api-lambda-authorizer.html; for refusals tests/conformance.
"""

from __future__ import annotations

import json
import re
import socket
import time
import uuid
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from hitless.worker.environment import ACCOUNT_ID
from hitless.worker.event import REST, Event, EventBuilder
from hitless.worker.handler import marshalled
from hitless.worker.request import INVOKE, Request
from hitless.worker.response import http_response
from hitless.worker.spec import AuthorizerSpec, PoolSpec, RouteSpec

Denial = tuple[int, str, str]
"""Status, body and header lines of the response to a request that may not pass."""

_MOST_CACHED: Final = 1000
_ANSWER_WITHIN_S: Final = 35.0
"""The gateway gives up earlier."""
_JSON: Final = "content-type: application/json\r\n"


def _denial(status: int, key: str, text: str | None, kind: str) -> Denial:
    return status, json.dumps({key: text}), f"{_JSON}x-amzn-errortype: {kind}Exception\r\n"


UNAUTHORIZED: Final = _denial(401, "message", "Unauthorized", "Unauthorized")
FAILED: Final = _denial(500, "message", None, "AuthorizerConfiguration")
_TEXT: Final = "User is not authorized to access this resource"
IMPLICIT: Final = _denial(403, "Message", _TEXT, "AccessDenied")
EXPLICIT: Final = _denial(403, "Message", f"{_TEXT} with an explicit deny", "AccessDenied")
_HTTP_API_TEXTS: Final = {401: "Unauthorized", 403: "Forbidden", 500: "Internal Server Error"}
_ANYTHING: Final = {"Action": "*", "Resource": "*"}


class _Verdict(NamedTuple):
    """An authorizer's answer: how long it may be cached, its policy, and what the handler sees of it."""

    ttl_s: float
    policy: Mapping[str, Any]
    context: dict[str, Any]


class Authorizers:
    """Asks the authorizers of one function's routes. `hop` is the gateway's inner socket."""

    def __init__(self, spec: PoolSpec, hop: str) -> None:
        self._hop, self._release = hop, spec.release_key
        self._arn = f"arn:aws:execute-api:{spec.region}:{ACCOUNT_ID}:{spec.service}-{spec.stage}"
        self._stage = spec.stage
        self._cache: dict[tuple[AuthorizerSpec, tuple[str, ...]], tuple[float, _Verdict]] = {}

    def check(self, authorizer: AuthorizerSpec, event: Event, request: Request) -> Denial | None:
        """None if the request may pass; then the event's context has what the authorizer says of it."""
        denial = self._check(authorizer, event, request)
        if denial is None or not authorizer.payload:
            return denial
        challenge = denial[2].partition("www-authenticate: ")[2] or ("Bearer\r\n" if authorizer.issuer else "")
        lines = _JSON + (f"www-authenticate: {challenge}" if challenge else "")
        return denial[0], f'{{"message":"{_HTTP_API_TEXTS[denial[0]]}"}}', lines

    def _check(self, authorizer: AuthorizerSpec, event: Event, request: Request) -> Denial | None:
        headers = {name.lower(): value for name, value in event["headers"].items()}
        places = {"header": headers, "querystring": event.get("queryStringParameters") or {}}
        identity = tuple(places[where].get(name, "") for where, name in authorizer.sources)
        if not all(identity) or (authorizer.validation and not re.fullmatch(authorizer.validation, identity[0])):
            return UNAUTHORIZED
        called = event["requestContext"].get("http") or {"method": event["httpMethod"], "path": event["path"]}
        stage = "$default" if authorizer.payload else self._stage
        arn = f"{self._arn}/{stage}/{called['method']}{called['path']}"
        key, began_s = (authorizer, identity), time.monotonic()
        valid_until_s, found = self._cache.get(key, (0.0, None))
        if found is None or valid_until_s <= began_s:
            asked = _question(authorizer, identity, event, arn)
            answer = _answer(authorizer, self._ask(authorizer.function, asked, request))
            if not isinstance(answer, _Verdict):
                return answer
            found = answer
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            self._cache[key] = began_s + found.ttl_s, found
        if (denial := verdict(found.policy, arn)) is None and _is_denied_otherwise(found.policy, arn):
            denial = EXPLICIT
        if denial is None:
            context = event["requestContext"]["authorizer"] = deepcopy(found.context)
            if not authorizer.issuer and authorizer.payload != "2.0":
                context["integrationLatency"] = int((time.monotonic() - began_s) * 1000)
        return denial

    def _ask(self, function: str, event: Mapping[str, Any], request: Request) -> dict[str, Any]:
        """`result`, or `failure` with the error's message; empty if the authorizer cannot be invoked."""
        smoke = request.internal.get(f"x-hl-at-{function}".lower().encode())  # the gateway does not know it yet
        body = json.dumps(event).encode()
        head = (
            f"{INVOKE} /{function} HTTP/1.1\r\nhost: authorizer\r\nx-hl-release: {self._release}\r\n"
            f"x-hl-id: {uuid.uuid4()}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_ANSWER_WITHIN_S)
                connection.connect(smoke or self._hop)
                connection.sendall(head.encode() + body)
                received = b"".join(iter(lambda: connection.recv(65536), b""))
            outcome: dict[str, Any] = json.loads(received.partition(b"\r\n\r\n")[2])
        except (OSError, ValueError):
            return {}
        return outcome


def _question(authorizer: AuthorizerSpec, identity: tuple[str, ...], event: Event, arn: str) -> dict[str, Any]:
    """The event of the authorizer's function."""
    if authorizer.issuer:
        required = {name: getattr(authorizer, name) for name in ("payload", "issuer", "audience", "scopes", "keys")}
        return {"token": re.sub("^(?i:bearer) +", "", identity[0]), **required}
    arn_name = "routeArn" if authorizer.payload == "2.0" else "methodArn"
    asked: dict[str, Any] = {"type": authorizer.kind, arn_name: arn}
    if authorizer.kind == "TOKEN":
        return {**asked, "authorizationToken": identity[0]}
    if authorizer.payload == "2.0":
        asked["identitySource"] = list(identity) or None
    elif authorizer.payload:
        asked["identitySource"] = asked["authorizationToken"] = ",".join(identity)
    parts = ((name, value) for name, value in event.items() if name not in ("body", "isBase64Encoded"))
    return asked | {name: {} if value is None else value for name, value in parts}


def _answer(authorizer: AuthorizerSpec, outcome: Mapping[str, Any]) -> _Verdict | Denial:
    """What the function's outcome means; a denial if API Gateway would not take it."""
    result = outcome.get("result")
    if not isinstance(result, dict):
        return UNAUTHORIZED if outcome.get("failure") == "Unauthorized" else FAILED
    if authorizer.issuer:
        if "denied" not in result:
            return _Verdict(result["valid_s"], {"Statement": {"Effect": "Allow", **_ANYTHING}}, result["context"])
        status, text, challenge = result["denied"]
        denial = _denial(status, "message", text, "Unauthorized")
        return (*denial[:2], f"{denial[2]}www-authenticate: {challenge}\r\n") if challenge else denial
    given = result.get("context") or {}
    if authorizer.simple:
        effect = "Allow" if result.get("isAuthorized") is True else "Deny"
        result = {**result, "policyDocument": {"Statement": {"Effect": effect, **_ANYTHING}}}
    if not isinstance(given, dict) or not isinstance(policy := result.get("policyDocument"), dict):
        return FAILED
    if authorizer.payload == "2.0":
        return _Verdict(authorizer.ttl_s, policy, {"lambda": given or None})
    if not all(isinstance(one, str | int | float) for one in given.values()):
        return FAILED
    texts = {name: one if isinstance(one, str) else json.dumps(one) for name, one in given.items()}
    return _Verdict(authorizer.ttl_s, policy, {"principalId": result.get("principalId"), **texts})


def verdict(policy: Mapping[str, Any], arn: str) -> Denial | None:
    """None if the policy allows that method. A deny outweighs; what cannot be evaluated here does not allow."""
    statements, allowed = policy.get("Statement"), False
    for statement in statements if isinstance(statements, list) else [statements]:
        if not isinstance(statement, dict):
            return FAILED
        unsure = not {"Condition", "NotAction", "NotResource"}.isdisjoint(statement)
        applies = _matches(statement.get("Action"), "execute-api:Invoke") and _matches(statement.get("Resource"), arn)
        if statement.get("Effect") != "Allow" and (applies or unsure):
            return EXPLICIT
        allowed = allowed or (applies and not unsure)
    return None if allowed else IMPLICIT


def _is_denied_otherwise(policy: Mapping[str, Any], arn: str) -> bool:
    """Whether the policy denies the path without its trailing slash or percent-encoding: to handlers it is the same."""
    return any(verdict(policy, one) is EXPLICIT for one in {arn.rstrip("/"), unquote(arn), unquote(arn).rstrip("/")})


def _matches(patterns: Any, text: str) -> bool:
    ignored = re.NOFLAG if text.startswith("arn:") else re.IGNORECASE
    return any(
        isinstance(one, str) and re.fullmatch(re.escape(one).replace(r"\*", ".*").replace(r"\?", "."), text, ignored)
        for one in (patterns if isinstance(patterns, list) else [patterns])
    )


def _render(result: Any, *, head_only: bool, extra: str) -> tuple[int, bytes]:
    return 200, http_response(200, f'{{"result": {marshalled(result)}}}'.encode(), _JSON + extra)


class InvokedEvents(EventBuilder):
    """Takes invocations by workers of other functions. A failure is no failed response, so that no alarm counts it."""

    def __init__(self, spec: PoolSpec) -> None:
        super().__init__(spec)
        self.route = RouteSpec(INVOKE, "", "")
        self.flavour = REST._replace(
            trace_header="", render=_render, fail=lambda failure: (200, json.dumps({"failure": failure.message}), _JSON)
        )

    def build(self, request: Request, request_id: str, now_s: float) -> Event | None:
        """The event as it was sent."""
        event: Event = json.loads(request.body)
        return event
