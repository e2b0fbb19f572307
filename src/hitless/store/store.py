"""The state file (SQLite): releases, rollouts, pools, live releases and events of an engine.

One process writes: the daemon that holds the data folder's lock. Each method is one transaction, so that the recovery
rules know every state that a SIGKILL leaves. With WAL the command line reads while the engine writes. A
transaction is on the disk when it ends. What can be observed (processes, the gateway) is never stored.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from hitless.documents import decode, to_text
from hitless.errors import EngineError, MachineError
from hitless.release.document import ReleaseDocument
from hitless.release.receipt import ReceiptDocument
from hitless.release.result import Result, Step, whole
from hitless.store.migrations import MIGRATIONS, verify

EVENTS_KEPT = 20_000
BACKUP = ".backup"
PAGES_KEPT = "PRAGMA cache_size = -256"
"""KiB of memory for pages: the kernel caches the file too, and by default SQLite keeps up to 2 MB of it."""


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """A registered release. `document` is its ReleaseDocument as plain JSON."""

    stage: str
    release: int
    document: Mapping[str, Any]
    fingerprint: str
    commit: str | None
    message: str | None
    created_at: str


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One rollout. `outcome` is None while it is under way, `result` also if the daemon died before the end."""

    rollout: int
    stage: str
    release: int
    verb: str
    strategy: str
    state: str
    previous_release: int | None
    outcome: str | None
    reason: str | None
    result: Result | None
    started_at: str
    ended_at: str | None


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool of workers with its backend of the gateway, and what the backend had counted before the pool got it."""

    key: str
    stage: str
    release: int
    function: str
    gateway_pool: str
    counts_before: str = "{}"
    """As JSON."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One thing that the engine did, and why, as a sentence."""

    event: int
    at: str
    stage: str | None
    sentence: str


class RolloutStepRow(Step, frozen=True, omit_defaults=False):
    """A recorded step of a rollout; in JSON it has a `note` even if that is null."""


class StoreError(MachineError):
    """The state file cannot be read or written."""

    @classmethod
    def of(cls, error: Exception, path: Path) -> StoreError:
        """SQLite's error in the operator's terms. A plain DatabaseError: the content makes no sense."""
        what, hint = "cannot be used", "check that the folder exists, is yours and has free space"
        if "locked" in str(error):
            hint = f"another program holds it: find it with `fuser {path}`, end it and try again"
        elif type(error) is sqlite3.DatabaseError or "SHORT_READ" in getattr(error, "sqlite_errorname", ""):
            what = "is damaged"
            hint = f"restore the last backup: `rm -f {path}-wal {path}-shm; cp {path}{BACKUP} {path}`; `hitless up`"
        return cls(f"{path}: the state file {what}: {' '.join(str(error).split())}", hint=hint)


class Store:
    """The state file, opened for writing by the daemon or for reading by the command line."""

    def __init__(self, path: Path, *, read_only: bool = False, patience_s: float = 5.0) -> None:
        """Open, create and migrate. Raises StoreError if the file cannot be written, is damaged, or is locked by
        another for longer than `patience_s`; EngineError if a newer hitless wrote it.
        """
        self._path = path
        try:
            self._connection = sqlite3.connect(
                f"file:{path}?mode={'ro' if read_only else 'rwc'}", uri=True, isolation_level=None, timeout=patience_s
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute(PAGES_KEPT)
            verify(self._connection)
            if not read_only:
                path.chmod(0o600)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute("PRAGMA foreign_keys = ON")
                self._migrate()
        except (sqlite3.Error, OSError) as error:
            raise StoreError.of(error, path) from error

    def close(self) -> None:
        self._connection.close()

    def check(self) -> None:
        """Read the whole file anew, because pages in memory may hide damage. Raises StoreError; in the daemon only."""
        try:
            with self._errors(), closing(sqlite3.connect(self._path)) as fresh:
                verify(fresh)
        except StoreError as error:
            if BACKUP in error.hint:
                error.hint = f"`kill -9 {os.getpid()}` ends the daemon; requests are still served; then {error.hint}"
            raise

    def copy_to(self, file: Path) -> None:
        """A consistent copy of the state, by SQLite's backup API, while others write. Raises StoreError."""
        file.touch(0o600)
        with self._errors(), closing(sqlite3.connect(file)) as copy:
            self._connection.backup(copy)

    def back_up(self) -> None:
        """Keep a copy beside the file (0600). Any thread may call this. Raises OSError and StoreError."""
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with self._errors(), closing(sqlite3.connect(self._path)) as connection:
            connection.execute(PAGES_KEPT)
            connection.execute("VACUUM INTO ?", (str(new),))
        new.replace(f"{self._path}{BACKUP}")

    def read(self, query: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        with self._errors():
            return self._connection.execute(query, values).fetchall()

    def write(self, query: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Run one statement as a transaction."""
        with self.transaction() as db:
            return db.execute(query, values)

    def check_schema(self) -> int:
        """The file's schema. EngineError if a newer hitless wrote it."""
        have = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if have > len(MIGRATIONS):
            kept = Path(f"{self._path}.schema-{len(MIGRATIONS)}")
            back = f"; or go back to the state before that upgrade: `rm -f {self._path}-*; cp {kept} {self._path}`"
            raise EngineError(
                f"{self._path} was written by a newer hitless (schema {have}, this one knows {len(MIGRATIONS)})",
                hint="run the newer hitless, or name another folder with --data-dir" + (back if kept.exists() else ""),
            )
        return have

    def _migrate(self) -> None:
        have = self.check_schema()
        if 0 < have < len(MIGRATIONS):
            self.copy_to(Path(f"{self._path}.schema-{have}"))
        for number, script in enumerate(MIGRATIONS[have:], have + 1):
            # executescript commits by itself; the version inside the same script makes the step whole or not at all
            self._connection.executescript(f"BEGIN;{script};PRAGMA user_version = {number};COMMIT;")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit the whole block, or nothing of it if it raises."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError.of(error, self._path) from error

    def add_release(self, stage: str, document: ReleaseDocument, at: str) -> int:
        """Register a release. Returns its number: the stage's last number plus one, never used again."""
        with self.transaction() as db:
            last = db.execute("SELECT value FROM counters WHERE name = ?", (f"release.{stage}",)).fetchone()
            number = (last["value"] if last else 0) + 1
            db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (f"release.{stage}", number))
            text = json.dumps(document.to_json(), sort_keys=True)
            row = (stage, number, text, document.fingerprint(), document.commit, document.message, at)
            db.execute("INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return number

    def release(self, stage: str, number: int) -> ReleaseRow | None:
        rows = self.read("SELECT * FROM releases WHERE stage = ? AND release = ?", (stage, number))
        return _release(rows[0]) if rows else None

    def releases(self, stage: str) -> tuple[ReleaseRow, ...]:
        """The kept releases of a stage, oldest first."""
        rows = self.read("SELECT * FROM releases WHERE stage = ? ORDER BY release", (stage,))
        return tuple(map(_release, rows))

    def release_numbers(self, stage: str) -> list[int]:
        """The numbers of the kept releases of a stage, oldest first, without their documents."""
        rows = self.read("SELECT release FROM releases WHERE stage = ? ORDER BY release", (stage,))
        return [row["release"] for row in rows]

    def released_since(self, stage: str, at: str) -> set[int]:
        """The releases that the rollouts since then, and the stage's last rollout, shipped or replaced."""
        rows = self.read(
            "SELECT release, previous_release FROM rollouts WHERE stage = ?1"
            " AND (started_at >= ?2 OR rollout = (SELECT MAX(rollout) FROM rollouts WHERE stage = ?1))",
            (stage, at),
        )
        return {number for row in rows for number in row if number is not None}

    def forget_release(self, stage: str, number: int) -> None:
        self.write("DELETE FROM releases WHERE stage = ? AND release = ?", (stage, number))

    def artifacts_in_use(self) -> set[str]:
        """The digests of all kept releases, and of the candidates of pipeline runs that have not ended: a candidate
        may wait for days for its approval.
        """
        digest = "SELECT DISTINCT json_extract(value, '$.digest') FROM releases, json_each(document, '$.artifacts')"
        released = {row[0] for row in self.read(digest)}
        under_way = self.read(
            "SELECT options AS what FROM pipeline_runs WHERE ended_at IS NULL UNION ALL"
            " SELECT detail FROM pipeline_steps JOIN pipeline_runs USING (run)"
            " WHERE name = 'build' AND detail IS NOT NULL AND ended_at IS NULL"
        )
        told = [json.loads(row["what"]) for row in under_way]
        candidates = [one.get("origin") or one for one in told]
        return released | {digest for one in candidates for digest in one.get("artifacts", {}).values()}

    def live(self, stage: str) -> tuple[int, str] | None:
        """The stage's live release and since when; None if it has none."""
        rows = self.read("SELECT * FROM stages WHERE stage = ? AND live_release IS NOT NULL", (stage,))
        return (rows[0]["live_release"], rows[0]["live_since"]) if rows else None

    def set_live(self, stage: str, number: int, at: str) -> None:
        self.write("INSERT OR REPLACE INTO stages VALUES (?, ?, ?)", (stage, number, at))

    def begin_rollout(
        self, stage: str, release: int, *, verb: str, strategy: str, state: str, previous: int | None, at: str
    ) -> int:
        cursor = self.write(
            "INSERT INTO rollouts (stage, release, verb, strategy, state, previous_release, started_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (stage, release, verb, strategy, state, previous, at),
        )
        return int(cursor.lastrowid or 0)

    def set_previous(self, rollout: int, previous: int | None) -> None:
        self.write("UPDATE rollouts SET previous_release = ? WHERE rollout = ?", (previous, rollout))

    def record_step(self, rollout: int, state: str, weight_percent: float, note: str | None, at: str) -> None:
        with self.transaction() as db:
            db.execute("UPDATE rollouts SET state = ? WHERE rollout = ?", (state, rollout))
            db.execute("INSERT INTO steps VALUES (?, ?, ?, ?, ?)", (rollout, at, state, weight_percent, note))

    def end_rollout(self, rollout: int, outcome: str, reason: str | None, result: Result | None, at: str) -> None:
        self.write(
            "UPDATE rollouts SET state = 'ended', outcome = ?, reason = ?, receipt = ?, ended_at = ? WHERE rollout = ?",
            (outcome, reason, to_text(result) if result is not None else None, at, rollout),
        )

    def save_receipt(self, rollout: int, receipt: ReceiptDocument) -> None:
        """Replaces the receipt that was saved before."""
        self.write("INSERT OR REPLACE INTO receipts VALUES (?, ?)", (rollout, to_text(receipt)))

    def receipt(self, rollout: int) -> ReceiptDocument | None:
        """The rollout's receipt; None if an earlier version wrote the rollout, or it was deleted."""
        rows = self.read("SELECT document FROM receipts WHERE rollout = ?", (rollout,))
        return decode(rows[0]["document"], ReceiptDocument, f"receipt of rollout {rollout}") if rows else None

    def forget_rollouts(self, stage: str, *, kept: int) -> int:
        """Delete the ended rollouts of a stage except the newest `kept`, with steps and receipts. Returns how many."""
        return self.write(
            "DELETE FROM rollouts WHERE stage = ?1 AND outcome IS NOT NULL AND rollout <= ("
            "SELECT rollout FROM rollouts WHERE stage = ?1 ORDER BY rollout DESC LIMIT 1 OFFSET ?2)",
            (stage, kept),
        ).rowcount

    def revise_outcome(self, rollout: int, outcome: str, reason: str) -> None:
        """Change the outcome of an ended rollout whose release was rolled back later."""
        self.write("UPDATE rollouts SET outcome = ?, reason = ? WHERE rollout = ?", (outcome, reason, rollout))

    def unfinished_rollouts(self) -> tuple[RolloutRow, ...]:
        rows = self.read("SELECT * FROM rollouts WHERE outcome IS NULL ORDER BY rollout")
        return tuple(map(_rollout, rows))

    def rollouts(
        self,
        stage: str | None = None,
        *,
        release: int | None = None,
        outcome: str | None = None,
        before: int | None = None,
        limit: int = 1000,
    ) -> tuple[RolloutRow, ...]:
        """Newest first; those before the rollout with the number `before`."""
        rows = self.read(
            "SELECT * FROM rollouts WHERE (?1 IS NULL OR stage = ?1) AND (?2 IS NULL OR release = ?2)"
            " AND (?3 IS NULL OR outcome = ?3) AND (?4 IS NULL OR rollout < ?4) ORDER BY rollout DESC LIMIT ?5",
            (stage, release, outcome, before, limit),
        )
        return tuple(map(_rollout, rows))

    def steps(self, rollout: int) -> tuple[RolloutStepRow, ...]:
        rows = self.read("SELECT * FROM steps WHERE rollout = ? ORDER BY rowid", (rollout,))
        return tuple(RolloutStepRow(row["at"], row["state"], whole(row["weight_percent"]), row["note"]) for row in rows)

    def add_pool(self, row: PoolRow) -> None:
        self.write("INSERT INTO pools VALUES (?, ?, ?, ?, ?, 0, 0, ?)", astuple(row))

    def remove_pool(self, key: str) -> None:
        self.write("DELETE FROM pools WHERE key = ?", (key,))

    def pools(self, stage: str | None = None, release: int | None = None) -> tuple[PoolRow, ...]:
        rows = self.read(
            "SELECT key, stage, release, function, gateway_pool, counts_before FROM pools"
            " WHERE (?1 IS NULL OR stage = ?1) AND (?2 IS NULL OR release = ?2) ORDER BY key",
            (stage, release),
        )
        return tuple(PoolRow(**dict(row)) for row in rows)

    def next_serial(self) -> int:
        """A number that this state file never gave before; it makes pool names unique."""
        with self.transaction() as db:
            db.execute("INSERT INTO counters VALUES ('serial', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1")
            return int(db.execute("SELECT value FROM counters WHERE name = 'serial'").fetchone()["value"])

    def claim_minute(self, name: str, minute: int, period: int, *, first: bool) -> bool:
        """Record a minute if the last one is `period` minutes ago; whether it did, or `first` if there was none.

        A clock set back by less than the period repeats none; for cron() (`first`) three hours, as in Debian's cron(8).
        """
        with self.transaction() as db:
            last = db.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
            if last is not None and -(180 if first else period) < minute - last["value"] < period:
                return False
            db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, minute))
        return first or last is not None

    def add_event(self, sentence: str, stage: str | None, at: str) -> int:
        with self.transaction() as db:
            cursor = db.execute("INSERT INTO events (at, stage, sentence) VALUES (?, ?, ?)", (at, stage, sentence))
            event = int(cursor.lastrowid or 0)
            if event % 1000 == 0:
                db.execute("DELETE FROM events WHERE event <= ?", (event - EVENTS_KEPT,))
        return event

    def events(
        self, *, after: int = 0, before: int | None = None, limit: int = 1000, stage: str | None = None
    ) -> tuple[EventRow, ...]:
        """The newest `limit` events between the numbers `after` and `before`, oldest first."""
        rows = self.read(
            "SELECT * FROM (SELECT * FROM events WHERE event > ?1 AND (?3 IS NULL OR stage = ?3 OR stage IS NULL)"
            " AND (?4 IS NULL OR event < ?4) ORDER BY event DESC LIMIT ?2) ORDER BY event",
            (after, limit, stage, before),
        )
        return tuple(EventRow(**dict(row)) for row in rows)


def _release(row: sqlite3.Row) -> ReleaseRow:
    values = dict(row)
    values["document"] = json.loads(values["document"])
    values["commit"] = values.pop("commit_id")
    return ReleaseRow(**values)


def _rollout(row: sqlite3.Row) -> RolloutRow:
    values = dict(row)
    text = values.pop("receipt")
    values["result"] = decode(text, Result, f"rollout {values['rollout']}") if text else None
    return RolloutRow(**values)
