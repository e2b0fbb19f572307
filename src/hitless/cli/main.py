"""The `hitless` command: finds the verb, loads its file alone, lets typer do the rest.

Only the verb that is asked for is imported: a deploy's time counts from the command, and help or a drill need much
that a deploy does not.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

import hitless

VERBS = (
    *("init", "up", "down", "deploy", "rollback", "abort"),
    *("status", "releases", "events", "logs", "drill", "invoke", "doctor", "aws"),
)


def build(verbs: tuple[str, ...] = VERBS) -> typer.Typer:
    """The typer application with these verbs."""
    app = typer.Typer(
        name="hitless",
        help="Ships a JSON REST API many times a day without failing a single request.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for verb in verbs:
        importlib.import_module(f"hitless.cli.{verb}").register(app)
    return app


def main() -> None:
    """Entry point of the console script."""
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    build((asked,) if asked in VERBS else VERBS)()


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hitless {hitless.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Ships a JSON REST API many times a day without failing a single request."""
