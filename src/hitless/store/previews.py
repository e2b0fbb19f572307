"""The previews in the state file: temporary stages, each for one branch. Each method is one transaction."""

from __future__ import annotations

from dataclasses import astuple, dataclass

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


class PreviewRecords:
    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> tuple[PreviewRow, ...]:
        """Oldest first."""
        rows = self._store.read("SELECT * FROM previews ORDER BY created_at, stage")
        return tuple(PreviewRow(**dict(row)) for row in rows)

    def of_branch(self, branch: str) -> PreviewRow | None:
        rows = self._store.read("SELECT * FROM previews WHERE branch = ?", (branch,))
        return PreviewRow(**dict(rows[0])) if rows else None

    def add(self, row: PreviewRow) -> None:
        self._store.write("INSERT INTO previews VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(row))

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
