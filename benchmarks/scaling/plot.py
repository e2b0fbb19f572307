"""The figures and the plot of a simulated scenario: load, busy workers, workers, and waiting requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from benchmarks.plots import panels
from benchmarks.scaling.simulator import PoolSample, SimulatedRun
from hitless.charts import Point

HEAD = ("scenario", "requests", "timed out", "most workers", "wait p50", "wait p99", "wait p99.9")


def figures_of(outcome: SimulatedRun) -> tuple[str, ...]:
    """The cells after the scenario's name."""
    waits = (f"{outcome.wait_s(percent) * 1000:.0f} ms" for percent in (50, 99, 99.9))
    return (f"{outcome.requests:,}", f"{outcome.timed_out:,}", f"{outcome.peak}", *waits)


def plot_of(outcome: SimulatedRun) -> str:
    """Three panels over one axis of seconds."""

    def line(value: Callable[[PoolSample], float]) -> list[Point]:
        return list(_held(outcome.samples, value))

    workers = {"line busy": line(lambda one: one.busy), "line": line(lambda one: one.workers)}
    return panels(
        "",
        {
            "requests a second": {"area": line(lambda one: one.rate)},
            "workers (busy: thin line)": workers,
            "waiting requests": {"area waiting": line(lambda one: one.waiting)},
        },
    )


def _held(samples: Sequence[PoolSample], value: Callable[[PoolSample], float]) -> Iterator[Point]:
    """The corners of the steps: each value holds until the next sample."""
    yield samples[0].at_s, value(samples[0])
    for before, one in pairwise(samples):
        if value(one) != value(before):
            yield one.at_s, value(before)
            yield one.at_s, value(one)
    yield samples[-1].at_s, value(samples[-1])
