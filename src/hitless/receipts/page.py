"""A release's receipts as one HTML page, and a receipt's summary for other pages.

The templates escape all text of people and handlers. The page has no script and loads nothing.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from hitless.pages.page import environment_of
from hitless.receipts import words
from hitless.receipts.plot import plots


def render(release: words.Document, *, back: str = "", suffix: str = ".html") -> str:
    """The page of a release (`hitless releases N --json`); its heading is the newest rollout's headline.

    `back` is the address of the list of releases, if the page has one. `suffix` is `.md` for Markdown.
    """
    rollouts = [_section(release["release"], rollout) for rollout in release["rollouts"]]
    headline = rollouts[0]["headline"] if rollouts else f"release {release['release']} was never shipped"
    page = environment_of("hitless.receipts", words=words).get_template(f"page{suffix}")
    return page.render(release=release, rollouts=rollouts, headline=headline, back=back)


def summary(release: int, rollout: words.Document) -> Markup:
    """One rollout's receipt as a part of another page: a `<details class="receipt">` whose summary is the headline and
    whose content is sums and weights.

    `rollout` is one of `rollouts` in `hitless releases N --json`. The page around it must style tables and the classes
    `n` (numbers), `note`, `good` and `bad`, as the drill's report does.
    """
    section = _section(release, rollout)
    return Markup(environment_of("hitless.receipts", words=words).get_template("summary.html").render(each=section))


def _section(release: int, rollout: words.Document) -> dict[str, Any]:
    receipt = rollout["receipt"]
    return {
        "rollout": rollout,
        "receipt": receipt,
        "headline": words.headline(release, rollout),
        "ok": bool(receipt) and not words.total(rollout)["failed"],
        "how": words.how(rollout),
        "sides": words.sides(release, rollout) if receipt else [],
        "plots": [Markup(one) for one in plots(rollout) or ()],
    }
