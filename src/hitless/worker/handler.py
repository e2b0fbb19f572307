"""Finds and calls the handler as Lambda's runtime does, and describes its failures in the words of Lambda's log."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hitless.worker.context import LambdaContext

Handler = Callable[[Any, LambdaContext], Any]


@dataclass(frozen=True, slots=True)
class HandlerFailure:
    """A handler's failure: Lambda's error type, message, and the traceback's lines (the handler's frames)."""

    error_type: str
    message: str
    trace: tuple[str, ...] = ()

    def log_text(self) -> str:
        """`[ERROR] ValueError: …` and the traceback, as CloudWatch shows it."""
        head = f"[ERROR] {self.error_type}: {self.message}"
        if not self.trace:
            return head
        return "\n".join([head, "Traceback (most recent call last):", *(line.rstrip("\n") for line in self.trace)])

    def to_json(self) -> dict[str, Any]:
        """The result of Lambda's Invoke for a failed function."""
        return {"errorMessage": self.message, "errorType": self.error_type, "stackTrace": list(self.trace)}


class HandlerImportError(Exception):
    """The handler cannot be imported; `failure` says why."""

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


def failure_of(error: BaseException, trace: tuple[str, ...] | None = None) -> HandlerFailure:
    """The failure for an exception of the handler, without our frame that called it."""
    if trace is None:
        trace = tuple(traceback.format_tb(error.__traceback__.tb_next if error.__traceback__ else None))
    return HandlerFailure(type(error).__name__, str(error), trace)


def _own_frames(error: BaseException) -> tuple[str, ...]:
    """The traceback without importlib's frames and ours, which do not help the handler's author."""
    step = error.__traceback__
    while step is not None and (
        "importlib" in step.tb_frame.f_code.co_filename or step.tb_frame.f_globals is globals()
    ):
        step = step.tb_next
    frames = [frame for frame in traceback.extract_tb(step) if not frame.filename.startswith("<frozen importlib")]
    return tuple(traceback.format_list(frames))
