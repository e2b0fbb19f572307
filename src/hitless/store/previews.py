"""The previews in the state file: temporary stages, each for one branch. Each method is one transaction."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass, replace

from hitless.store.store import Store


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One preview. `ending` is the reason why it is being removed, else None."""

    stage: str
    branch: str
    host: str
    from_stage: str
    created_at: str
    expires_at: str
    ending: str | None = None

    @property
    def service(self) -> str:
        """Its service, on an engine that several services share: `users` of `users_preview_fix`; otherwise empty."""
        first, _, rest = self.stage.partition("_")
        return first if "_" in rest else ""


class PreviewRecords:
    """The previews of an engine, or of one service on an engine that several share.

    The column `branch` is unique, so it has such a service before the branch: `users:fix`. No branch has a colon. With
    a column for the service, the previous version could not use the state file.
    """

    def __init__(self, store: Store, service: str = "") -> None:
        self._store, self._prefix = store, f"{service}:" if service else ""

    def all(self) -> tuple[PreviewRow, ...]:
        """Oldest first."""
        rows = self._store.read("SELECT * FROM previews ORDER BY created_at, stage")
        return tuple(_row(row) for row in rows if row["branch"].startswith(self._prefix))

    def of_branch(self, branch: str) -> PreviewRow | None:
        rows = self._store.read("SELECT * FROM previews WHERE branch = ?", (f"{self._prefix}{branch}",))
        return _row(rows[0]) if rows else None

    def hosts(self) -> set[str]:
        """The hosts of all previews, also of other services."""
        return {row["host"] for row in self._store.read("SELECT host FROM previews")}

    def add(self, row: PreviewRow) -> None:
        values = astuple(replace(row, branch=f"{self._prefix}{row.branch}"))
        self._store.write("INSERT INTO previews VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def renew(self, stage: str, *, from_stage: str, expires_at: str) -> None:
        """Set the stage whose configuration it has, and its expiry."""
        query = "UPDATE previews SET from_stage = ?, expires_at = ? WHERE stage = ?"
        self._store.write(query, (from_stage, expires_at, stage))

    def mark_ending(self, stage: str, why: str) -> None:
        """Record that it is being removed. It has no live release any more."""
        with self._store.transaction() as db:
            db.execute("UPDATE previews SET ending = ? WHERE stage = ? AND ending IS NULL", (why, stage))
            db.execute("DELETE FROM stages WHERE stage = ?", (stage,))

    def forget(self, stage: str) -> None:
        """Delete the preview with its releases, rollouts and receipts."""
        with self._store.transaction() as db:
            for table in ("previews", "releases", "rollouts", "stages", "pools"):
                db.execute(f"DELETE FROM {table} WHERE stage = ?", (stage,))
            db.execute("DELETE FROM counters WHERE name = ?", (f"release.{stage}",))


def _row(row: sqlite3.Row) -> PreviewRow:
    return PreviewRow(**(dict(row) | {"branch": row["branch"].rpartition(":")[2]}))
