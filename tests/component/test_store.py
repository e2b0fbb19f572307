"""The state file: migrations, one writer, concurrent readers, and files that it refuses."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hitless.errors import EngineError, MachineError
from hitless.release.result import Outcome, Result
from hitless.store.migrations import MIGRATIONS
from hitless.store.runs import NewRun, PushRecords, PushRow, RunRecords
from hitless.store.store import PoolRow, RolloutStepRow, Store, StoreError
from tests.fakes import release_document

pytestmark = pytest.mark.component

AT = "2026-11-24T06:00:00.000Z"


def add(store: Store, stage: str = "dev", digest: str = "sha256:1") -> int:
    return store.add_release(stage, release_document(digest=digest), AT)


def test_release_numbers_count_by_stage_and_are_never_reused(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    assert [add(store), add(store), add(store, "prod")] == [1, 2, 1]
    store.forget_release("dev", 2)
    assert add(store) == 3
    assert [row.release for row in store.releases("dev")] == [1, 3]
    store.close()


def test_stored_rows_survive_a_restart(tmp_path: Path) -> None:
    first = Store(tmp_path / "state.sqlite")
    add(first)
    first.set_live("dev", 1, AT)
    rollout = first.begin_rollout(
        "dev", 1, verb="deploy", strategy="AllAtOnce", state="preparing", previous=None, at=AT
    )
    first.record_step(rollout, "shifting", 12.5, "why", AT)
    first.add_pool(PoolRow("k", "dev", 1, "api", "p00", "{}"))
    first.close()

    second = Store(tmp_path / "state.sqlite")
    assert second.live("dev") == (1, AT)
    assert [row.rollout for row in second.unfinished_rollouts()] == [rollout]
    assert second.steps(rollout) == (RolloutStepRow(AT, "shifting", 12.5, "why"),)
    assert second.pools() == (PoolRow("k", "dev", 1, "api", "p00", "{}"),)
    result = Result("dev", 1, Outcome.LIVE, "AllAtOnce", duration_s=1.5)
    second.end_rollout(rollout, "live", None, result, AT)
    assert second.unfinished_rollouts() == ()
    assert second.rollouts("dev")[0].result == result
    second.close()


def test_a_reader_sees_the_writers_state_and_cannot_write(tmp_path: Path) -> None:
    writer = Store(tmp_path / "state.sqlite")
    writer.set_live("dev", 1, AT)
    reader = Store(tmp_path / "state.sqlite", read_only=True)
    writer.set_live("dev", 2, AT)
    assert reader.live("dev") == (2, AT)
    with pytest.raises(StoreError, match="readonly"):
        reader.set_live("dev", 3, AT)
    reader.close()
    writer.close()


def test_the_state_file_is_private(tmp_path: Path) -> None:
    Store(tmp_path / "state.sqlite").close()
    assert stat.S_IMODE((tmp_path / "state.sqlite").stat().st_mode) == 0o600


def test_a_state_file_of_a_newer_version_is_refused_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(EngineError, match="newer hitless") as caught:
        Store(path)
    assert "--data-dir" in caught.value.hint
    assert path.read_bytes() == before


def test_a_file_that_is_not_a_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_text("not a database, and long enough to be read as one " * 20)
    with pytest.raises(MachineError, match=r"state\.sqlite: the state file is damaged"):
        Store(tmp_path / "state.sqlite")


def test_a_failed_migration_leaves_the_state_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.sqlite"
    Store(path).close()
    broken = (*MIGRATIONS, "CREATE TABLE half (a TEXT) STRICT; CREATE TABLE half (a TEXT) STRICT;")
    monkeypatch.setattr("hitless.store.store.MIGRATIONS", broken)
    with pytest.raises(MachineError):
        Store(path)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    db.close()


def test_events_are_limited_in_number_and_returned_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hitless.store.store.EVENTS_KEPT", 500)
    store = Store(tmp_path / "state.sqlite")
    for number in range(2000):
        store.add_event(f"event {number}", "dev" if number % 2 else None, AT)
    kept = store.events(limit=10_000)
    assert len(kept) == 500
    assert [event.event for event in kept] == sorted(event.event for event in kept)
    assert kept[-1].sentence == "event 1999"
    assert [event.sentence for event in store.events(after=kept[-2].event)] == ["event 1999"]
    store.close()


def test_the_stores_serial_numbers_are_unique(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    given = [store.next_serial() for _ in range(3)]
    store.close()
    again = Store(tmp_path / "state.sqlite")
    given.append(again.next_serial())
    again.close()
    assert given == [1, 2, 3, 4]


def test_artifacts_of_kept_releases_are_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    add(store, digest="sha256:a")
    add(store, digest="sha256:b")
    add(store, "prod", digest="sha256:c")
    store.forget_release("dev", 1)
    assert store.artifacts_in_use() == {"sha256:b", "sha256:c"}
    store.close()


def test_artifacts_of_a_run_that_waits_are_in_use_until_it_ends(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    runs = RunRecords(store)

    def run(options: dict[str, Any]) -> int:
        new = NewRun(stage="prod", branch="prod", commit="1", verb="push", actor=None, message=None, options=options)
        return runs.add(new, state="queued", at=AT).run

    built = run({})
    runs.set_step(built, "source", "succeeded", detail={"subject": "one"})
    runs.set_step(built, "build", "succeeded", detail={"artifacts": {"api": "sha256:built"}})
    runs.set_state(built, "waiting_for_approval", None, None)
    promoted = run({"from": "dev", "origin": {"stage": "dev", "artifacts": {"api": "sha256:promoted"}}})
    assert store.artifacts_in_use() == {"sha256:built", "sha256:promoted"}
    runs.set_state(built, "rejected", None, AT)
    assert store.artifacts_in_use() == {"sha256:promoted"}
    runs.set_state(promoted, "succeeded", None, AT)
    assert store.artifacts_in_use() == set()
    store.close()


def test_services_of_one_engine_have_runs_and_pushes_of_their_own(tmp_path: Path) -> None:
    push = PushRow("refs/heads/dev", "0" * 40, "1" * 40, {"override": "why"}, "ada", AT)
    new = NewRun(stage="dev", branch="dev", commit="1", verb="push", actor=None, message=None, options={"forced": True})
    with closing(Store(tmp_path / "state.sqlite")) as store:
        for service in ("shop", "users"):  # the same commit of the same branch
            PushRecords(store, service).add(push)
            RunRecords(store, service).add(new, state="queued", at=AT)
        shop, users = ((RunRecords(store, name), PushRecords(store, name)) for name in ("shop", "users"))
        (run,) = users[0].in_state("queued")
        assert (run.run, run.service, run.title) == (2, "users", "run 2 of dev (users)")
        assert (RunRecords(store).services(), len(RunRecords(store).runs())) == ({"shop", "users"}, 2)
        assert (shop[1].all(), users[1].all(), PushRecords(store).all()) == ((push,), (push,), ())
        users[1].forget(push.ref, push.new)
        users[0].set_state(2, "succeeded", None, AT)
        assert (shop[1].all(), users[1].all()) == ((push,), ())
        assert (shop[0].forget_old(kept=0), users[0].forget_old(kept=0)) == ([], [2])


def test_the_error_of_a_damaged_state_file_names_the_backup(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    store = Store(path)
    store.set_live("dev", 3, "2026-11-24T06:00:00Z")
    store.back_up()
    store.set_live("dev", 4, "2026-11-24T07:00:00Z")
    store.back_up()
    store.close()
    backup = tmp_path / "state.sqlite.backup"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    for read_only in (False, True):
        with pytest.raises(MachineError, match=r"state\.sqlite: the state file is damaged") as told:
            Store(path, read_only=read_only)
        assert f"cp {backup} {path}" in told.value.hint
    backup.replace(path)
    store = Store(path)
    assert store.live("dev") == (4, "2026-11-24T07:00:00Z")
    store.close()
    assert {found.name for found in tmp_path.iterdir()} <= {"state.sqlite", "state.sqlite-wal", "state.sqlite-shm"}


def test_an_error_of_writing_is_no_damage_and_a_file_that_was_cut_off_is(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    store = Store(path)
    store.set_live("dev", 3, "2026-11-24T06:00:00Z")
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(MachineError, match="cannot be used: disk I/O error") as told:
            store.add_event("x" * 9000, None, "2026-11-24T06:00:00Z")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert "has free space" in told.value.hint
    store.check()
    os.truncate(f"{path}-wal", 0)
    with pytest.raises(MachineError, match="is damaged: disk I/O error"):
        store.check()
    store.close()


def test_the_error_of_a_locked_state_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    Store(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        for read_only in (False, True):
            with pytest.raises(MachineError, match="locked") as told:
                Store(path, read_only=read_only, patience_s=0.01)
            assert "fuser" in told.value.hint
