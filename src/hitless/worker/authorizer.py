"""Lambda authorizers of a REST API: a function decides by a policy whether a request may reach the handler.

The worker with the request invokes the authorizer's pool through HAProxy's inner socket; the daemon has no part in it.
Each worker caches policies by itself. A statement with a condition never allows anything: none is evaluated.
Sources: docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-input.html and
api-gateway-lambda-authorizer-output.html; for the texts of refusals tests/conformance.
"""

from __future__ import annotations

import json
import re
import socket
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final
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


class Authorizers:
    """Asks the authorizers of one function's routes. `hop` is the gateway's inner socket."""

    def __init__(self, spec: PoolSpec, hop: str) -> None:
        self._hop, self._release = hop, spec.release_key
        self._arn = f"arn:aws:execute-api:{spec.region}:{ACCOUNT_ID}:{spec.service}-{spec.stage}/{spec.stage}"
        self._cache: dict[tuple[AuthorizerSpec, tuple[str, ...]], tuple[float, Any, Any]] = {}

    def check(self, authorizer: AuthorizerSpec, event: Event, request: Request) -> Denial | None:
        """None if the request may pass; then the event's context has what the authorizer says of it."""
        headers = {name.lower(): value for name, value in event["headers"].items()}
        places: dict[str, dict[str, str]] = {"header": headers, "querystring": event["queryStringParameters"] or {}}
        identity = tuple(places[where].get(name, "") for where, name in authorizer.sources)
        if not all(identity) or (authorizer.validation and not re.fullmatch(authorizer.validation, identity[0])):
            return UNAUTHORIZED
        arn = f"{self._arn}/{event['httpMethod']}{event['path']}"
        key, began_s = (authorizer, identity), time.monotonic()
        valid_until_s, policy, context = self._cache.get(key, (0.0, {}, None))
        if valid_until_s <= began_s:
            asked: dict[str, Any] = {"type": authorizer.kind, "methodArn": arn}
            if authorizer.kind == "TOKEN":
                asked["authorizationToken"] = identity[0]
            else:
                asked |= {name: value or {} for name, value in event.items() if name not in ("body", "isBase64Encoded")}
            outcome = self._ask(authorizer.function, asked, request)
            if (context := _context(outcome.get("result"))) is None:
                return UNAUTHORIZED if outcome.get("failure") == "Unauthorized" else FAILED
            policy = outcome["result"]["policyDocument"]
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            self._cache[key] = began_s + authorizer.ttl_s, policy, context
        if (denial := verdict(policy, arn)) is None and _is_denied_otherwise(policy, arn):
            denial = EXPLICIT
        if denial is None:
            latency_ms = int((time.monotonic() - began_s) * 1000)
            event["requestContext"]["authorizer"] = {**context, "integrationLatency": latency_ms}
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


def _context(result: Any) -> dict[str, Any] | None:
    """What the handler sees of the result; None if API Gateway would not take it."""
    if not isinstance(result, dict) or not isinstance(result.get("policyDocument"), dict):
        return None
    given = result.get("context") or {}
    if not isinstance(given, dict) or not all(isinstance(one, str | int | float) for one in given.values()):
        return None
    texts = {name: one if isinstance(one, str) else json.dumps(one) for name, one in given.items()}
    return {"principalId": result.get("principalId"), **texts}


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
