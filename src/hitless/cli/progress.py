"""A rollout's progress for a person: a live line on a terminal, one line a step elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class Progress:
    """Shows steps. On a terminal the current step stands on one line that is rewritten."""

    def __init__(self, *, live: bool, say: Callable[[str], None]) -> None:
        self._live, self._say, self._written = live, say, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._written:
            sys.stderr.write("\n")

    def step(self, step: dict[str, Any]) -> None:
        """One step as the API gives it."""
        note = f" ({step['note']})" if step.get("note") else ""
        text = f"{step['state']:<12} {step['weight_percent']:>3} %{note}"
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{text}" + "\n" * bool(note))
            sys.stderr.flush()
            self._written = not note
        else:
            self._say(f"{step['at']}  {text}")
