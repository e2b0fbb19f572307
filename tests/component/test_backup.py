"""A restore refuses what it cannot restore, and a migration keeps the state before it."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from hitless.errors import EngineError
from hitless.store.migrations import MIGRATIONS
from hitless.store.store import Store
from tests.component.test_command_line import run

pytestmark = pytest.mark.component


def archive_in(folder: Path, manifest: object) -> str:
    (folder / "backup.json").write_text(json.dumps(manifest))
    with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
        archive.add(folder / "backup.json", "backup.json")
    return str(folder / "a.tar.gz")


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"version": "9.9", "schema": len(MIGRATIONS) + 1}, "was written by hitless 9.9, which is newer"),
        ({"version": 1}, "backup.json"),
    ],
)
def test_an_archive_that_cannot_be_restored_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], manifest: object, said: str
) -> None:
    data = tmp_path / "data"
    assert run("restore", archive_in(tmp_path, manifest), "--data-dir", str(data)) == 2
    assert said in capsys.readouterr().err
    assert not (data / "state.sqlite").exists()
    assert not (data / ".restore").exists()
    (tmp_path / "other").write_text("no archive")
    assert run("restore", str(tmp_path / "other"), "--data-dir", str(data)) == 1


def test_a_migration_keeps_the_state_before_it_and_an_older_hitless_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.sqlite"
    monkeypatch.setattr("hitless.store.store.MIGRATIONS", MIGRATIONS[:-1])
    with closing(Store(file)) as store:
        store.add_event("before", None, "2026-11-30T00:00:00Z")
    monkeypatch.undo()
    with closing(Store(file)) as store:
        store.add_event("after", None, "2026-11-30T00:00:01Z")
    kept = tmp_path / f"state.sqlite.schema-{len(MIGRATIONS) - 1}"
    assert kept.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr("hitless.store.store.MIGRATIONS", MIGRATIONS[:-1])
    with pytest.raises(EngineError) as refused:
        Store(file)
    assert str(kept) in refused.value.hint
    with closing(sqlite3.connect(kept)) as before:
        assert before.execute("SELECT sentence FROM events").fetchall() == [("before",)]
