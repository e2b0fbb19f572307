"""`hitless aws …`: the same verbs on AWS. Only the verb that is asked for is imported."""

from __future__ import annotations

import importlib
import sys

import typer

VERBS = (
    *("plan", "bootstrap", "deploy", "status", "releases", "logs", "rollback", "abort", "promote"),
    *("adopt", "repair", "destroy"),
)


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(
        name="aws",
        help="The same service on AWS. API Gateway, Lambda, CodeDeploy, CodePipeline.",
        epilog="Example: hitless aws plan --stage dev; hitless aws deploy --stage dev",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    asked = words[1] if len(words) > 1 and words[0] == "aws" else None
    for verb in (asked,) if asked in VERBS else VERBS:
        importlib.import_module(f"hitless.cli.aws_{verb}").register(verbs)
    app.add_typer(verbs)
