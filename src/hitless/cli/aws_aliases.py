"""`hitless aws deploy` and its like: the older names of the plain verbs with `--home aws`.

They are hidden, and print the JSON documents that they always printed.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hitless.cli.common import Context, command, positive
from hitless.cli.deploy import deploy, rollback
from hitless.cli.logs import FollowOption, FunctionArgument, ReleaseOption
from hitless.cli.promote import promote
from hitless.cli.releases import HtmlOption, refuse_page_of_none, show_list, show_one
from hitless.cli.releases import ReleaseArgument as ShownRelease
from hitless.cloud.repair.repair import describe
from hitless.homes.aws import NOT_COUNTED, AwsHome
from hitless.homes.aws_logs import DEFAULT_MINUTES, cloudwatch_lines
from hitless.homes.home import LogQuery
from hitless.service.model import Home

for _name, _verb, _words in (
    ("deploy", deploy, "deploy --home aws --stage prod --dry-run --json"),
    ("rollback", rollback, "rollback 11 --home aws --stage prod"),
    ("promote", promote, "promote staging prod --home aws"),
):
    command(f"aws {_name}", example=f"hitless {_words}", hidden=True, home=Home.AWS)(_verb)


@command("aws abort", example="hitless abort --home aws --stage prod", hidden=True)
def abort(ctx: Context) -> None:
    """`hitless abort --home aws`."""
    document = AwsHome(ctx).aborted()
    live = document["live"]
    ctx.show(document, lambda: f"aborted; release {live} serves" if live else "aborted; no release serves yet")


@command("aws status", example="hitless status --home aws --stage prod", hidden=True)
def status(ctx: Context) -> None:
    """The stage's stack: its versions and their weights, and its problems."""
    document = AwsHome(ctx).stack_status()
    ctx.show(document, lambda: _status(document))


@command("aws releases", example="hitless releases 4 --home aws --stage prod", hidden=True)
def releases(ctx: Context, release: ShownRelease = None, html: HtmlOption = None) -> None:
    """`hitless releases --home aws`."""
    refuse_page_of_none(release, html)
    if release is None:
        listed = AwsHome(ctx).recorded_releases()
        show_list(ctx, listed, [{**NOT_COUNTED, **one} for one in listed])
    else:
        show_one(ctx, AwsHome(ctx).recorded_release(release), html)


@command("aws logs", example="hitless logs zones --home aws --stage prod -f", hidden=True)
def logs(
    ctx: Context,
    function: FunctionArgument = None,
    follow: FollowOption = False,
    release: ReleaseOption = None,
    minutes: Annotated[int, typer.Option("--minutes", help="How far back.")] = DEFAULT_MINUTES,
) -> None:
    """`hitless logs --home aws`."""
    positive(minutes, "--minutes")
    query = LogQuery(function=function, follow=follow, release=release, minutes=minutes)
    found = ({"at": one.at, "function": one.function, "line": one.text} for one in cloudwatch_lines(ctx, query))
    ctx.show_each(found, lambda line: "  ".join(line.values()), follow=follow)


def _status(document: dict[str, Any]) -> str:
    if document["stack"]["status"] is None:
        return "\n".join([f"{document['stage']} has no service on AWS yet", *map(describe, document["troubles"])])
    lines = [f"{document['stage']}: release {document['release'] or '-'} at {document['url'] or 'no URL'}"]
    for name, weights in sorted(document["weights"].items()):
        shares = ", ".join(f"version {version} {percent} %" for version, percent in sorted(weights.items()))
        lines.append(f"  {name}: {shares}")
    if candidate := document["candidate"]:
        lines.append(f"  release {candidate['release']} is under way since {candidate['since']}")
    lines += [f"  problem: {describe(one)}" for one in document["troubles"]]
    return "\n".join(lines)
