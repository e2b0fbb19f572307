"""How what ships ended, in either home: the words of the command line's contract."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a deploy, rollback or promotion ended."""

    LIVE = "live"
    ROLLED_BACK = "rolled_back"
    UNCHANGED = "unchanged"
    SUPERSEDED = "superseded"
    ABORTED = "aborted"

    @property
    def exit_code(self) -> int:
        """The command line's exit code for it."""
        return {Outcome.ROLLED_BACK: 3, Outcome.SUPERSEDED: 4, Outcome.ABORTED: 4}.get(self, 0)
