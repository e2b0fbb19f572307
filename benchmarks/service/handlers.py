"""Two small JSON answers, as little work as a handler can do: what is measured is what stands around it."""

from __future__ import annotations

import json
from typing import Any


def hello(event: dict[str, Any], context: Any) -> dict[str, Any]:
    if event["httpMethod"] == "POST":
        name = json.loads(event["body"])["name"]
    else:
        name = (event["queryStringParameters"] or {}).get("name", "world")
    body = {"greeting": f"hello {name}", "path": event["path"]}
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
