"""Reads request bodies, bounded, and streams JSON documents, one a line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hitless.documents import decode
from hitless.errors import UsageError

MAX_BODY_BYTES = 4 * 1024 * 1024
T = TypeVar("T")


async def read_body(request: Request, kind: type[T]) -> T:
    """The request's body. Raises UsageError if it is not of that type, or too large."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise UsageError(
                f"the request is larger than {MAX_BODY_BYTES} bytes", hint="make serverless.yml and its values smaller"
            )
        chunks.append(chunk)
    return decode(b"".join(chunks) or b"{}", kind, "the request", error=UsageError)


async def one_line(document: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """A stream of one document."""
    yield document


def json_lines(documents: AsyncIterator[dict[str, Any]]) -> Response:
    """A response of one document a line, each sent as it comes."""

    async def encoded() -> AsyncIterator[bytes]:
        async for document in documents:
            yield json.dumps(document).encode() + b"\n"

    return StreamingResponse(encoded(), media_type="application/x-ndjson")
