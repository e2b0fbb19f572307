"""`hitless schema`: JSON Schemas of the files that people write, for their editors. `scripts/schemas.py` makes them."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import hitless.service
from hitless.cli.common import Context, command

FOLDER = Path(hitless.service.__file__).parent / "schemas"


class Document(StrEnum):
    """A kind of file."""

    SERVERLESS = "serverless"
    BUILDSPEC = "buildspec"
    DRILL_REQUESTS = "drill-requests"


DocumentArgument = Annotated[Document, typer.Argument(help="Which file the schema is for.")]


@command("schema", example="hitless schema > serverless.schema.json")
def schema(ctx: Context, document: DocumentArgument = Document.SERVERLESS) -> None:
    """Print the JSON Schema of serverless.yml or of another document."""
    text = (FOLDER / f"{document}.json").read_text()
    ctx.show(json.loads(text), lambda: text)
