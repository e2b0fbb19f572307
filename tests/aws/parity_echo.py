"""A function beside worldclock's that returns its event, or the response that the request asks for; copied into the
service.
"""

import json


def handler(event, context):  # type: ignore[no-untyped-def]
    if event["resource"] == "/answer":
        return json.loads(event["body"])
    if event["resource"] == "/raise":
        raise ValueError("as it was told")
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(event)}
