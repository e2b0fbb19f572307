"""Receipts on a terminal. Colour only if standard output is a terminal; rich honours NO_COLOR."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from io import StringIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hitless.receipts import words
from hitless.receipts.words import Document

CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "other")
NARROWEST, WITHOUT_TERMINAL = 80, 200
BESIDE_WHY = 96
"""The greatest width of the list's columns before the reason."""


def table(releases: Sequence[Document]) -> str:
    """One line a release, newest first."""
    rows = Table(box=None, pad_edge=False, header_style="dim", show_edge=False)
    for name in ("", "release", "outcome", "failed", "of", "shielded", "took", "shipped", "commit", "why"):
        right = name in ("release", "failed", "of", "shielded", "took")
        rows.add_column(name, justify="right" if right else "left", no_wrap=True)
    for each in releases:
        said = (each["message"], f"[{each['reason']}]" if each["reason"] else None)
        why = Text(_one_line(" ".join(filter(None, said))))
        why.truncate(_width() - BESIDE_WHY, overflow="ellipsis")
        rows.add_row(*_row(each), why)
    return _drawn(rows)


def _row(release: Document) -> tuple[RenderableType, ...]:
    cost, seconds = release.get("cost"), release["duration_s"]
    numbers = ("-", "-", "-") if cost is None else tuple(f"{cost[n]:,}" for n in ("failed", "requests", "shielded"))
    return (
        Text("*" if release["live"] else " ", "bold green"),
        Text(str(release["release"])),
        _outcome(release["outcome"] or "under way"),
        Text(numbers[0], "bold red" if cost and cost["failed"] else ""),
        *map(Text, numbers[1:]),
        Text("-" if seconds is None else words.duration(seconds)),
        Text(release["created_at"][:19].replace("T", " ")),
        Text((release["commit"] or "-")[:8]),
    )


def in_full(release: Document) -> str:
    """One release: its newest rollout's receipt, and a line for each earlier one."""
    rollouts = release["rollouts"]
    if not rollouts:
        return f"release {release['release']} was never shipped"
    parts = _receipt(release, rollouts[0])
    for earlier in rollouts[1:]:
        line = f"{earlier['started_at'][:19].replace('T', ' ')}  {words.headline(release['release'], earlier)}"
        parts.append(Text(f"{line} ({words.how(earlier)})", "dim"))
    return _drawn(*parts)


def _receipt(release: Document, rollout: Document) -> list[RenderableType]:
    receipt, number = rollout["receipt"], release["release"]
    failed = bool(receipt and words.total(rollout)["failed"])
    parts: list[RenderableType] = [
        Text(words.headline(number, rollout), "bold red" if failed else "bold"),
        Text(f"{words.how(rollout)}, {release['stage']}, {rollout['started_at']}"),
    ]
    if rollout["reason"]:
        parts.append(Text(_one_line(rollout["reason"]), "red"))
    if receipt is None:
        return [*parts, *_facts([("steps", _steps(rollout))])]
    parts += [Text(said) for said in (words.taken_back(rollout), words.shielded(rollout)) if said]
    parts += [Text(f"incomplete: {sentence}", "red") for sentence in receipt["missing"]]
    parts += [Text(""), _sums(number, rollout), Text("")]
    facts = [("weight", words.interval(each)) for each in receipt["weights"]]
    facts.append(("alarms", "; ".join(filter(None, (words.alarms(receipt), words.worst(rollout))))))
    facts += [("", f"{each['at'][11:19]} {_one_line(each['sentence'])}") for each in receipt["alarms"]["readings"][-3:]]
    facts += [("hook", f"{each['hook']}: {each['status']}") for each in receipt["hooks"]]
    facts.append(("steps", _steps(rollout)))
    facts.append(("who", words.who(receipt)))
    facts.append(("why", _one_line(receipt.get("why") or "no reason given")))
    if said := words.origin(receipt):
        facts.append(("from", said))
    digests = ", ".join(f"{name} {words.short_digest(value)}" for name, value in receipt.get("artifacts", {}).items())
    facts.append(("what", f"commit {(receipt.get('commit') or 'none')[:12]}; {digests}"))
    return [*parts, *_facts(facts)]


def _sums(number: int, rollout: Document) -> Table:
    sides = [(side["name"], side["counted"]) for side in words.sides(number, rollout)]
    classes = [name for name in CLASSES if any(side["by_class"].get(name) for _, side in sides)]
    rows = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "requests", "failed", "shielded", *classes):
        rows.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, side in sides:
        cells = [
            Text(name),
            Text(f"{side['requests']:,}"),
            Text(f"{side['failed']:,}", "red" if side["failed"] else ""),
        ]
        cells += [Text(f"{side['shielded']:,}"), *(Text(f"{side['by_class'].get(each, 0):,}") for each in classes)]
        rows.add_row(*cells)
    return rows


def _steps(rollout: Document) -> str:
    shown: list[str] = []
    for step in rollout["steps"]:
        after = words.seconds_between(rollout["started_at"], step["at"])
        weight = f" {step['weight_percent']:g} %" if step["state"] == "shifting" else ""
        shown.append(f"{after:.2f} s {step['state']}{weight}")
    if len(shown) > 12:
        shown = [*shown[:6], f"… {len(shown) - 11} more …", *shown[-5:]]
    return ", ".join(shown) or "none"


def _facts(facts: Sequence[tuple[str, str]]) -> list[RenderableType]:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, said in facts:
        rows.add_row(Text(name), Text(said))
    return [rows]


def _outcome(outcome: str) -> Text:
    return Text(outcome.replace("_", " "), {"live": "green", "rolled_back": "red"}.get(outcome, "yellow"))


def _one_line(text: str) -> str:
    """Without control characters, so that text of others cannot move the terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text)


def _width() -> int:
    return max(NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else WITHOUT_TERMINAL


def _drawn(*parts: RenderableType) -> str:
    out = StringIO()
    console = Console(
        file=out, force_terminal=sys.stdout.isatty(), width=_width(), highlight=False, emoji=False, markup=False
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
