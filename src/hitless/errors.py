"""Every error that a person may see: what happened, where, and what mends it.

Subclasses are chosen by *who must act*. Each has a stable `code` for machines and the exit code of the command line's
contract. Nothing here holds a secret: `details` is printed and sent over the API as it is.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HitlessError(Exception):
    """An error with a message for people (where, what), a hint (what mends it) and a code for machines."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "`hitless doctor` looks for causes; --debug shows the place in the code"

    def __init__(self, message: str, *, hint: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.details = details or {}

    def to_json(self) -> dict[str, Any]:
        """The one JSON shape of an error: code, message, hint, details."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "details": self.details}


class UsageError(HitlessError):
    """The command was called with options or arguments that cannot be accepted."""

    code = "usage"
    exit_code = 2
    default_hint = "see `hitless COMMAND --help`"


class ServiceFileError(HitlessError):
    """serverless.yml, or a file that it names, cannot be accepted; the author of the service acts."""

    code = "invalid_service"
    exit_code = 2
    default_hint = "docs/serverless-yml.md lists what the file may say"


class BuildError(HitlessError):
    """The artifact cannot be built from the service's folder; the author of the service acts."""

    code = "build_failed"
    exit_code = 2
    default_hint = "mend the service's folder and build again"


class CandidateFailedError(HitlessError):
    """A candidate release was never ready, or failed its smoke requests; the author of the service acts."""

    code = "candidate_failed"
    exit_code = 3
    default_hint = "`hitless logs` shows what the handlers wrote"


class InterruptedByHand(HitlessError):
    """Ctrl-C. The message says what goes on."""

    code = "interrupted"
    exit_code = 130
    default_hint = "what the engine or AWS has begun goes on: `hitless status` shows it"


class EngineNotRunningError(HitlessError):
    """No engine runs on this data folder."""

    code = "engine_not_running"
    exit_code = 5
    default_hint = "start it with `hitless up`"


class EngineError(HitlessError):
    """A part of the engine did not do what it was told; the operator of the machine acts."""

    code = "engine_failed"
    default_hint = "`hitless events` and engine.log in the data folder tell more"


class MachineError(HitlessError):
    """The machine lacks something: HAProxy, a free port, a writable folder, disk space; its operator acts."""

    code = "machine"
    default_hint = "`hitless doctor` names what mends it"


class ConflictError(HitlessError):
    """What was asked for cannot be done in the present state (another engine, no earlier release, no free pool)."""

    code = "conflict"
    default_hint = "`hitless status` shows the present state"


class CloudError(HitlessError):
    """AWS refused or failed what it was asked to do; whoever owns the account or the stack acts."""

    code = "cloud_failed"
