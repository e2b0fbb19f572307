"""The stats page and the retry guard on a real mapped file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hitless.worker.guard import RetryGuard
from hitless.worker.layout import (
    BUCKETS_AT,
    FATAL,
    LOST,
    RING_ENTRIES,
    SlotField,
    StatsPage,
    WorkerState,
    bucket_of,
    entry_of,
    id_of,
    page_bytes,
)
from hitless.worker.request import Request
from hitless.workers.stats import read_pulse, read_stats

pytestmark = pytest.mark.component


def page_in(folder: Path, workers: int = 3) -> StatsPage:
    StatsPage.create(folder / "page", workers)
    return StatsPage(folder / "page", writable=True)


def request(method: str, *headers: tuple[bytes, bytes]) -> Request:
    return Request(method, "/x", list(headers))


@pytest.mark.parametrize("workers", [1, 3, 32, 200])
def test_no_fields_of_the_stats_page_overlap(tmp_path: Path, workers: int) -> None:
    page = page_in(tmp_path, workers)
    for generation in (1, 2):
        for number in range(RING_ENTRIES):
            page.ring_add(generation, entry_of(f"ring-{generation}-{number}".encode()), LOST)
    for index in range(2 * workers):
        page.write_id(index, entry_of(f"id-{index}".encode()))
        fields = page.slot(index)
        for place in range(len(fields)):
            fields[place] = index + 1
    assert len(page.lost_requests()) == 2 * RING_ENTRIES
    assert [id_of(page.read_id(index)) for index in range(2 * workers)] == [f"id-{i}" for i in range(2 * workers)]
    assert all(set(page.slot(index).tolist()) == {index + 1} for index in range(2 * workers))
    assert (tmp_path / "page").stat().st_size == page_bytes(workers)
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o600


def test_the_stats_page_allocates_all_its_space_when_it_is_created(tmp_path: Path) -> None:
    """If the folder fills up later, the first write to a page without room would end the process by SIGBUS."""
    StatsPage.create(tmp_path / "page", 32)
    assert (tmp_path / "page").stat().st_blocks * 512 >= page_bytes(32)


def test_concurrent_generations_use_different_slots(tmp_path: Path) -> None:
    page = page_in(tmp_path)
    used = [page.slot_index(generation, worker) for generation in (4, 5) for worker in range(3)]
    assert sorted(used) == list(range(6))


def test_a_stats_page_of_another_version_is_refused(tmp_path: Path) -> None:
    page_in(tmp_path).close()
    text = (tmp_path / "page").read_bytes()
    (tmp_path / "page").write_bytes(b"HLPAGE99" + text[8:])
    with pytest.raises(ValueError, match="not a stats page"):
        StatsPage(tmp_path / "page", writable=False)
    (tmp_path / "page").write_bytes(text[:-4096])
    with pytest.raises(ValueError, match="not a stats page"):
        StatsPage(tmp_path / "page", writable=False)


def test_the_ring_of_lost_requests_keeps_the_newest(tmp_path: Path) -> None:
    page = page_in(tmp_path)
    for number in range(RING_ENTRIES + 5):
        page.ring_add(1, entry_of(str(number).encode()), LOST)
    lost = page.lost_requests()
    assert entry_of(b"4") not in lost
    assert entry_of(b"5") in lost
    assert lost[entry_of(str(RING_ENTRIES + 4).encode())] == LOST


def test_a_request_id_is_only_found_as_a_whole(tmp_path: Path) -> None:
    page = page_in(tmp_path)
    page.write_id(0, entry_of(b"abc-1"))
    page.write_id(1, entry_of(b"x" * 56))
    assert page.holds_id(entry_of(b"abc-1"))
    assert not page.holds_id(entry_of(b"1"))
    assert not page.holds_id(entry_of(b"abc"))
    assert not page.holds_id(entry_of(b"x" * 55))  # has the same eight bytes at its beginning
    assert page.holds_id(entry_of(b"x" * 56))


def test_the_guard_refuses_requests_that_timed_out_or_are_unsafe_and_had_begun(tmp_path: Path) -> None:
    page = page_in(tmp_path)
    guard = RetryGuard(page)
    new, begun, lost, late = (entry_of(name) for name in (b"new", b"begun", b"lost", b"late"))
    assert not guard.refuses(new, request("POST"))
    page.write_id(4, begun)
    page.ring_add(1, lost, LOST)
    page.ring_add(2, late, FATAL)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert [guard.refuses(entry, request(method)) for entry in (new, begun, lost, late)] == [
            False,
            True,
            True,
            True,
        ]
    for method in ("GET", "HEAD", "OPTIONS"):
        assert [guard.refuses(entry, request(method)) for entry in (new, begun, lost, late)] == [
            False,
            False,
            False,
            True,
        ]
    marked = request("POST", (b"Idempotency-Key", b"k"))
    assert [guard.refuses(entry, marked) for entry in (begun, lost, late)] == [False, False, True]


def test_a_shielded_request_of_any_method_runs_only_once_at_the_candidate(tmp_path: Path) -> None:
    page = page_in(tmp_path)
    guard, begun, lost = RetryGuard(page), entry_of(b"begun"), entry_of(b"lost")
    page.write_id(4, begun)
    page.ring_add(1, lost, LOST)
    for each in (request("GET"), request("POST", (b"Idempotency-Key", b"k"))):
        each.internal[b"x-hl-once"] = b"dev.2"
        assert [guard.refuses(entry, each) for entry in (entry_of(b"new"), begun, lost)] == [False, True, True]


def test_a_guard_sees_requests_that_are_lost_after_its_first_check(tmp_path: Path) -> None:
    page = page_in(tmp_path)
    guard = RetryGuard(page)
    page.ring_add(1, entry_of(b"first"), LOST)
    assert guard.refuses(entry_of(b"first"), request("POST"))
    page.ring_add(1, entry_of(b"second"), FATAL)
    assert guard.refuses(entry_of(b"second"), request("GET"))


def test_a_get_that_was_lost_three_times_gets_a_502(tmp_path: Path) -> None:
    page = page_in(tmp_path)
    guard = RetryGuard(page)
    verdicts = []
    for generation in (1, 1, 2):
        page.ring_add(generation, entry_of(b"poison"), LOST)
        verdicts.append(guard.refuses(entry_of(b"poison"), request("GET")))
    assert verdicts == [False, False, True]


def test_reading_the_page_sums_all_generations_and_lists_the_current_workers(tmp_path: Path) -> None:
    page = page_in(tmp_path, 2)
    for generation in (1, 2):
        for worker in range(2):
            fields = page.slot(page.slot_index(generation, worker))
            fields[SlotField.PID], fields[SlotField.GENERATION], fields[SlotField.STATE] = (
                100 * generation + worker,
                generation,
                2,
            )
            fields[SlotField.REQUESTS], fields[SlotField.CLASS_2XX], fields[SlotField.CLASS_5XX] = 10, 9, 1
            fields[SlotField.LATENCY_SUM_US] = 1000
            fields[BUCKETS_AT + bucket_of(100)] = 10
    page.slot(page.slot_index(2, 1))[SlotField.BUSY_SINCE] = 5_000_000_000
    stats = read_stats(page, 2)
    assert [(worker.pid, worker.state, worker.busy) for worker in stats.workers] == [
        (200, WorkerState.READY, False),
        (201, WorkerState.READY, True),
    ]
    assert (stats.requests, stats.by_class, stats.failed) == (40, {1: 0, 2: 36, 3: 0, 4: 0, 5: 4}, 4)
    assert stats.latency.mean_us == 100
    assert stats.latency.percentile_us(99) == pytest.approx(100, rel=0.04)


def test_the_stats_page_stores_a_size_for_each_generation_with_the_maximum_by_default(tmp_path: Path) -> None:
    page = page_in(tmp_path, 3)
    assert (page.size(1), page.size(2)) == (3, 3)
    page.set_size(1, 0)
    page.set_size(2, 2)
    assert (page.size(1), page.size(2), page.size(3)) == (0, 2, 0)
    assert len(read_stats(page, 2).workers) == 2
    assert read_stats(page, 1).workers == ()


def test_busy_time_includes_the_time_of_unfinished_requests(tmp_path: Path) -> None:
    page = page_in(tmp_path, 2)
    first, other = page.slot(page.slot_index(1, 0)), page.slot(page.slot_index(2, 1))
    first[SlotField.BUSY_SINCE] = 1_000_000_000
    before = read_pulse(page, now_ns=1_500_000_000)
    assert (before.work_ns, before.busy, before.ended) == (500_000_000, 1, 0)
    first[SlotField.BUSY_SINCE], first[SlotField.LATENCY_SUM_US], first[SlotField.REQUESTS] = 0, 800_000, 1
    other[SlotField.BUSY_SINCE] = 1_900_000_000
    after = read_pulse(page, now_ns=2_500_000_000)
    assert (after.busy, after.ended, after.ended_us) == (1, 1, 800_000)
    assert after.work_ns - before.work_ns == 300_000_000 + 600_000_000
