"""Follows rollouts, shows them while they last, and ends the command with their exit code."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from hitless.cli.common import Context, UnsuccessfulResult
from hitless.documents import convert
from hitless.homes.home import RolloutNews
from hitless.release.result import Outcome, Result, Step
from hitless.release.status import CandidateStatus


def follow(ctx: Context, news: Iterator[RolloutNews]) -> dict[str, Any] | None:
    """Show each step of a rollout; the document of its end, or None if it was only started (`--no-wait`)."""
    open_line = False
    try:
        for one in news:
            if one.step is not None:
                ctx.on_interrupt[:] = (
                    f"interrupted: the rollout of release {one.release or '?'} continues in the engine",
                    f"`hitless abort --stage {ctx.stage}` stops it; `hitless status` shows it",
                )
                open_line = _show_step(ctx, one.step)
            elif one.progress is not None and sys.stderr.isatty():
                open_line = _rewrite(f"{one.progress.state:<12} {beside(one.progress)}")
            elif one.started is not None:
                release = one.started["release"]
                ctx.show(one.started, lambda: f"release {release} has started; `hitless status` shows it")  # noqa: B023
                return None
            elif one.result is not None:
                return one.result
    finally:
        if open_line:
            sys.stderr.write("\n")
    return None


def _show_step(ctx: Context, step: Step) -> bool:
    """Show a step. A terminal has one line for it, which the next step rewrites: True if that line is not ended."""
    note = f" ({step.note})" if step.note else ""
    text = f"{step.state:<12} {step.weight_percent:>3} %{note}"
    if not sys.stderr.isatty():
        ctx.say(f"{step.at}  {text}")
        return False
    return _rewrite(text + "\n" * bool(note)) and not note


def _rewrite(text: str) -> bool:
    """Write over the terminal's last line, cut to its width."""
    width = shutil.get_terminal_size().columns
    sys.stderr.write(f"\r\x1b[2K{painted(text[: width - 1], sys.stderr)}")
    sys.stderr.flush()
    return True


def beside(candidate: CandidateStatus) -> str:
    """A candidate and the live release: `10 %, 22 s left: 812 requests, 0 failed; live 7,190 requests, 0 failed`."""
    left = f", {candidate.left_s:.0f} s left" if candidate.left_s else ""
    sides = [f"{candidate.requests or 0:,} requests, {candidate.failed or 0:,} failed"]
    sides[0] += f", {candidate.shielded:,} shielded" if candidate.shielded else ""
    sides[0] += f", p99 {candidate.latency_ms.p99:.3g} ms" if candidate.latency_ms else ""
    if live := candidate.live:
        p99 = f", p99 {candidate.live_latency_ms.p99:.3g} ms" if candidate.live_latency_ms else ""
        sides.append(f"live {live.requests:,} requests, {live.failed:,} failed{p99}")
    return f"{candidate.weight_percent:>3} %{left}: {'; '.join(sides)}"


def painted(text: str, stream: TextIO) -> str:
    """The text with failed requests in red, if a terminal shows it and NO_COLOR is not set."""
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return re.sub(r"\b[1-9][\d,]* failed\b", "\x1b[31m\\g<0>\x1b[0m", text)


def conclude(ctx: Context, document: dict[str, Any] | None) -> None:
    """Show a rollout's result, if it has one (None: it was only started). UnsuccessfulResult if it did not go live."""
    if document is None:
        return
    result = convert(document, Result, "the rollout's result")
    ctx.show(document, lambda: _sentence(result))
    if result.outcome.exit_code:
        hint = f"`hitless logs --release {result.release}` and `hitless releases {result.release}` say more" + (
            "; the live release was not touched" if result.live else ""
        )
        ended = f"release {result.release} was {result.outcome.replace('_', ' ')}: {result.reason}"
        raise UnsuccessfulResult(result.outcome.exit_code, ended, hint)


def _sentence(result: Result) -> str:
    release = f"release {result.release}"
    match result.outcome:
        case Outcome.UNCHANGED:
            return f"{release} is live already: nothing has changed"
        case Outcome.LIVE:
            counted = [side.failed for side in (result.candidate, result.live) if side]
            failed = f"; {sum(counted)} requests failed during the rollout" if counted else ""
            at = f" at {result.url}" if result.url else ""
            return f"{release} is live in {result.stage} ({result.duration_s:.2f} s{failed}){at}"
        case _:
            return f"{release}: {result.outcome.replace('_', ' ')}"
