"""The handlers of the conformance services: `echo` shows its event, `answer` returns the request's body, and so on.

A copy of this file is put into each folder of tests/conformance/services that is run or deployed. It needs nothing but
the standard library.
"""

import base64
import decimal
import json
import logging
import os
import sys
import time

CALLS = {"count": 0}


def show(value, status=200):
    """A proxy response with the value as JSON."""
    return {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": json.dumps(value)}


def echo(event, context):
    """Respond with the event."""
    return show(event)


def plain(event, context):
    """Return the event itself, for integrations that pass a result on as it is."""
    return event


def fail(event, context):
    """Raise with the status that the path says, as a non-proxy integration's handler does."""
    raise Exception(f"[{event['path']['status']}] on purpose")


def raise_always(event, context):
    """Raise, whatever is asked."""
    raise ValueError("on purpose")


def answer(event, context):
    """Return what the request's body holds as JSON."""
    body = event["body"]
    return json.loads(base64.b64decode(body) if event.get("isBase64Encoded") else body)


def behave(event, context):
    """Do what the path parameter `name` says."""
    CALLS["count"] += 1
    return BEHAVIOURS[event["pathParameters"]["name"]](event, context)


def invoked(event, context):
    """Do what the event's `do` says; for invocations outside HTTP."""
    return RESULTS[event["do"]](event, context)


def slow(event, context):
    """Take longer than the function's time-out."""
    time.sleep(event.get("sleep_s", 3) if isinstance(event, dict) else 3)
    return show("late")


def hang(event, context):
    """Take longer than API Gateway waits."""
    time.sleep(40)
    return show("late")


def _context(event, context):
    names = [
        "function_name",
        "function_version",
        "invoked_function_arn",
        "memory_limit_in_mb",
        "aws_request_id",
        "log_group_name",
        "log_stream_name",
        "client_context",
        "tenant_id",
    ]
    told = {name: getattr(context, name) for name in names}
    told["identity"] = {
        "cognito_identity_id": context.identity.cognito_identity_id,
        "cognito_identity_pool_id": context.identity.cognito_identity_pool_id,
    }
    told["types"] = {name: type(getattr(context, name)).__name__ for name in names}
    told["remaining_ms"] = context.get_remaining_time_in_millis()
    return show(told)


def _remaining(event, context):
    first = context.get_remaining_time_in_millis()
    time.sleep(0.05)
    second = context.get_remaining_time_in_millis()
    return show({"first": first, "type": type(first).__name__, "fell": first - second >= 40})


def _environment(event, context):
    return show(dict(os.environ))


def _process(event, context):
    return show(
        {
            "cwd": os.getcwd(),
            "task_root_on_path": os.environ["LAMBDA_TASK_ROOT"] in sys.path,
            "timezone": time.strftime("%Z"),
            "encoding": sys.stdout.encoding,
            "event_type": type(event).__name__,
        }
    )


def _raise(event, context):
    raise ValueError("on purpose")


def _raise_empty(event, context):
    raise ValueError


class MyError(Exception):
    """An exception of the handler's own."""


def _raise_own(event, context):
    raise MyError("My error")


def _import_missing(event, context):
    import invalid_module  # noqa: F401, PLC0415 - that it fails here is the point


def _exit(event, context):
    sys.exit(0)


def _die(event, context):
    os._exit(3)


def _print(event, context):
    print("first line")
    print("second line", file=sys.stderr)
    return show("printed")


def _print_lines(event, context):
    print("multi\nline\nstring")
    return show("printed")


def _print_unfinished(event, context):
    sys.stdout.write("no end of line")
    return show("printed")


def _log(event, context):
    logger = logging.getLogger()
    logger.warning("a warning")
    logger.error("an error")
    return show("logged")


def _log_named(event, context):
    logging.getLogger("a.b").warning("of a named logger")
    return show("logged")


def _log_info(event, context):
    logging.getLogger().info("not shown by default")
    logging.getLogger().debug("nor this")
    return show(logging.getLogger().level)


def _log_exception(event, context):
    try:
        raise ValueError("error message")
    except ValueError:
        logging.getLogger("test.logger").exception("test exception")
    return show("logged")


def _log_extra(event, context):
    logging.getLogger("a.b").warning("with more", extra={"order": 7})
    return show("logged")


def _context_log(event, context):
    context.log("through the context\n")
    return show("logged")


def _handlers(event, context):
    return show(len(logging.getLogger().handlers))


def _large(event, context):
    return {"statusCode": 200, "body": "x" * (6 * 1024 * 1024 + 100)}


def _almost_large(event, context):
    return {"statusCode": 200, "body": "x" * (5 * 1024 * 1024)}


def _tmp(event, context):
    with open("/tmp/hitless-conformance", "w") as file:
        file.write("written")
    with open("/tmp/hitless-conformance") as file:
        text = file.read()
    os.unlink("/tmp/hitless-conformance")
    return show(text)


def _counter(event, context):
    return show(CALLS["count"])


def _set_environment(event, context):
    os.environ["LEFT_BEHIND"] = "1"
    return show(os.environ["LEFT_BEHIND"])


BEHAVIOURS = {
    "context": _context,
    "remaining": _remaining,
    "environment": _environment,
    "process": _process,
    "raise": _raise,
    "raise-empty": _raise_empty,
    "raise-own": _raise_own,
    "import-missing": _import_missing,
    "exit": _exit,
    "die": _die,
    "print": _print,
    "print-lines": _print_lines,
    "print-unfinished": _print_unfinished,
    "log": _log,
    "log-named": _log_named,
    "log-info": _log_info,
    "log-exception": _log_exception,
    "log-extra": _log_extra,
    "context-log": _context_log,
    "handlers": _handlers,
    "large": _large,
    "almost-large": _almost_large,
    "tmp": _tmp,
    "counter": _counter,
    "set-environment": _set_environment,
    "none": lambda event, context: None,
    "unserializable": lambda event, context: {"statusCode": 200, "body": "", "headers": {"X-Object": object()}},
    "unserializable-result": lambda event, context: object(),
    "set-in-result": lambda event, context: {"statusCode": 200, "body": {1, 2}},
    "decimal-status": lambda event, context: {"statusCode": decimal.Decimal(202), "body": "decimal"},
    "decimal-header": lambda event, context: {"statusCode": 200, "headers": {"X-Decimal": decimal.Decimal("1.5")}},
    "tuple-header": lambda event, context: {"statusCode": 200, "multiValueHeaders": {"X-Tuple": ("a", "b")}},
    "boto3": lambda event, context: show(__import__("boto3").__name__),
}

RESULTS = {
    "none": lambda event, context: None,
    "string": lambda event, context: "Hello, world!",
    "unicode": lambda event, context: {"price": "£1.00"},
    "echo": lambda event, context: {"input": event, "type": type(event).__name__},
    "decimal": lambda event, context: {"pi": decimal.Decimal("3.14159")},
    "marshal": lambda event, context: type("obj", (object,), {}),
    "attribute-error": lambda event, context: {"error": AttributeError("x")},
    "raise": _raise,
    "raise-empty": _raise_empty,
    "raise-own": _raise_own,
    "handler-error": lambda event, context: _handler_error(),
    "exit": _exit,
    "sleep": slow,
    "large": lambda event, context: "x" * (6 * 1024 * 1024 + 100_000),
    "id": lambda event, context: context.aws_request_id,
}


def _handler_error():
    raise Exception("Handler fails")


def authorize(event, context):
    """A TOKEN or REQUEST authorizer with the tokens of AWS's example: allow, deny, unauthorized, anything else."""
    token = event.get("authorizationToken") or (event.get("headers") or {}).get("headerauth1", "")
    if token == "unauthorized":
        raise Exception("Unauthorized")
    if token == "malformed":
        return {"principalId": "user"}
    if token not in ("allow", "deny", "implicit"):
        raise Exception("Error: Invalid token")
    resource = event.get("methodArn", "*") if token != "implicit" else "arn:aws:execute-api:*:*:other/*"
    statement = {"Action": "execute-api:Invoke", "Effect": "Deny" if token == "deny" else "Allow", "Resource": resource}
    return {
        "principalId": "user",
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": {"stringKey": "stringval", "numberKey": 123, "booleanKey": True, "authorizerType": event["type"]},
    }


def authorize_simply(event, context):
    """An HTTP API's authorizer with simple responses: the token is the one of AWS's example."""
    allowed = event["headers"].get("authorization") == "secretToken"
    return {
        "isAuthorized": allowed,
        "context": {"stringKey": "value", "numberKey": 1, "arrayKey": ["value1", "value2"]},
    }
