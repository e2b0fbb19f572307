"""Runs a run's work on AWS (errands): each in its own process that ends with the daemon, which does not load boto3.

An errand uses the AWS credentials of the engine's own environment: those of the shell that started it, or of the
profile in its owner's ~/.aws.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from hitless.documents import convert, to_plain
from hitless.errors import CloudError, ConflictError, HitlessError, MachineError, ServiceFileError, UsageError
from hitless.homes.errands import Errand
from hitless.pipeline.children import call_process

T = TypeVar("T")

_KINDS: Mapping[str, type[HitlessError]] = {
    kind.code: kind for kind in (UsageError, ServiceFileError, ConflictError, MachineError)
}


@dataclass
class AwsErrands:
    """Runs errands with the zips of an engine's data folder."""

    data: Path

    async def __call__(self, errand: Errand, answer: type[T], log: Path = Path(os.devnull)) -> T:
        """The errand's document. Raises HitlessError if AWS or the errand fails."""
        plan = to_plain(replace(errand, data=str(self.data)))
        document = await call_process("hitless.processes.aws_errand", plan=plan, log=log)
        if not document:
            what = type(errand).__name__
            raise CloudError(f"the errand to AWS ({what}) ended without a result", hint="see the run's log")
        if error := document.get("error"):
            raise _error(error)
        return convert(document, answer, "the errand to AWS")


def _error(error: Mapping[str, Any]) -> HitlessError:
    kind, hint = _KINDS.get(str(error["code"]), CloudError), str(error["hint"])
    if kind is MachineError:
        hint += "; the engine acts on AWS with its own environment: that of the shell that ran `hitless up`"
    return kind(str(error["message"]), hint=hint, details=dict(error["details"]))
