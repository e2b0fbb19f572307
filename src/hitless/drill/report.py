"""The report of a drill as one self-contained HTML page: the result in its first line, then plots, tables, command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from hitless.drill.plots import Band, columns, failures_plot, kind_class, latency_plot, requests_plot, workers_plot
from hitless.drill.result import DrillResult, ShippedRelease
from hitless.drill.timeline import MICROSECONDS
from hitless.drill.wire import FailureKind
from hitless.pages.page import environment_of
from hitless.receipts.page import summary


def render(result: DrillResult, suffix: str = ".html") -> str:
    environment = environment_of("hitless.drill")
    environment.filters["ms"] = _ms
    axis = columns(result.tally.slots, result.tally.slot_us, result.duration_s)
    bands = _bands(result)
    document = result.to_json()
    return environment.get_template(f"report{suffix}").render(
        headline=result.headline,
        ok=result.exit_code == 0,
        surprises=result.surprises,
        document=document,
        kinds=[(one, kind_class(FailureKind(one["kind"]))) for one in document["failures"] if one["count"]],
        requests_plot=Markup(requests_plot(axis, bands)),
        latency_plot=Markup(latency_plot(axis, bands)),
        failures_plot=Markup(failures_plot(axis, bands)) if result.tally.failed else None,
        workers_plot=Markup(workers_plot(axis, result.workers, bands)) if result.workers else None,
        tones=sorted({band.tone for band in bands}),
        percent_new=result.plan.new_connections_percent,
        deadline_s=result.plan.deadline_s,
        receipts=[summary(one["release"], one["rollout"]) for one in result.receipts],
        late=result.lag_ms["p99"] > 5,
    )


def _bands(result: DrillResult) -> Sequence[Band]:
    shipped = [*result.releases, *((result.restored,) if result.restored else ())]
    bands = [_band(one) for one in shipped]
    for fault in result.faults:
        at_s = fault.start_us / MICROSECONDS
        bands.append(
            Band(at_s, at_s + (fault.recovered_ms or 0) / 1000, "⚡", f"{fault.label} at {at_s:.1f} s", "fault")
        )
    return sorted(bands, key=lambda band: band.start_s)


def _band(one: ShippedRelease) -> Band:
    start_s = one.window.start_us / MICROSECONDS
    if not one.as_expected:
        tone, label = "surprise", "!"
    elif one.scenario == "return":
        tone, label = "back", "↩"
    elif one.outcome != "live":
        tone, label = "broken", "✕"
    else:
        tone, label = "good", str(one.release)
    title = f"{one.scenario}: {one.outcome} in {one.duration_s:.2f} s" + (f" ({one.reason})" if one.reason else "")
    return Band(start_s, start_s + one.duration_s, label, title, tone)


def _ms(value: Any) -> str:
    """Milliseconds with about three digits."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
