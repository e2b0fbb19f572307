"""`hitless releases [N]`: the releases of a stage, with their results and receipts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hitless.cli.common import Context, HomeOption, command
from hitless.errors import UsageError
from hitless.homes.home import home_of
from hitless.pages.page import write_page
from hitless.receipts.page import render
from hitless.receipts.text import in_full, table

ReleaseArgument = Annotated[int | None, typer.Argument(help="Show this release with its receipts.")]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html", "--receipt", metavar="FILE", help="Write its receipts as an HTML page, or as Markdown (.md)."
    ),
]


@command("releases", example="hitless releases 4 --html receipt.html")
def releases(ctx: Context, release: ReleaseArgument = None, html: HtmlOption = None, home: HomeOption = None) -> None:
    """List the stage's releases, newest first. Or show one, with the receipt of each of its rollouts."""
    refuse_page_of_none(release, html)
    chosen = home_of(ctx, home)
    if release is None:
        show_list(ctx, chosen.releases())
    else:
        show_one(ctx, chosen.release(release), html)


def refuse_page_of_none(release: int | None, html: Path | None) -> None:
    """UsageError for --html without a release."""
    if release is None and html is not None:
        raise UsageError("--html: no release is named", hint="for example `hitless releases 4 --html receipt.html`")


def show_list(ctx: Context, listed: list[dict[str, Any]], rows: list[dict[str, Any]] | None = None) -> None:
    """Show all releases of the stage; `rows` replaces them in the table for people."""
    ctx.show(listed, lambda: table(rows or listed) if listed else f"{ctx.stage} has no release yet")


def show_one(ctx: Context, one: dict[str, Any], html: Path | None) -> None:
    """Show a release, and write its page if a file is named."""
    if html is not None:
        path = html.expanduser().resolve()
        write_page(path, lambda suffix: render(one, suffix=suffix), option="--html")
        ctx.say(f"receipt: {path}")
    ctx.show(one, lambda: in_full(one))
