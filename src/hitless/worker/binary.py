"""Binary media types of a REST API: which request bodies come as base64, and which base64 responses are sent decoded.

A request's Content-Type decides (application/json without one), and of a response only the first type of the client's
Accept header, not the response's own type.
Sources: docs.aws.amazon.com/apigateway/latest/developerguide/lambda-proxy-binary-media.html and
api-gateway-payload-encodings-workflow.html; tests of LocalStack that were run against AWS (tests/conformance).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hitless.worker.request import Request, header
from hitless.worker.response import render


class BinaryMediaTypes:
    """The media types that an API is configured to treat as binary: `image/png`, `image/*` or `*/*`."""

    def __init__(self, types: Iterable[str]) -> None:
        self._types = frozenset(one.lower() for one in types)

    def takes(self, request: Request) -> bool:
        """Whether the request's body is binary."""
        return self._match(header(request, b"content-type") or "application/json")

    def accepted(self, request: Request) -> bool:
        """Whether the client gets binary responses."""
        return self._match((header(request, b"accept") or "").partition(",")[0])

    def _match(self, value: str) -> bool:
        kind = value.partition(";")[0].strip().lower()
        return not self._types.isdisjoint((kind, f"{kind.rpartition('/')[0]}/*", "*/*"))


def render_text(result: Any, *, head_only: bool, extra: str) -> tuple[int, bytes]:
    """Like `render`, but a base64 body is sent as text, without decoding it."""
    if isinstance(result, dict) and result.get("isBase64Encoded"):
        result = {**result, "isBase64Encoded": False}
    return render(result, head_only=head_only, extra=extra)
