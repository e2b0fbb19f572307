"""Whose turn a run waits for. Pure."""

from __future__ import annotations

from hitless.store.runs import RunRow

FORK = "fork"
"""The key of a run's options that says whose code it tests: see `hitless.pipeline.forks`."""


def lane_of(row: RunRow) -> str:
    """Runs of one lane come one after the other, and the newest supersedes those that wait: a stage, a branch, a fork's
    pull request. The last is no branch, whatever it is called.
    """
    if row.stage is not None:
        return f"stage {row.stage}"
    return f"fork's {row.branch}" if FORK in row.options else f"branch {row.branch}"
