"""Two small JSON answers, as little work as a handler can do: what is measured is what stands around it.

The others are the workloads of `workloads.yml`.
"""

from __future__ import annotations

import json
import time
from typing import Any


def hello(event: dict[str, Any], context: Any) -> dict[str, Any]:
    if event["httpMethod"] == "POST":
        name = json.loads(event["body"])["name"]
    else:
        name = (event["queryStringParameters"] or {}).get("name", "world")
    body = {"greeting": f"hello {name}", "path": event["path"]}
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}


def compute(event: dict[str, Any], context: Any) -> dict[str, Any]:
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        pass
    return {"statusCode": 200, "body": "{}"}


def wait(event: dict[str, Any], context: Any) -> dict[str, Any]:
    time.sleep(0.2)
    return {"statusCode": 200, "body": "{}"}


def large(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"statusCode": 200, "body": json.dumps({"text": "x" * 100_000})}


def upload(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"statusCode": 200, "body": json.dumps({"bytes": len(event["body"])})}
