"""The program of a drill's broken release: the service's own program, called by a wrapper as a Python handler is.

`hitless.drill.workspace` packs it with the service's program and the scenario's wrapper as an executable zip.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hitless.worker.log import LogFile
from hitless.worker.runtime_api import BOOTSTRAP, RuntimeApi
from hitless.worker.spec import PoolSpec


def main(wrap: Callable[[RuntimeApi], Callable[..., Any]]) -> None:
    """Start the program in the zip, then handle events of Lambda's Runtime API until it ends."""
    with zipfile.ZipFile(sys.argv[0]) as packed, tempfile.TemporaryDirectory() as place:
        program = Path(place, BOOTSTRAP)
        program.write_bytes(packed.read(BOOTSTRAP))
        program.chmod(0o700)
        spec = PoolSpec("", "", "", 0, "", "", place, {}, 0, 0, 1, "", (), "", False, "", runtime="provided.al2023")
        handle = wrap(RuntimeApi(spec, LogFile()))
    api = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        headers, event = _ask(api, "GET", "next")
        request_id, deadline_ms = headers["lambda-runtime-aws-request-id"], int(headers["lambda-runtime-deadline-ms"])
        context = SimpleNamespace(
            aws_request_id=request_id,
            invoked_function_arn=headers["lambda-runtime-invoked-function-arn"],
            get_remaining_time_in_millis=lambda deadline_ms=deadline_ms: deadline_ms - int(time.time() * 1000),
        )
        try:
            kind, result = "response", handle(json.loads(event), context)
        except Exception as error:  # noqa: BLE001 - an error of the function
            kind, result = "error", {"errorType": type(error).__name__, "errorMessage": str(error)}
        _ask(api, "POST", f"{request_id}/{kind}", json.dumps(result).encode())


def _ask(api: HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[dict[str, str], bytes]:
    api.request(method, f"/2018-06-01/runtime/invocation/{path}", body)
    response = api.getresponse()
    return {name.lower(): text for name, text in response.getheaders()}, response.read()
