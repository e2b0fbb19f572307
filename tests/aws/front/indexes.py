"""Fails an update that changes two global secondary indexes of one table, as AWS does; ministack would carry it out.

DynamoDB creates or deletes one index an UpdateTable (API reference, GlobalSecondaryIndexUpdates); CloudFormation's
template reference says the same of AWS::DynamoDB::Table. AWS tells it as the table's failed event; the front refuses
the call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError
from starlette.responses import Response

from tests.aws.front.backend import Backend

SAID = "Cannot perform more than one GSI creation or deletion in a single update"
_ORIGINAL = "TemplateAsSent"


async def too_many_indexes(backend: Backend, template: Mapping[str, Any], stack: str, region: str) -> Response | None:
    """The refusal, or None if each table of the stack changes one index at most."""
    if not _tables(template):
        return None
    before = await asyncio.to_thread(_standing, backend, stack, region)
    mine, theirs = _tables(template), _tables(before)
    if all(len(mine[name] ^ theirs[name]) < 2 for name in mine.keys() & theirs.keys()):
        return None
    error = f"<Error><Type>Sender</Type><Code>ValidationError</Code><Message>{SAID}</Message></Error>"
    return Response(f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>", 400, media_type="text/xml")


def _tables(template: Mapping[str, Any]) -> dict[str, set[str]]:
    """Logical id → the names of its indexes."""
    return {
        name: {index["IndexName"] for index in one.get("Properties", {}).get("GlobalSecondaryIndexes", [])}
        for name, one in template.get("Resources", {}).items()
        if one.get("Type") == "AWS::DynamoDB::Table"
    }


def _standing(backend: Backend, stack: str, region: str) -> dict[str, Any]:
    try:
        body = backend.client("cloudformation", region).get_template(StackName=stack)["TemplateBody"]
    except ClientError:
        return {}  # a new stack
    template: dict[str, Any] = json.loads(body) if isinstance(body, str) else body
    original = template.get("Metadata", {}).get(_ORIGINAL)
    return dict(json.loads(original)) if original else template
