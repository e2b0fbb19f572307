"""The pipeline's records in the state file: runs, their steps, approvals, and pushes whose runs do not exist yet."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hitless.documents import to_text
from hitless.store.store import Store

RUNS_KEPT = 500
_SERVICE = "json_extract(options, '$.service')"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to record. `stage` is None for a branch that feeds none, and for a fork; `options` as plain JSON."""

    stage: str | None = None
    branch: str
    commit: str
    verb: str
    actor: str | None
    message: str | None
    overridden: str | None = None
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow(NewRun):
    """A recorded run."""

    run: int
    state: str
    reason: str | None
    release: int | None
    started_at: str
    ended_at: str | None
    restarts: int = 0
    """How often a new daemon continued it."""

    @property
    def service(self) -> str:
        """The run's service, on an engine that several share; otherwise empty."""
        return str(self.options.get("service", ""))

    @property
    def title(self) -> str:
        """`run 7 of dev`, or `run 7 of dev (users)` on an engine that several services share."""
        return f"run {self.run} of {self.branch}" + (f" ({self.service})" if self.service else "")


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of a run. `detail` is its result as plain JSON (`hitless.pipeline.runs.StepDetail` reads it)."""

    run: int
    name: str
    state: str
    detail: Mapping[str, Any] | None
    started_at: str | None
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """A question to a person, and the decision."""

    run: int
    asked_at: str
    expires_at: str
    decision: str | None
    decided_by: str | None
    decided_at: str | None
    why: str | None


class RunRecords:
    """Runs, steps and approvals. Each method is one transaction.

    A run's service is one of its options, not a column, so that the previous version can use the state file, too.
    """

    def __init__(self, store: Store, service: str | None = None) -> None:
        """With `service`, only its runs are listed, and added, on an engine that several services share."""
        self._store, self._service = store, service
        self._ours, self._named = (f"{_SERVICE} = ?", [service]) if service else ("TRUE", list[str]())

    def add(self, new: NewRun, *, state: str, at: str) -> RunRow:
        """Record a run with the next number."""
        named = {"service": self._service} if self._service else {}
        told = (new.stage, new.branch, new.commit, new.verb, new.actor, new.message, new.overridden)
        cursor = self._store.write(
            "INSERT INTO pipeline_runs (stage, branch, commit_id, verb, actor, message, overridden, options, state,"
            " started_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*told, json.dumps({**new.options, **named}), state, at),
        )
        found = self.run(int(cursor.lastrowid or 0))
        assert found is not None
        return found

    def run(self, number: int) -> RunRow | None:
        rows = self._store.read("SELECT * FROM pipeline_runs WHERE run = ?", (number,))
        return _run(rows[0]) if rows else None

    def runs(
        self, stage: str | None = None, *, state: str | None = None, before: int | None = None, limit: int = 100
    ) -> tuple[RunRow, ...]:
        """Newest first; of one stage, or of all stages and branches; those before the run with the number `before`."""
        rows = self._store.read(
            "SELECT * FROM pipeline_runs WHERE (?1 IS NULL OR stage = ?1) AND (?2 IS NULL OR state = ?2)"
            f" AND (?3 IS NULL OR run < ?3) AND {self._ours.replace('?', '?5')} ORDER BY run DESC LIMIT ?4",
            (stage, state, before, limit, *self._named),
        )
        return tuple(map(_run, rows))

    def started(self, branch: str, commit: str, *, since: str) -> bool:
        """Whether a run of the branch at that commit started since then."""
        query = f"SELECT 1 FROM pipeline_runs WHERE branch = ? AND commit_id = ? AND started_at >= ? AND {self._ours}"
        return bool(self._store.read(f"{query} LIMIT 1", (branch, commit, since, *self._named)))

    def has_passed(self, commit: str) -> bool:
        """Whether the commit's tests passed on any branch. A report without a test that ran does not count."""
        query = (
            "SELECT 1 FROM pipeline_runs JOIN pipeline_steps USING (run) WHERE commit_id = ? AND name = 'test'"
            " AND pipeline_steps.state = 'succeeded' AND NOT EXISTS (SELECT 1 FROM json_each(detail, '$.reports') WHERE"
            f" json_extract(value, '$.tests') <= json_extract(value, '$.skipped')) AND {self._ours} LIMIT 1"
        )
        return bool(self._store.read(query, (commit, *self._named)))

    def in_state(self, *states: str) -> tuple[RunRow, ...]:
        """Runs in one of these states, oldest first."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT * FROM pipeline_runs WHERE state IN ({marks}) AND {self._ours} ORDER BY run"
        return tuple(map(_run, self._store.read(query, (*states, *self._named))))

    def services(self) -> set[str]:
        """The services of all runs, on an engine that several share."""
        return {name for (name,) in self._store.read(f"SELECT DISTINCT {_SERVICE} FROM pipeline_runs") if name}

    def set_state(self, number: int, state: str, reason: str | None, ended_at: str | None) -> None:
        query = "UPDATE pipeline_runs SET state = ?, reason = ?, ended_at = ? WHERE run = ?"
        self._store.write(query, (state, reason, ended_at, number))

    def set_release(self, number: int, release: int) -> None:
        self._store.write("UPDATE pipeline_runs SET release = ? WHERE run = ?", (release, number))

    def count_restart(self, number: int) -> None:
        self._store.write("UPDATE pipeline_runs SET restarts = restarts + 1 WHERE run = ?", (number,))

    def forget_old(self, kept: int = RUNS_KEPT) -> list[int]:
        """Delete all ended runs except the newest. Returns their numbers."""
        query = f"SELECT run FROM pipeline_runs WHERE ended_at IS NOT NULL AND {self._ours} ORDER BY run DESC"
        rows = self._store.read(f"{query} LIMIT -1 OFFSET ?", (*self._named, kept))
        gone = [int(row["run"]) for row in rows]
        with self._store.transaction() as db:
            db.executemany("DELETE FROM pipeline_runs WHERE run = ?", [(number,) for number in gone])
        return gone

    def set_step(
        self,
        run: int,
        name: str,
        state: str,
        *,
        detail: object = None,
        started_at: str | None = None,
        duration_s: float | None = None,
    ) -> None:
        text = to_text(detail) if detail is not None else None
        query = "INSERT OR REPLACE INTO pipeline_steps VALUES (?, ?, ?, ?, ?, ?)"
        self._store.write(query, (run, name, state, text, started_at, duration_s))

    def steps(self, run: int) -> tuple[StepRow, ...]:
        """In the order in which they were recorded last."""
        rows = self._store.read("SELECT * FROM pipeline_steps WHERE run = ? ORDER BY rowid", (run,))
        return tuple(StepRow(**{**dict(row), "detail": json.loads(row["detail"] or "null")}) for row in rows)

    def ask(self, run: int, *, asked_at: str, expires_at: str) -> None:
        """Record a question; it replaces an earlier one of the same run."""
        query = "INSERT OR REPLACE INTO pipeline_approvals (run, asked_at, expires_at) VALUES (?, ?, ?)"
        self._store.write(query, (run, asked_at, expires_at))

    def decide(self, run: int, *, decision: str, by: str, at: str, why: str | None) -> bool:
        """Record the decision; False if there is one already."""
        cursor = self._store.write(
            "UPDATE pipeline_approvals SET decision = ?, decided_by = ?, decided_at = ?, why = ?"
            " WHERE run = ? AND decision IS NULL",
            (decision, by, at, why, run),
        )
        return cursor.rowcount == 1

    def approval(self, run: int) -> ApprovalRow | None:
        rows = self._store.read("SELECT * FROM pipeline_approvals WHERE run = ?", (run,))
        return ApprovalRow(**dict(rows[0])) if rows else None


def _run(row: sqlite3.Row) -> RunRow:
    values = dict(row)
    values["commit"] = values.pop("commit_id")
    values["options"] = json.loads(values["options"])
    return RunRow(**values)


@dataclass(frozen=True, slots=True)
class PushRow:
    """One branch of a push that the first git hook let through (at the instant `at`) and whose run does not exist yet.

    Git moves the branch between its two hooks. If only the second one recorded the push, a daemon that dies in between
    would lose it: pushing again does nothing, because the branch is up to date.
    """

    ref: str
    old: str
    new: str
    options: Mapping[str, str]
    actor: str
    at: str


class PushRecords:
    """Pushes of a service without a run. Each method is one transaction.

    If several services share the engine, the service stands before the ref: no ref has a colon (git-check-ref-format).
    """

    def __init__(self, store: Store, service: str = "") -> None:
        self._store, self._prefix = store, f"{service}:" if service else ""

    def add(self, push: PushRow) -> None:
        self._store.write(
            "INSERT OR REPLACE INTO pipeline_pushes VALUES (?, ?, ?, ?, ?, ?)",
            (self._prefix + push.ref, push.old, push.new, json.dumps(dict(push.options)), push.actor, push.at),
        )

    def all(self) -> tuple[PushRow, ...]:
        """Oldest first."""
        rows = self._store.read("SELECT * FROM pipeline_pushes ORDER BY at, rowid")
        split = [(*row["ref"].rpartition(":"), row) for row in rows]
        return tuple(
            PushRow(ref, row["old_id"], row["new_id"], json.loads(row["options"]), row["actor"], row["at"])
            for service, colon, ref, row in split
            if service + colon == self._prefix
        )

    def forget(self, ref: str, new: str) -> None:
        self._store.write("DELETE FROM pipeline_pushes WHERE ref = ? AND new_id = ?", (self._prefix + ref, new))
