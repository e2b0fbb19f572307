"""Reads exported traces by OpenTelemetry's own messages, and serves as a collector."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_IDS = {"traceId": 32, "spanId": 16, "parentSpanId": 16}


def message_of(body: bytes) -> ExportTraceServiceRequest:
    """The message in OTLP's JSON. Fails at a field that it does not have, and at an id that W3C does not allow.

    "The `traceId` and `spanId` byte arrays are represented as case-insensitive hex-encoded strings; they are not
    base64-encoded as is defined in the standard Protobuf JSON Mapping" (OTLP Specification, JSON Protobuf Encoding),
    so they are encoded in base64 for that mapping. Trace Context, 3.2.2.3 and 3.2.2.4: "All bytes as zero … is
    considered an invalid value".
    """

    def walked(value: Any) -> Any:
        if isinstance(value, list):
            return [walked(one) for one in value]
        if not isinstance(value, dict):
            return value
        found = {key: walked(one) for key, one in value.items()}
        for key in _IDS.keys() & found.keys():
            if found[key] or key != "parentSpanId":
                assert re.fullmatch(f"(?!0+$)[0-9a-f]{{{_IDS[key]}}}", found[key]), (key, found[key])
            found[key] = base64.b64encode(bytes.fromhex(found[key])).decode()
        return found

    return Parse(json.dumps(walked(json.loads(body))), ExportTraceServiceRequest())


def spans_of(*bodies: bytes) -> list[tuple[dict[str, str], Span]]:
    """The attributes of each span's resource, and the span."""
    return [
        (facts_of(resource.resource), span)
        for body in bodies
        for resource in message_of(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def facts_of(described: Any) -> dict[str, Any]:
    """The attributes of a span or a resource."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in described.attributes}


class Collector:
    """Keeps what it got, and answers with the given responses, then always with the last one; None never answers."""

    def __init__(self, *responses: str | None) -> None:
        self.responses = list(responses)
        self.bodies: list[bytes] = []
        self.heads: list[str] = []
        self.serving: list[asyncio.Task[None]] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.append(task)
        with suppress(ConnectionError, EOFError):  # the exporter gave up
            await self._respond(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head)
        assert length is not None
        self.heads.append(head)
        self.bodies.append(await reader.readexactly(int(length[1])))
        response = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        if response is None:
            await reader.read()  # until the exporter gives up
        else:
            writer.write(f"HTTP/1.1 {response}\r\ncontent-length: 2\r\n\r\n{{}}".encode())

    @property
    def environ(self) -> Mapping[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}"}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self.serve, "127.0.0.1", self.port) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield
            await asyncio.gather(*self.serving)
