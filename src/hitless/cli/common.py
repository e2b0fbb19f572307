"""What every verb shares: the common options, output for people or as one JSON document, errors with their exit codes.

With `--json` stdout has one document and nothing else; progress and messages go to stderr. Colour and live progress
only on a terminal; rich itself honours NO_COLOR.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.models import CommandInfo

from hitless.errors import HitlessError, InterruptedByHand, MachineError, UsageError
from hitless.homes.home import Workplace
from hitless.pipeline.buildspec.output import visible
from hitless.service.load import default_stage
from hitless.service.model import Home

Verb = TypeVar("Verb", bound=Callable[..., None])
HomeOption = Annotated[
    Home | None, typer.Option("--home", help="Work at this home; default: the one of the stage in serverless.yml.")
]


VERBS: dict[str, CommandInfo] = {}
"""The verbs of the modules that are imported."""


def say_on_stderr(message: str) -> None:
    """Show a message to a person, on stderr."""
    sys.stderr.write(visible(message) + "\n")
    sys.stderr.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Workplace):
    """The common options of one command, resolved."""

    json: bool
    yes: bool
    debug: bool
    goes_on: list[str] = field(default_factory=list)
    """What Ctrl-C leaves running: a message that says it, and a hint how to stop it."""

    def show(self, document: Any, lines: Callable[[], str]) -> None:
        """Print the result: the JSON document with --json, else the lines for people (nothing if they are empty)."""
        text = visible(json.dumps(document, ensure_ascii=False) if self.json else lines()).rstrip("\n")
        if text:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def show_each(self, documents: Iterable[Any], line: Callable[[Any], str], *, follow: bool) -> None:
        """Print the results as one document with --json, else a line each; with `follow` each at once, as it comes."""
        if follow:
            for one in documents:
                self.show(one, partial(line, one))
            return
        found = list(documents)
        self.show(found, lambda: "\n".join(map(line, found)))

    def ask(self, question: str, *, hint: str) -> str:
        """What a person at the terminal types. MachineError if there is no terminal."""
        if not sys.stdin.isatty():
            raise MachineError("this must be confirmed, and there is no terminal", hint=hint)
        self.say(question)
        return sys.stdin.readline().strip()


def _common_options(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
    stage: Annotated[
        str | None,
        typer.Option("--stage", "-s", help="The stage; default: provider.stage of serverless.yml, else dev."),
    ] = None,
    service_dir: Annotated[Path, typer.Option("--service-dir", help="The folder with serverless.yml.")] = Path(),
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", help="The engine's folder; default $HITLESS_DATA_DIR, else .hitless beside serverless.yml."
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="The value of ${param:NAME} in the file; may be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer every prompt with yes.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> Context:
    """The options that every verb takes; paths become absolute."""
    folder = service_dir.expanduser().resolve()
    named = data_dir or (Path(os.environ["HITLESS_DATA_DIR"]) if os.environ.get("HITLESS_DATA_DIR") else None)
    data = (named or folder / ".hitless").expanduser().resolve()
    options = {"stage": stage} if stage is not None else {}
    return Context(
        json=as_json,
        stage=default_stage(folder, os.environ) if stage is None else stage,
        service_dir=folder,
        data_dir=data,
        say=say_on_stderr,
        options=options,
        params=dict(map(_param, param or ())),
        yes=yes,
        debug=debug,
    )


def _param(given: str) -> tuple[str, str]:
    name, _, value = given.partition("=")
    if not name or not value:
        raise typer.BadParameter("write NAME=VALUE", param_hint="'--param'")
    return name, value.rstrip()


class Ended(Exception):
    """The work is done and its document is shown, but it did not end well: error, hint and this exit code follow."""

    def __init__(self, exit_code: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.exit_code, self.message, self.hint = exit_code, message, hint


def command(name: str, *, example: str, hidden: bool = False, **fixed: Any) -> Callable[[Verb], Verb]:
    """Register a verb by its name, with its group's before it. `function(ctx, …)` gets the resolved common options
    first, its own options by name.

    `fixed` are values of the function's parameters that are no options of this verb. Errors become `error:` and `hint:`
    lines (with --json one document) and the contract's exit codes.
    """

    def register(function: Verb) -> Verb:
        shared = inspect.signature(_common_options, eval_str=True).parameters
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        @wraps(function)
        def guarded(**options: Any) -> None:
            ctx = _common_options(**{key: options.pop(key) for key in shared})
            try:
                function(ctx, **options, **fixed)
            except Ended as ended:
                say_on_stderr(f"error: {ended.message}\nhint: {ended.hint}")
                raise typer.Exit(ended.exit_code) from None
            except HitlessError as error:
                fail(error, as_json=ctx.json, debug=ctx.debug)
            except KeyboardInterrupt:
                sys.stderr.write("\n")
                message, hint = ctx.goes_on or ("interrupted", "")
                fail(InterruptedByHand(message, hint=hint), as_json=ctx.json)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                raise typer.Exit(141) from None
            except OSError as error:
                where = f"{error.filename or 'the machine'}: {error.strerror or error}"
                fail(
                    MachineError(where, hint="`hitless doctor` looks for the cause"), as_json=ctx.json, debug=ctx.debug
                )

        everything = [*(one for one in own if one.name not in fixed), *shared.values()]
        guarded.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in everything]
        )
        guarded.__annotations__ = {parameter.name: parameter.annotation for parameter in everything}
        word = name.rpartition(" ")[2]
        VERBS[name] = CommandInfo(word, callback=guarded, epilog=f"Example: {example}", hidden=hidden)
        return function

    return register


def fail(error: HitlessError, *, as_json: bool, debug: bool = False) -> NoReturn:
    """Show an error and leave with its exit code."""
    if debug:
        traceback.print_exception(error)
    if as_json:
        sys.stdout.write(json.dumps({"error": error.to_json()}, ensure_ascii=False) + "\n")
    say_on_stderr(f"error: {error.message}\nhint: {error.hint}")
    raise typer.Exit(error.exit_code)


def positive(value: float, option: str) -> float:
    """The value; UsageError that names the option if it is not above zero."""
    if value <= 0:
        raise UsageError(f"{option}: {value} is not above zero", hint=f"give {option} a positive number")
    return value
