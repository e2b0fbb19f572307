"""Handlers for tests: quick, slow, and badly behaved ones; no requirement, so that a build takes no time."""

from __future__ import annotations

import json
import os
import time
from typing import Any

RELEASE = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION")


def answer(body: object, status: int = 200) -> dict[str, Any]:
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}


def note_run(event: dict[str, Any]) -> None:
    """One line a run, so that a test can count how often a request was really handled."""
    path = os.environ.get("RUNS_FILE")
    mark = (event.get("headers") or {}).get("x-mark")
    if path and mark:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{mark}\n".encode())
        os.close(descriptor)


def api(event: dict[str, Any], context: Any) -> dict[str, Any]:
    query = event.get("queryStringParameters") or {}
    match event["path"]:
        case "/slow":
            time.sleep(float(query.get("s", "0.3")))
            return answer({"slept": True, "release": RELEASE})
        case "/echo":
            note_run(event)
            time.sleep(float(query.get("s", "0")))
            if "bytes" in query:
                return answer("x" * int(query["bytes"]))
            return answer({"method": event["httpMethod"], "length": len(event["body"] or ""), "release": RELEASE})
        case _:
            return answer({"release": RELEASE, "function_version": context.function_version})


def misbehave(event: dict[str, Any], context: Any) -> dict[str, Any] | None:
    match event["pathParameters"]["how"]:
        case "raise":
            raise ValueError("on purpose")
        case "none":
            return None
        case "exit":
            os._exit(7)
        case "hang":
            time.sleep(60)
        case "print":
            print("a line of the handler's own")
    return answer({"release": RELEASE})
