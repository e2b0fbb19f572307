"""Pushes that were let through and whose runs are not recorded yet.

git moves the branch between its two hooks. Were the second one's word all that starts a run, a daemon that dies in
between would leave a branch that has moved and a push that nobody ever runs: pushing again says that all is up to date.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from hitless.store.store import Store


@dataclass(frozen=True, slots=True)
class PushRow:
    """One branch of a push. `options` are the pusher's, `at` is when it was let through."""

    ref: str
    old: str
    new: str
    options: Mapping[str, str]
    actor: str
    at: str


class PushRecords:
    """The pushes' part of the state file. Each method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, push: PushRow) -> None:
        self._store.write(
            "INSERT OR REPLACE INTO pipeline_pushes VALUES (?, ?, ?, ?, ?, ?)",
            (push.ref, push.old, push.new, json.dumps(dict(push.options)), push.actor, push.at),
        )

    def all(self) -> tuple[PushRow, ...]:
        """Oldest first."""
        rows = self._store.read("SELECT * FROM pipeline_pushes ORDER BY at, rowid")
        return tuple(
            PushRow(row["ref"], row["old_id"], row["new_id"], json.loads(row["options"]), row["actor"], row["at"])
            for row in rows
        )

    def forget(self, ref: str, new: str) -> None:
        self._store.write("DELETE FROM pipeline_pushes WHERE ref = ? AND new_id = ?", (ref, new))
