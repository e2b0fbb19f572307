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


app, verbs = typer.Typer(), typer.Typer()
app.add_typer(
    verbs,
    name="aws",
    help="Setup, cost, adoption and repair on AWS. Releases ship by the plain verbs with --home aws.",
    epilog="Example: hitless aws plan --stage dev; hitless deploy --home aws --stage dev",
    no_args_is_help=True,
)
_words = [word for word in sys.argv[1:] if not word.startswith("-")]
_asked = _words[1] if len(_words) > 1 and _words[0] == "aws" else None
for _module in [name for name, known in MODULES.items() if _asked in known] or MODULES:
    verbs.add_typer(importlib.import_module(f"hitless.cli.{_module}").app)
