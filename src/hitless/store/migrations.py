"""The schema of the state file as numbered changes, and the check of its pages.

The changes are append only: what has shipped is never edited.
"""

from __future__ import annotations

import sqlite3

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE stages (
        stage TEXT PRIMARY KEY,
        live_release INTEGER,
        live_since TEXT
    ) STRICT;

    CREATE TABLE releases (
        stage TEXT NOT NULL,
        release INTEGER NOT NULL,
        document TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        commit_id TEXT,
        message TEXT,
        created_at TEXT NOT NULL,
        PRIMARY KEY (stage, release)
    ) STRICT;

    CREATE TABLE rollouts (
        rollout INTEGER PRIMARY KEY AUTOINCREMENT,
        stage TEXT NOT NULL,
        release INTEGER NOT NULL,
        verb TEXT NOT NULL,
        strategy TEXT NOT NULL,
        state TEXT NOT NULL,
        previous_release INTEGER,
        outcome TEXT,
        reason TEXT,
        receipt TEXT,
        started_at TEXT NOT NULL,
        ended_at TEXT
    ) STRICT;
    CREATE INDEX rollouts_of_a_stage ON rollouts (stage, rollout);

    CREATE TABLE steps (
        rollout INTEGER NOT NULL REFERENCES rollouts (rollout) ON DELETE CASCADE,
        at TEXT NOT NULL,
        state TEXT NOT NULL,
        weight_percent REAL NOT NULL,
        note TEXT
    ) STRICT;
    CREATE INDEX steps_of_a_rollout ON steps (rollout);

    CREATE TABLE pools (
        key TEXT PRIMARY KEY,
        stage TEXT NOT NULL,
        release INTEGER NOT NULL,
        function TEXT NOT NULL,
        gateway_pool TEXT NOT NULL UNIQUE,
        requests_before INTEGER NOT NULL,
        failed_before INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE events (
        event INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        stage TEXT,
        sentence TEXT NOT NULL
    ) STRICT;

    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    """,
    """
    CREATE TABLE receipts (
        rollout INTEGER PRIMARY KEY REFERENCES rollouts (rollout) ON DELETE CASCADE,
        document TEXT NOT NULL
    ) STRICT;

    ALTER TABLE pools ADD COLUMN counts_before TEXT;
    """,
    """
    CREATE TABLE pipeline_runs (
        run INTEGER PRIMARY KEY AUTOINCREMENT,
        stage TEXT,
        branch TEXT NOT NULL,
        commit_id TEXT NOT NULL,
        verb TEXT NOT NULL,
        actor TEXT,
        message TEXT,
        overridden TEXT,
        options TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        release INTEGER,
        started_at TEXT NOT NULL,
        ended_at TEXT
    ) STRICT;
    CREATE INDEX pipeline_runs_of_a_stage ON pipeline_runs (stage, run);

    CREATE TABLE pipeline_steps (
        run INTEGER NOT NULL REFERENCES pipeline_runs (run) ON DELETE CASCADE,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        detail TEXT,
        started_at TEXT,
        duration_s REAL,
        PRIMARY KEY (run, name)
    ) STRICT;

    CREATE TABLE pipeline_approvals (
        run INTEGER PRIMARY KEY REFERENCES pipeline_runs (run) ON DELETE CASCADE,
        asked_at TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        decision TEXT,
        decided_by TEXT,
        decided_at TEXT,
        why TEXT
    ) STRICT;
    """,
    """
    CREATE TABLE previews (
        stage TEXT PRIMARY KEY,
        branch TEXT NOT NULL UNIQUE,
        host TEXT NOT NULL UNIQUE,
        from_stage TEXT NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        ending TEXT
    ) STRICT;
    """,
    """
    ALTER TABLE pipeline_runs ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;

    CREATE TABLE pipeline_pushes (
        ref TEXT NOT NULL,
        old_id TEXT NOT NULL,
        new_id TEXT NOT NULL,
        options TEXT NOT NULL,
        actor TEXT NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (ref, new_id)
    ) STRICT;
    """,
)


def verify(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if a page of the file is damaged."""
    if (verdict := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(verdict)
