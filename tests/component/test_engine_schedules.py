"""The engine invokes scheduled functions of live releases, at most once a time, over fakes and a real state file."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from hitless.engine.schedules import run_schedules
from hitless.release.document import ReleaseDocument
from hitless.service.event_sources import Schedule
from hitless.service.model import Function
from tests.component.engine_bench import Bench, run, until
from tests.fakes import release_document

pytestmark = pytest.mark.component


def document(*schedules: Schedule, digest: str = "sha256:1") -> ReleaseDocument:
    wanted = release_document(digest=digest)
    return replace(wanted, functions=(*wanted.functions, Function("job", "handlers.job", schedules=schedules)))


async def live(bench: Bench, wanted: ReleaseDocument, stage: str = "dev") -> None:
    await bench.end(await bench.engine.deploy(stage, wanted, strategy=None, force=False))


async def minutes(bench: Bench, number: int) -> list[str]:
    """Let that many minutes pass with a scheduler; what was invoked, with the minute."""
    begun, end_s = len(bench.diary), bench.clock.elapsed_s + 60 * number
    task = asyncio.create_task(run_schedules(bench.engine, bench.clock))
    found: list[str] = []
    while bench.clock.elapsed_s < end_s and not task.done():
        seen_s = bench.clock.elapsed_s
        await until(lambda seen_s=seen_s: bench.clock.elapsed_s > seen_s or task.done())  # type: ignore[misc]
    bench.clock.runs.clear()
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    bench.clock.runs.set()
    found.extend(line for line in bench.diary[begun:] if line.startswith("invoked"))
    return found


FIVE = Schedule("rate(5 minutes)", '"tick"')


def test_a_cron_event_is_eventbridges_and_a_rate_begins_with_its_period(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await live(bench, document(Schedule("cron(2 6 * * ? *)"), FIVE))
        invoked = await minutes(bench, 6)
        cron = [line for line in invoked if "tick" not in line]
        assert len(cron) == 1
        for part in ("'detail-type': 'Scheduled Event'", "'source': 'aws.events'", "'time': '2026-11-24T06:02:00Z'",
                     "'resources': ['arn:aws:events:eu-central-1:000000000000:rule/shop-dev-job-schedule-1']",
                     "'detail': {}", "'version': '0'", "'region': 'eu-central-1'"):  # fmt: skip
            assert part in cron[0]
        assert [line for line in invoked if "tick" in line] == ["invoked job r1 tick"]
        told = [event.sentence for event in bench.store.events()]
        assert "rate(5 minutes) of job, release 1 ran (0.1 s)" in told

    run(tmp_path, story)


def test_schedules_that_differ_only_by_their_input_are_different(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await live(bench, document(FIVE, Schedule(FIVE.expression, '"tock"'), Schedule(FIVE.expression)))
        invoked = await minutes(bench, 6)
        assert invoked[:2] == ["invoked job r1 tick", "invoked job r1 tock"]
        assert len(invoked) == 3

    run(tmp_path, story)


def test_neither_a_rollout_nor_a_new_daemon_repeats_an_event(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await live(bench, document(FIVE))
        assert await minutes(bench, 6) == ["invoked job r1 tick"]
        await live(bench, document(FIVE, digest="sha256:2"))
        assert await minutes(bench, 3) == []
        successor = bench.again()
        successor.clock.elapsed_s = bench.clock.elapsed_s
        assert await minutes(successor, 2) == ["invoked job r2 tick"]
        successor.clock.elapsed_s -= 60
        assert await minutes(successor, 1) == [], "the machine's clock was set back"

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("schedule", "jump_s", "invoked"),
    [
        # Debian's cron(8): after a jump back of less than three hours jobs "are not repeated"; "changes of more than 3
        # hours are considered to be corrections to the clock or timezone, and the new time is used immediately".
        ("cron(* * * * ? *)", -3600, 0),
        ("cron(* * * * ? *)", -4 * 3600, 2),
        ("cron(* * * * ? *)", 3600, 2),
        ("rate(5 minutes)", -180, 0),
        ("rate(5 minutes)", -3600, 1),
        ("rate(5 minutes)", 3600, 1),
        ("rate(5 minutes)", 10 * 365 * 86400, 1),
        ("rate(5 minutes)", -10 * 365 * 86400, 1),
    ],
)
def test_a_jump_of_the_clock_neither_stops_nor_repeats_a_schedule(
    tmp_path: Path, schedule: str, jump_s: int, invoked: int
) -> None:
    async def story(bench: Bench) -> None:
        await live(bench, document(Schedule(schedule, '"tick"')))
        assert len(await minutes(bench, 6)) in (1, 6)
        bench.clock.elapsed_s += jump_s
        assert len(await minutes(bench, 2)) == invoked

    run(tmp_path, story)


def test_a_candidate_and_an_unreachable_function_do_no_harm(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        minutely = Schedule("cron(* * * * ? *)", "1")
        await live(bench, document(minutely))
        await live(bench, document(minutely), stage="prod")
        bench.hooks.fails.add("job")
        bench.workers.hold = asyncio.Event()
        await bench.engine.deploy("dev", document(minutely, digest="sha256:2"), strategy=None, force=False)
        assert await minutes(bench, 2) == ["invoked job r1 1"] * 4, "of the live release of both stages"
        told = [event.sentence for event in bench.store.events()]
        assert told.count("cron(* * * * ? *) of job, release 1 failed: OSError: no process") == 4
        bench.workers.hold.set()
        await bench.engine.wait_until_idle()

    run(tmp_path, story)
