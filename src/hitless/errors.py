"""Every error that a user may see: what happened, where, and how to fix it.

The subclass says who has to fix it. Each has a stable `code` for machines and one of the command line's documented exit
codes. No error may contain a secret: `details` is printed and sent over the API unchanged.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HitlessError(Exception):
    """An error with a message for people (where, what), a hint (how to fix it) and a code for machines."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "`hitless doctor` checks this machine; --debug shows a traceback"

    def __init__(self, message: str, *, hint: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.details = details or {}

    def to_json(self) -> dict[str, Any]:
        """The one JSON shape of an error: code, message, hint, details."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "details": self.details}


class UsageError(HitlessError):
    """The command was called with options or arguments that are not valid."""

    code = "usage"
    exit_code = 2
    default_hint = "see `hitless COMMAND --help`"


class ServiceFileError(HitlessError):
    """serverless.yml, or a file that it names, is not valid; to be fixed by the author of the service."""

    code = "invalid_service"
    exit_code = 2
    default_hint = "docs/serverless-yml.md describes the file"


class BuildError(HitlessError):
    """The artifact cannot be built from the service's folder; to be fixed by the author of the service."""

    code = "build_failed"
    exit_code = 2
    default_hint = "fix the service's folder and build again"


class CandidateFailedError(HitlessError):
    """A candidate release did not become ready or failed its smoke requests; to be fixed by the service's author."""

    code = "candidate_failed"
    exit_code = 3
    default_hint = "`hitless logs` shows the handlers' output"


class InterruptedByUser(HitlessError):
    """The user pressed Ctrl-C. The message says what continues."""

    code = "interrupted"
    exit_code = 130
    default_hint = "work that the engine or AWS has started continues: `hitless status` shows it"


class EngineNotRunningError(HitlessError):
    """No engine is running for this data folder."""

    code = "engine_not_running"
    exit_code = 5
    default_hint = "start it with `hitless up`"


class EngineError(HitlessError):
    """A part of the engine failed; to be fixed by the operator of the machine."""

    code = "engine_failed"
    default_hint = "see `hitless events` and engine.log in the data folder"


class MachineError(HitlessError):
    """The machine is missing something: HAProxy, a free port, a writable folder, disk space."""

    code = "machine"
    default_hint = "run `hitless doctor` to see how to fix it"


class ConflictError(HitlessError):
    """The request is not possible in the current state (another engine, no earlier release, no free pool)."""

    code = "conflict"
    default_hint = "`hitless status` shows the current state"


class CloudError(HitlessError):
    """AWS refused the request or failed while handling it; to be fixed by the owner of the account or the stack."""

    code = "cloud_failed"
