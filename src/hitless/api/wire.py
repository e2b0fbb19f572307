"""Bodies in, bounded; JSON documents out, one a line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hitless.errors import UsageError

MAX_BODY_BYTES = 4 * 1024 * 1024


async def json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises UsageError where it is none, or too large."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise UsageError(f"the request is larger than {MAX_BODY_BYTES} bytes", hint="see what serverless.yml holds")
        chunks.append(chunk)
    try:
        document = json.loads(b"".join(chunks) or b"{}")
    except ValueError as error:
        raise UsageError(f"the request is not JSON: {error}", hint="use the hitless command") from error
    if not isinstance(document, dict):
        raise UsageError("the request is not a JSON object", hint="use the hitless command")
    return document


async def one_line(document: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """A stream of one document."""
    yield document


def json_lines(documents: AsyncIterator[dict[str, Any]]) -> Response:
    """An answer of one document a line, each sent as it comes."""

    async def encoded() -> AsyncIterator[bytes]:
        async for document in documents:
            yield json.dumps(document).encode() + b"\n"

    return StreamingResponse(encoded(), media_type="application/x-ndjson")
