"""`hitless schema`: JSON Schemas of the files that people write, for their editors."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from hitless.cli.common import Context, command
from hitless.drill.requests import RequestLine
from hitless.pipeline.buildspec.spec import Buildspec
from hitless.service.schema import service_schema


class Document(StrEnum):
    """A kind of file."""

    SERVERLESS = "serverless"
    BUILDSPEC = "buildspec"
    DRILL_REQUESTS = "drill-requests"


SCHEMAS: dict[Document, Callable[[], dict[str, Any]]] = {
    Document.SERVERLESS: service_schema,
    Document.BUILDSPEC: lambda: msgspec.json.schema(Buildspec),
    Document.DRILL_REQUESTS: lambda: msgspec.json.schema(RequestLine),
}

DocumentArgument = Annotated[Document, typer.Argument(help="Which file the schema is for.")]


@command("schema", example="hitless schema > serverless.schema.json")
def schema(ctx: Context, document: DocumentArgument = Document.SERVERLESS) -> None:
    """Print the JSON Schema of serverless.yml, of a buildspec, or of a line of the drill's requests."""
    found = SCHEMAS[document]()
    ctx.show(found, lambda: json.dumps(found, indent=1, ensure_ascii=False))
