"""The `hitless` command: finds the verb, loads its module, and lets typer do the rest.

Only that module is imported: a deploy's time counts from the command, and help or a drill need much that a deploy does
not.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, NoReturn

import typer

import hitless
from hitless.cli.common import LINE, VERBS, fail
from hitless.cli.values import take_values_as_given
from hitless.errors import HitlessError, UsageError

MODULES = {
    "init": ("init",),
    "up": ("up", "down"),
    "deploy": ("deploy", "rollback", "abort"),
    "promote": ("promote",),
    "secrets": ("secrets set", "secrets list", "secrets unset"),
    "pipeline": (
        *("approve", "reject"),
        *("pipeline url", "pipeline runs", "pipeline show", "pipeline wait", "pipeline retry", "pipeline stop"),
    ),
    "pipeline_receive": ("pipeline receive",),
    "rehearse": ("rehearse",),
    "status": ("status",),
    "dashboard": ("dashboard",),
    "releases": ("releases",),
    "logs": ("logs", "events"),
    "metrics": ("metrics",),
    "drill": ("drill",),
    "invoke": ("invoke",),
    "doctor": ("doctor",),
    "schema": ("schema",),
    "upgrade": ("upgrade",),
    "backup": ("backup", "restore"),
    "remote": ("remote add", "remote receive"),
    "host": ("host install", "host status", "host uninstall"),
    "aws_setup": ("aws doctor", "aws plan", "aws bootstrap", "aws destroy"),
    "aws_stack": ("aws adopt", "aws repair", "aws drift"),
    "aws_aliases": tuple(
        f"aws {verb}" for verb in ("deploy", "status", "releases", "logs", "rollback", "abort", "promote")
    ),
}
"""Module of this package → its verbs, in the order of the help."""

GROUPS = {
    "remote": (
        "Hosts on which verbs run over ssh.",
        "Example: hitless remote add prod ssh://root@203.0.113.7; hitless deploy --stage prod",
    ),
    "host": (
        "Services of this machine that systemd starts at boot.",
        "Example: hitless host install clock; hitless host status",
    ),
    "secrets": (
        "The values of ${ssm:NAME} on the engine, per stage, encrypted.",
        "Example: hitless secrets set /clock/database-url --stage prod < url.txt",
    ),
    "pipeline": (
        "From a git push to a live release. Shows the repository, its runs and their logs.",
        "Example: git push $(hitless pipeline url) dev; hitless pipeline runs",
    ),
    "aws": (
        "Setup, cost, adoption, repair and drift on AWS. To ship releases, use `hitless deploy --home aws`.",
        "Example: hitless aws plan --stage dev; hitless deploy --home aws --stage dev",
    ),
}
"""Group of verbs → its help and its example."""

_REFUSED: Final[type[Exception]] = typer.BadParameter.__mro__[1]
"""The error that typer raises for arguments that it does not understand: UsageError of its own click."""


def build(modules: Iterable[str] = MODULES) -> typer.Typer:
    """The typer application with the verbs of these modules."""
    take_values_as_given()
    app = typer.Typer(
        name="hitless",
        help="Ships a JSON REST API many times a day without failing a single request.",
        epilog="Example: hitless init hello && cd hello && hitless up --detach",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    groups = {name: typer.Typer() for name in GROUPS}
    for module in modules:
        importlib.import_module(f"hitless.cli.{module}")
        for verb in MODULES[module]:
            groups.get(verb.partition(" ")[0], app).registered_commands.append(VERBS[verb])
    for name, (told, example) in GROUPS.items():
        if groups[name].registered_commands:
            app.add_typer(groups[name], name=name, help=told, epilog=example, no_args_is_help=True)
    return app


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script; `words` are the command line's (default: this process's)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    given = list(sys.argv[1:] if words is None else words)
    LINE[:] = given
    app = build(() if given == ["--version"] else _modules_of([word for word in given if not word.startswith("-")]))
    try:
        try:
            code = app(args=given, prog_name="hitless", standalone_mode=False)
        except typer.Abort:
            fail(
                HitlessError("a question was not answered", hint="pass --yes to confirm everything"),
                as_json="--json" in given,
            )
        except _REFUSED as refused:
            fail(_usage_error(refused), as_json="--json" in given)
    except typer.Exit as end:
        code = end.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _modules_of(words: Sequence[str]) -> Iterable[str]:
    """The module of the verb that is asked for, else those of its group, else all."""
    for asked in (" ".join(words[:2]), *words[:1]):
        if found := [name for name, verbs in MODULES.items() if asked in verbs]:
            return found
    return [name for name in MODULES if words and name.partition("_")[0] == words[0] in GROUPS] or MODULES


def _usage_error(refused: Exception) -> UsageError:
    """typer's error in the form of all errors; without a command the help is shown first."""
    context = getattr(refused, "ctx", None)
    command = context.command_path if context else "hitless"
    message = getattr(refused, "message", "")
    if message.startswith("Usage:"):
        typer.echo(message + "\n", err=True)
        return UsageError(f"{command}: a command is missing", hint=f"for example `{command} --help`")
    if (plain := _in_plain_words(refused)) is not None:
        refused.message = plain  # type: ignore[attr-defined]
    said = refused.format_message() if hasattr(refused, "format_message") else str(refused)
    return UsageError(said[:1].lower() + said[1:].rstrip("."), hint=f"`{command} --help` lists its options")


def _in_plain_words(refused: Exception) -> str | None:
    """A plain message for a value that is not a number; None for any other error."""
    errors = getattr(refused.__cause__, "errors", None)
    first = errors()[0] if callable(errors) else {}
    kind = {"int_parsing": "a whole number", "float_parsing": "a number"}.get(first.get("type", ""))
    return f"{first['input']!r} is not {kind}" if kind else None


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hitless {hitless.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Ships a JSON REST API many times a day without failing a single request."""
