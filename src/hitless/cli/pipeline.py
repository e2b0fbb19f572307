"""`hitless pipeline …`: the engine's own git repository and its runs. Only the verb that is asked for is imported."""

from __future__ import annotations

import importlib
import sys

import typer

VERBS = ("url", "runs", "show", "retry", "stop", "receive")


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(
        name="pipeline",
        help="From a git push to a live release. The repository, its runs, their logs.",
        epilog="Example: git push $(hitless pipeline url) dev; hitless pipeline runs",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    asked = words[1] if len(words) > 1 and words[0] == "pipeline" else None
    for verb in (asked,) if asked in VERBS else VERBS:
        importlib.import_module(f"hitless.cli.pipeline_{verb}").register(verbs)
    app.add_typer(verbs)
