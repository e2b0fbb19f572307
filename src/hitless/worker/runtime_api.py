"""Lambda's Runtime API for a worker whose function is a program: a `bootstrap` of a custom runtime (`provided.*`), or
Node.js with the bootstrap beside this module, which runs a `nodejs*` function's handler.

The program runs as the worker's child. It asks for events and posts results by HTTP at `AWS_LAMBDA_RUNTIME_API`, as in
docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html. To the rest of the worker it is a handler like any other: if the
program ends, the worker ends in the same way, so that its zygote logs and replaces it as it does for Python.

Only processes of the worker's own user get an answer: the port is on the loopback interface, where other users could
otherwise take events.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from hitless.worker.context import LambdaContext
from hitless.worker.handler import (
    MAX_RESULT_BYTES,
    Handler,
    HandlerFailure,
    HandlerFailureError,
    HandlerImportError,
    load_handler,
)
from hitless.worker.log import LogFile
from hitless.worker.process import PRIVATE
from hitless.worker.request import Request, RequestReader, header
from hitless.worker.spec import PoolSpec
from hitless.worker.trace import TRACE_VARIABLE

BOOTSTRAP: Final = "bootstrap"
_NODE_BOOTSTRAP: Final = str(Path(__file__).with_name("bootstrap.mjs"))
_NEXT: Final = "/2018-06-01/runtime/invocation/next"
_INIT_ERROR: Final = "/2018-06-01/runtime/init/error"
_RESULT: Final = re.compile(r"/2018-06-01/runtime/invocation/([^/]+)/(response|error)")
_TOO_LARGE: Final = f"Exceeded maximum allowed payload size ({MAX_RESULT_BYTES} bytes)."
_ACCEPTED: Final = (202, {"status": "OK"})
_PR_SET_PDEATHSIG: Final = 1
_TCP_TABLE: Final = Path("/proc/self/net/tcp")


def load(spec: PoolSpec, log: LogFile) -> Handler:
    """The function's handler: a Python function, or one that a program runs. Raises HandlerImportError."""
    return RuntimeApi(spec, log) if spec.is_program else load_handler(spec.handler)


class _ProgramConnection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.reader = sock, RequestReader()


class RuntimeApi:
    """A program as a handler: starts it, waits until it asks for its first event, and gives it one event a call."""

    def __init__(self, spec: PoolSpec, log: LogFile) -> None:
        """Raises HandlerImportError if the program cannot be started or reports an error of its initialization."""
        self._log = log
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: dict[int, _ProgramConnection] = {}
        self._waiting: _ProgramConnection | None = None
        self._request_id, self._is_sent = "", True
        self._partial = b""
        self._result: tuple[str, bytes, str] | None = None
        self._init_error: HandlerFailure | None = None
        self._poll = select.poll()
        self._drains = threading.Lock()
        is_node = spec.runtime.startswith("nodejs")
        command = [spec.node, _NODE_BOOTSTRAP] if is_node else [f"{spec.task_root}/{BOOTSTRAP}"]
        self._child, self._output = self._start(command)
        self.pid = self._child.pid
        for fd in (self._listener.fileno(), self._output):
            os.set_blocking(fd, False)
            PRIVATE.add(fd)
            self._poll.register(fd, select.POLLIN)
        threading.Thread(target=self._end_with_child, daemon=True, name="bootstrap").start()
        self._serve(lambda: bool(self._waiting or self._init_error))
        if self._init_error is not None:
            raise HandlerImportError(self._init_error)

    def _start(self, command: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
        host, port = self._listener.getsockname()
        environment = {name: text for name, text in os.environ.items() if name != TRACE_VARIABLE}
        if len(command) == 1:
            environment.pop("AWS_EXECUTION_ENV", None)  # AWS sets it for its own runtimes only
        read, write = os.pipe()
        try:
            child = subprocess.Popen(
                command, env={**environment, "AWS_LAMBDA_RUNTIME_API": f"{host}:{port}"},
                stdin=subprocess.DEVNULL, stdout=write, stderr=write, preexec_fn=_die_with_parent,
            )  # fmt: skip
        except OSError as error:
            message = f"{os.path.basename(command[0]) or 'Node.js'} cannot be started: {error.strerror or error}"
            raise HandlerImportError(HandlerFailure("Runtime.InvalidEntrypoint", message)) from error
        finally:
            os.close(write)
        return child, read

    def __call__(self, event: Any, context: LambdaContext) -> Any:
        """The program's result for the event. Raises HandlerFailureError for one that it reports as an error."""
        body = json.dumps(event).encode()
        left_ms = context.get_remaining_time_in_millis()
        lines = (
            f"Lambda-Runtime-Aws-Request-Id: {context.aws_request_id}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {int(time.time() * 1000) + left_ms}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {context.invoked_function_arn}\r\n"
        )
        if trace := os.environ.get(TRACE_VARIABLE):
            lines += f"Lambda-Runtime-Trace-Id: {trace}\r\n"
        self._result, self._is_sent = None, False
        while not self._is_sent:
            self._request_id = ""
            self._serve(lambda: self._waiting is not None)
            connection, self._waiting, self._request_id = self._waiting, None, context.aws_request_id
            self._is_sent = connection is not None and self._send(connection, 200, lines, body)
        kind, posted, error_type = self._take_result()
        if kind == "error":
            raise HandlerFailureError(_failure(posted, error_type))
        try:
            return json.loads(posted)
        except ValueError as error:
            message = f"the response is not JSON: {error}"
            raise HandlerFailureError(HandlerFailure("Runtime.InvalidResponse", message)) from error

    def _take_result(self) -> tuple[str, bytes, str]:
        """`response` or `error`, its body, and the type in its header."""
        self._serve(lambda: self._result is not None)
        self._end_output()
        assert self._result is not None
        self._request_id = ""
        return self._result

    def _serve(self, done: Callable[[], bool]) -> None:
        """Read the program's output and requests until `done`."""
        while not done():
            for fd, _ in self._poll.poll():
                if fd == self._output:
                    self._read_output()
                elif fd == self._listener.fileno():
                    self._accept()
                else:
                    self._read(self._connections[fd])

    def _accept(self) -> None:
        with suppress(OSError):
            sock, peer = self._listener.accept()
            if not _is_own(peer):
                sock.close()
                return
            sock.setblocking(True)
            self._connections[sock.fileno()] = _ProgramConnection(sock)
            PRIVATE.add(sock.fileno())
            self._poll.register(sock, select.POLLIN)

    def _read(self, connection: _ProgramConnection) -> None:
        try:
            data = connection.sock.recv(262_144)
        except OSError:
            data = b""
        if not data or not connection.reader.feed(data):
            return self._close(connection)
        if connection.reader.interim:
            connection.sock.sendall(connection.reader.interim)
            connection.reader.interim = b""
        while connection.reader.ready:
            request = connection.reader.ready.popleft()
            if request.method == "GET" and request.target == _NEXT and not request.refusal and not self._is_running:
                self._waiting = connection
            else:
                status, document = self._answer(request)
                self._send(connection, status, "", json.dumps(document).encode())
        return None

    @property
    def _is_running(self) -> bool:
        """Whether the program has an event and has not posted its result."""
        return bool(self._request_id) and self._result is None

    def _answer(self, request: Request) -> tuple[int, Mapping[str, str]]:
        """Take what the program posts; the statuses and documents are those of Lambda's own API."""
        if request.target == _NEXT and request.method == "GET":
            return 403, {"errorMessage": "the last event has no response", "errorType": "InvalidStateTransition"}
        error_type = header(request, b"lambda-runtime-function-error-type") or ""
        if request.target == _INIT_ERROR and request.method == "POST":
            self._init_error = _failure(request.body, error_type)
            return _ACCEPTED
        posted = _RESULT.fullmatch(request.target)
        if posted is None or request.method != "POST":
            return 404, {"errorMessage": "Not found", "errorType": "NotFound"}
        if posted[1] != self._request_id or not self._is_running:
            return 400, {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}
        if request.refusal or len(request.body) > MAX_RESULT_BYTES:
            failure = {"errorMessage": _TOO_LARGE, "errorType": "Function.ResponseSizeTooLarge"}
            self._result = "error", json.dumps(failure).encode(), ""
            return 413, {"errorMessage": _TOO_LARGE, "errorType": "RequestEntityTooLarge"}
        self._result = posted[2], request.body, error_type
        return _ACCEPTED

    def _send(self, connection: _ProgramConnection, status: int, lines: str, body: bytes) -> bool:
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}Content-Type: application/json\r\n"
        try:
            connection.sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        except OSError:
            self._close(connection)
            return False
        return True

    def _close(self, connection: _ProgramConnection) -> None:
        fd = connection.sock.fileno()
        if self._connections.pop(fd, None) is not None:
            self._poll.unregister(fd)
            PRIVATE.discard(fd)
            connection.sock.close()
        if self._waiting is connection:
            self._waiting = None

    def _read_output(self) -> None:
        """Write the lines that the program has printed to the log; the last one may not be complete yet."""
        with self._drains, suppress(BlockingIOError):
            while data := os.read(self._output, 65536):
                lines, end, self._partial = (self._partial + data).rpartition(b"\n")
                if end:
                    self._log.lines(lines.decode("utf-8", "replace"), of_handler=True)
            with suppress(KeyError):
                self._poll.unregister(self._output)  # the program has closed it

    def _end_output(self) -> None:
        self._read_output()
        with self._drains:
            self._log.lines(self._partial.decode("utf-8", "replace"), of_handler=True)
            self._partial = b""

    def _end_with_child(self) -> None:
        """End the worker as soon as the program has ended, with the same status."""
        _, status = os.waitpid(self._child.pid, 0)
        self._end_output()
        if os.WIFSIGNALED(status) or not self._is_sent:  # a request that the program did not get may run again
            faulthandler.disable()
            os.kill(os.getpid(), os.WTERMSIG(status) or signal.SIGKILL)
            time.sleep(0.1)  # for a signal that this process handles
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _die_with_parent() -> None:
    with suppress(OSError, AttributeError):  # Linux only; elsewhere the zygote ends the worker's process group
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _is_own(peer: tuple[str, int]) -> bool:
    """Whether the client's socket belongs to this process's user, by the kernel's table. True where there is none."""
    if not _TCP_TABLE.exists():
        return True
    address = f"{int.from_bytes(socket.inet_aton(peer[0]), 'little'):08X}:{peer[1]:04X}"
    rows = (line.split() for line in _TCP_TABLE.read_text().splitlines()[1:])
    return any(row[1] == address and int(row[7]) == os.getuid() for row in rows)


def _failure(posted: bytes, error_type: str) -> HandlerFailure:
    """The failure that a program reports: Lambda's error object, or the type of the header alone."""
    try:
        told = json.loads(posted)
    except ValueError:
        told = None
    told = told if isinstance(told, dict) else {}
    trace = told.get("stackTrace", told.get("trace"))
    lines = tuple(str(line) for line in trace) if isinstance(trace, list) else ()
    kind = str(told.get("errorType") or error_type or "Runtime.Unknown")
    return HandlerFailure(kind, str(told.get("errorMessage", "")), lines, of_node="trace" in told)
