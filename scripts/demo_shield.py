"""What a broken canary costs with the shield and without, for the demo on emulated AWS: in words, and on its page.

The run without a shield is the control: it is counted apart, and where it loses no request nothing is proved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

STRATEGY = "Canary50Percent60Minutes"
BREAKS = """

_whole = entry


def entry(app):
    handler = _whole(app)

    def broken(event, context):
        if event["httpMethod"] == "GET":
            raise RuntimeError("broken on purpose: %s")
        return handler(event, context)

    return broken
"""
"""At the end of worldclock/api.py. The text makes the release's bytes, and so its versions, its own."""

FIRST_CARD = '<section class="card">'


def settings(text: str, smoke: str, *, shield: bool) -> str:
    """serverless.yml for the broken release: without smoke requests, which would turn it away before it bakes."""
    if smoke not in text:
        raise ValueError(f"serverless.yml has changed: no {smoke!r}")
    off = "" if shield else "\n        shield: false"
    return text.replace(smoke, f"smoke: []\n        alarms: {{minimum_requests: 1}}{off}", 1)


@dataclass(frozen=True)
class BrokenCanary:
    """One under load. `gets` and `failed` are what clients saw, `by_canary` what it failed by its receipt."""

    gets: int
    failed: int
    by_canary: int
    shielded: int
    weight_percent: float
    baked_s: float
    duration_s: float

    @classmethod
    def of(cls, drill: Mapping[str, Any], shipped: Mapping[str, Any], rollout: Mapping[str, Any]) -> BrokenCanary:
        """From the drill that ran meanwhile, the deploy's document and its rollout in `hitless aws releases N`."""
        asked = [one for one in drill["by_request"] if one["request"].startswith("GET ")]
        candidate, steps = rollout["receipt"]["candidate"], shipped["steps"]
        baking = next(step for step in steps if 0 < step["weight_percent"] < 100)
        after = steps[steps.index(baking) :]
        ended = next(step for step in after if step["weight_percent"] != baking["weight_percent"])
        baked = datetime.fromisoformat(ended["at"]) - datetime.fromisoformat(baking["at"])
        return cls(
            gets=sum(sum(one["statuses"].values()) for one in asked),
            failed=sum(one["failed"] for one in asked),
            by_canary=candidate["failed"] + candidate["shielded"],
            shielded=candidate["shielded"],
            weight_percent=baking["weight_percent"],
            baked_s=baked.total_seconds(),
            duration_s=drill["duration_s"],
        )

    @property
    def percent(self) -> float:
        """Of the GETs, how many failed."""
        return 100 * self.failed / self.gets if self.gets else 0.0

    @property
    def share(self) -> str:
        """How much of the traffic it had."""
        return f"{self.weight_percent:g} % of the traffic for {self.baked_s:.1f} of {self.duration_s:.1f} s"


@dataclass(frozen=True)
class Comparison:
    """The same broken canary twice. `shielded` is in the demo's totals, `control` is not."""

    shielded: BrokenCanary
    control: BrokenCanary

    @property
    def doubt(self) -> str:
        """Why it proves nothing; empty where it proves something."""
        if not self.control.failed:
            return "the control, with the shield off, lost no request"
        if not self.shielded.shielded:
            return "with the shield on, no GET came to the canary"
        return ""

    @property
    def held(self) -> bool:
        """Whether the shield is shown to have kept every GET from failing."""
        return not self.doubt and not self.shielded.failed

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.doubt:
            return f"The comparison proved nothing: {self.doubt}."
        without = f"{self.control.failed:,} of {self.control.gets:,} did ({self.control.percent:.1f} %)"
        return f"With the shield {self.shielded.failed:,} GETs failed; without it {without}: the canary's share."

    def in_words(self) -> str:
        """For the terminal, without the verdict."""
        lines = ["a broken canary, of which every GET fails, until its alarm rings:"]
        for name, one, where in (
            ("the shield on", self.shielded, "in the totals"),
            ("control: the shield off", self.control, "counted apart"),
        ):
            lines.append(
                f"  {name:<24} {one.failed:,} of {one.gets:,} GETs failed ({one.percent:.1f} %); it had {one.share},"
                f" failed {one.by_canary:,}, of which the live release answered {one.shielded:,}; {where}"
            )
        return "\n".join(lines)

    def on(self, page: str) -> str:
        """The drill's page with a card of its own before the others. ValueError where the page has none."""
        head, card, rest = page.partition(FIRST_CARD)
        if not card:
            raise ValueError("the drill's page has changed: no card in it")
        return f"{head}{self.card()}\n\n{card}{rest}"

    def card(self) -> str:
        """The section of the page."""
        rows = "\n".join(
            f'<tr><td>{name}</td><td class="n">{one.gets:,}</td><td class="n {tone}">{one.failed:,}</td>'
            f'<td class="n">{one.percent:.1f} %</td><td class="n">{one.by_canary:,}</td>'
            f'<td class="n">{one.shielded:,}</td><td>{one.share}</td></tr>'
            for name, one, tone in (
                ("the shield on", self.shielded, "bad" if self.shielded.failed else "good"),
                ("<b>control: the shield off</b>", self.control, "warn"),
            )
        )
        return f"""{FIRST_CARD}
<h2>A broken canary, with the shield and without</h2>
<p class="note">{self.verdict} Every GET fails on it, until its alarm rings. The first row is part of the totals above;
the control ran afterwards, under a load of its own, and is counted here alone.</p>
<div class="scroll"><table>
<tr><th></th><th class="n">GETs</th><th class="n">Failed</th><th class="n">Percent</th>
<th class="n">Failed by the canary</th><th class="n">Of which the live release answered</th><th>The canary had</th></tr>
{rows}
</table></div>
</section>"""
