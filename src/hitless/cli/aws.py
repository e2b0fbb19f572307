"""`hitless aws …`: the verbs that only AWS has, and the older names of the plain verbs, hidden.

Only the module of the verb that is asked for is imported.
"""

from __future__ import annotations

import importlib
import sys

import typer

MODULES = {
    "aws_setup": ("plan", "bootstrap", "destroy"),
    "aws_stack": ("adopt", "repair"),
    "aws_aliases": ("deploy", "status", "releases", "logs", "rollback", "abort", "promote"),
}


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(
        name="aws",
        help="Setup, cost, adoption and repair on AWS. Releases ship by the plain verbs with --home aws.",
        epilog="Example: hitless aws plan --stage dev; hitless deploy --home aws --stage dev",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    asked = words[1] if len(words) > 1 and words[0] == "aws" else None
    for module in [name for name, known in MODULES.items() if asked in known] or MODULES:
        importlib.import_module(f"hitless.cli.{module}").register(verbs)
    app.add_typer(verbs)
