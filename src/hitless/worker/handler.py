"""Finds and calls the handler as Lambda's runtime does, and describes its failures in the words of Lambda's log."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from hitless.worker.context import LambdaContext

Handler = Callable[[Any, LambdaContext], Any]

MAX_RESULT_BYTES: Final = 6_291_556
"""Lambda's limit for a result as JSON: 6 MB and 100 bytes."""

EXIT_ERROR: Final = "Runtime.ExitError"
_INDENT: Final = "\u00a0"
"""Lambda's runtime indents a traceback's lines by no-break spaces, because CloudWatch removes plain ones."""
_NAMES: Final = {"SIGKILL": "killed", "SIGSEGV": "segmentation fault", "SIGABRT": "aborted", "SIGTERM": "terminated"}


@dataclass(frozen=True, slots=True)
class HandlerFailure:
    """A handler's failure: Lambda's error type, message, and the traceback's lines (the handler's frames)."""

    error_type: str
    message: str
    trace: tuple[str, ...] = ()
    of_node: bool = False
    """Lambda's Node.js runtime logs its failures itself, and calls the lines `trace`."""

    def log_text(self, request_id: str = "") -> str:
        """`[ERROR] ValueError: …` and the traceback, as CloudWatch shows it; for the runtime's exit during a request
        what the interpreter prints, then Lambda's two lines.
        """
        if self.of_node:
            return ""
        lines = [line for entry in self.trace for line in entry.splitlines()]
        if self.error_type == EXIT_ERROR and request_id:
            return "\n".join([*lines, f"RequestId: {request_id} Error: {self.message}", EXIT_ERROR])
        head = f"[ERROR] {self.error_type}" + (f": {self.message}" if self.message else "")
        return "\n".join([head, "Traceback (most recent call last):", *map(_indented, lines)])

    def to_json(self, request_id: str = "") -> dict[str, Any]:
        """The result of Lambda's Invoke for a failed function."""
        if self.error_type == EXIT_ERROR and request_id:
            return {"errorMessage": f"RequestId: {request_id} Error: {self.message}", "errorType": EXIT_ERROR}
        lines = "trace" if self.of_node else "stackTrace"
        return {"errorMessage": self.message, "errorType": self.error_type, lines: list(self.trace)}


class HandlerImportError(Exception):
    """The handler cannot be imported; `failure` says why."""

    def __init__(self, failure: HandlerFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class HandlerFailureError(Exception):
    """A failure that a program of a custom runtime reports itself."""

    def __init__(self, failure: HandlerFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def load_handler(handler: str) -> Handler:
    """Import `src/handlers.zones` (or `src.handlers.zones`) and return the function. Raises HandlerImportError."""
    module_name, _, attribute = handler.rpartition(".")
    if not module_name or not attribute:
        raise HandlerImportError(
            HandlerFailure("Runtime.MalformedHandlerName", f"Bad handler '{handler}': no dot in it")
        )
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except SyntaxError as error:
        where = f'  File "{error.filename}" Line {error.lineno}\n    {(error.text or "").strip()}'
        failure = HandlerFailure(
            "Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}", (where,)
        )
        raise HandlerImportError(failure) from error
    except ImportError as error:
        message = f"Unable to import module '{module_name}': {error}"
        raise HandlerImportError(HandlerFailure("Runtime.ImportModuleError", message, _own_frames(error))) from error
    except BaseException as error:  # a handler's module may raise anything, also SystemExit
        raise HandlerImportError(failure_of(error, _own_frames(error))) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        message = f"Handler '{attribute}' missing on module '{module_name}'"
        raise HandlerImportError(HandlerFailure("Runtime.HandlerNotFound", message))
    return function  # type: ignore[no-any-return]


class MarshalError(Exception):
    """The handler's result is not JSON; the message says why."""


def marshalled(result: Any, *, compact: bool = False) -> str:
    """A result as JSON, encoded as Lambda's runtime does: a Decimal is a number. Raises MarshalError."""
    try:
        return json.dumps(result, default=_number, allow_nan=False, separators=(",", ":") if compact else None)
    except (TypeError, ValueError) as error:
        raise MarshalError(f"Unable to marshal response: {error}") from error


def _number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return math.nan if value.is_nan() else json.loads(str(value))
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def runtime_error(status: int) -> str:
    """The error for a process's wait status as Lambda words it, such as `Runtime exited with error: signal: killed`."""
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"Runtime exited with error: signal: {_NAMES.get(name, name)}"
    code = os.WEXITSTATUS(status)
    return f"Runtime exited with error: exit status {code}" if code else "Runtime exited without providing a reason"


def failure_of(error: BaseException, trace: tuple[str, ...] | None = None) -> HandlerFailure:
    """The failure for a handler's exception, without our calling frame. SystemExit etc. end Lambda's runtime."""
    if isinstance(error, HandlerFailureError):
        return error.failure
    if isinstance(error, MarshalError):
        return HandlerFailure("Runtime.MarshalError", str(error))
    called = error.__traceback__.tb_next if error.__traceback__ else None
    if isinstance(error, Exception):
        frames = tuple(traceback.format_tb(called)) if trace is None else trace
        return HandlerFailure(type(error).__name__, str(error), frames)
    code: object = 1
    printed = tuple(traceback.format_exception(type(error), error, called))
    if isinstance(error, SystemExit):
        code = error.code or 0
        printed = () if isinstance(code, int) else (str(code),)
    status = runtime_error((code & 0xFF if isinstance(code, int) else 1) << 8)
    return HandlerFailure(EXIT_ERROR, status, printed if trace is None else trace)


def _indented(line: str) -> str:
    text = line.lstrip(" ")
    return _INDENT * (len(line) - len(text)) + text


def _own_frames(error: BaseException) -> tuple[str, ...]:
    """The traceback without importlib's frames and ours, which do not help the handler's author."""
    step = error.__traceback__
    while step is not None and (
        "importlib" in step.tb_frame.f_code.co_filename or step.tb_frame.f_globals is globals()
    ):
        step = step.tb_next
    frames = [frame for frame in traceback.extract_tb(step) if not frame.filename.startswith("<frozen importlib")]
    return tuple(traceback.format_list(frames))
