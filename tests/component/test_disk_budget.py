"""The disk budget removes the oldest, and never what is live, could be rolled back to, or has not ended."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import pytest

from hitless.artifact.store import ArtifactStore
from hitless.clock import timestamp
from hitless.engine.budget import DiskBudget, budget_bytes, used_bytes
from hitless.engine.retention import Retention
from hitless.errors import MachineError
from hitless.store.store import Store
from tests.fakes import FakeClock, release_document

pytestmark = pytest.mark.component
EACH = 1 << 20


class Folder:
    """A data folder with releases of one megabyte each, shipped days ago, one a day."""

    def __init__(self, data: Path) -> None:
        self.data, self.clock, self.events = data, FakeClock(), list[str]()
        self.store, self.artifacts = Store(data / "state.sqlite"), ArtifactStore(data / "artifacts")
        with self.artifacts.working():
            pass
        retention = Retention(self.store, self.artifacts, data / "logs", self.clock)
        self.budget = DiskBudget(
            data, self.store, self.artifacts, retention, self.clock, lambda sentence, _: self.events.append(sentence)
        )

    def ago(self, days: float) -> str:
        return timestamp(self.clock.now() - timedelta(days=days))

    def zip_of(self, number: int) -> Path:
        return self.artifacts.zip_path(f"sha256:{number:064x}")

    def ship(self, number: int, *, days_ago: float, outcome: str = "live") -> None:
        live = self.store.live("dev")
        at, previous = self.ago(days_ago), live[0] if live else None
        document = release_document(digest=f"sha256:{number:064x}")
        assert self.store.add_release("dev", document, at) == number
        rollout = self.store.begin_rollout(
            "dev", number, verb="deploy", strategy="AllAtOnce", state="live", previous=previous, at=at
        )
        self.store.end_rollout(rollout, outcome, None, None, at)
        if outcome == "live":
            self.store.set_live("dev", number, at)
        self.write(self.zip_of(number), days_ago)
        self.write(self.data / "logs" / "dev" / f"r{number}" / "api" / "1.log", days_ago, 1)

    def run(self, number: int, *, days_ago: float | None) -> Path:
        ended = self.ago(days_ago) if days_ago is not None else None
        self.store.write(
            "INSERT INTO pipeline_runs (run, stage, branch, commit_id, verb, state, started_at, ended_at, options)"
            " VALUES (?, 'dev', 'dev', 'c', 'push', 'x', ?, ?, '{}')",
            (number, self.ago(9), ended),
        )
        return self.write(self.data / "pipeline" / "runs" / str(number) / "log", 9)

    def write(self, file: Path, days_ago: float, size: int = EACH) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(size))
        at = (self.clock.now() - timedelta(days=days_ago)).timestamp()
        os.utime(file, (at, at))
        return file

    def apply(self, less: int) -> None:
        """Apply a budget of so many files less than there is."""
        asyncio.run(self.budget.apply(used_bytes(self.data) - less * EACH + EACH // 2))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_the_oldest_release_run_or_rotated_log_goes_first(folder: Folder) -> None:
    for number in range(1, 6):
        folder.ship(number, days_ago=10 - number)
    run = folder.run(1, days_ago=8.5)
    log = folder.write(folder.data / "logs" / "dev" / "access.log.2", 7.5)
    current = folder.write(folder.data / "logs" / "dev" / "access.log", 9)
    folder.apply(less=3)
    assert folder.store.release_numbers("dev") == [3, 4, 5]
    assert not folder.zip_of(1).exists()
    assert not (folder.data / "logs/dev/r1").exists()
    assert not run.exists()
    assert folder.store.read("SELECT run FROM pipeline_runs") == []
    assert log.exists()
    assert folder.events[0].endswith("MiB: removed release 1 of dev, run 1, release 2 of dev")
    folder.apply(less=1)
    assert not log.exists()
    assert folder.zip_of(3).exists()
    assert current.exists()


def test_what_is_live_ships_or_could_return_stays_and_an_event_says_why(folder: Folder) -> None:
    folder.ship(1, days_ago=9)
    folder.ship(2, days_ago=8)  # what `rollback` would ship
    folder.ship(3, days_ago=7)
    folder.ship(4, days_ago=6, outcome="rolled_back")
    folder.ship(5, days_ago=5, outcome="rolled_back")
    folder.ship(6, days_ago=0.01, outcome="rolled_back")
    waiting, fresh = folder.run(1, days_ago=None), folder.run(2, days_ago=0.01)
    asyncio.run(folder.budget.apply(1))
    assert folder.store.release_numbers("dev") == [2, 3, 6]
    assert folder.zip_of(2).exists()
    assert waiting.exists()
    assert fresh.exists()
    asyncio.run(folder.budget.apply(1))
    asyncio.run(folder.budget.apply(1))
    assert ["raise the budget" in event for event in folder.events] == [False, True], "it is said once"


def test_a_build_in_progress_delays_the_removal_and_costs_no_further_release(folder: Folder) -> None:
    for number in range(1, 6):
        folder.ship(number, days_ago=10 - number)
    with folder.artifacts.working():
        folder.apply(less=2)
    assert folder.store.release_numbers("dev") == [2, 3, 4, 5]


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(os.urandom(EACH))
    os.link(tmp_path / "one", tmp_path / "two")
    assert used_bytes(tmp_path) == EACH


@pytest.mark.parametrize(("text", "size"), [("", None), ("500", 500), ("20G", 20 << 30), ("1T", 1 << 40)])
def test_the_budget_is_a_size(text: str, size: int | None) -> None:
    assert budget_bytes({"HITLESS_DISK_BUDGET": text}) == size


@pytest.mark.parametrize("text", ["0", "-1", "20 G", "20GB", "lots", "1.5G"])
def test_another_budget_is_refused_by_name(text: str) -> None:
    with pytest.raises(MachineError, match=f"HITLESS_DISK_BUDGET={text} is not a size"):
        budget_bytes({"HITLESS_DISK_BUDGET": text})
