"""A state file that an earlier version wrote loads, and shows the same releases, receipts and runs.

`fixtures/state` has the file as SQL, and the documents that `hitless releases`, `releases 1`, `pipeline runs` and
`pipeline show 1` printed before the documents of releases and runs were typed.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hitless.documents import to_plain
from hitless.engine.releases import release, releases
from hitless.pipeline.runs import RunDocument, exit_code
from hitless.store.runs import RunRecords
from tests.component.engine_bench import Bench

pytestmark = pytest.mark.component

FIXTURES = Path(__file__).parent / "fixtures" / "state"


def recorded(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    with sqlite3.connect(tmp_path / "state.sqlite") as written:
        written.executescript((FIXTURES / "state.sql").read_text())
    written.close()
    return Bench(tmp_path)


def test_releases_and_receipts_of_an_old_state_file_are_shown_as_before(bench: Bench) -> None:
    assert to_plain(releases(bench.engine.store, "dev")) == recorded("releases")
    assert to_plain(release(bench.engine.store, "dev", 1)) == recorded("release1")


def test_runs_of_an_old_state_file_are_shown_as_before(bench: Bench) -> None:
    records = RunRecords(bench.store)
    assert to_plain([to_plain(RunDocument.of(records, run)) for run in records.runs()]) == recorded("runs")
    run = next(run for run in records.runs() if run.run == 1)
    shown = {**to_plain(RunDocument.of(records, run, full=True)), "exit_code": exit_code(records, run)}
    assert shown == recorded("show1")


def test_every_release_of_an_old_state_file_can_be_shipped_again(bench: Bench) -> None:
    kept = [bench.engine.release("dev", number) for number in (1, 2, 3, 4)]
    assert [each.document.fingerprint() for each in kept] == [row.fingerprint for row in bench.store.releases("dev")]
