"""Shared by all commands: common options, output for people or as one JSON document, and errors with their exit codes.

With `--json` stdout has one document and nothing else; progress and messages go to stderr. Colour and live progress are
used only on a terminal; rich itself honours NO_COLOR.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import msgspec
import typer
from typer.models import CommandInfo

from hitless.cli.owner import become_owner
from hitless.cli.remotes import Remote, read_remotes, remote_of, run_there
from hitless.errors import HitlessError, InterruptedByUser, MachineError, UsageError
from hitless.homes.home import Workplace
from hitless.pipeline.buildspec.output import visible
from hitless.service.load import default_stage
from hitless.service.model import Home

Command = TypeVar("Command", bound=Callable[..., None])
HomeOption = Annotated[
    Home | None,
    typer.Option("--home", help="Where the stage runs: engine or aws; default: its home in serverless.yml."),
]


_HERE: Final = ("aws", "host", "doctor", "drill", "init", "schema", "dashboard")
"""Commands that run on a host only with --remote, not by the stage's name."""

LINE: list[str] = []
"""The words of this command line."""

VERBS: dict[str, CommandInfo] = {}
"""The commands of the modules that are imported."""


def say_on_stderr(message: str) -> None:
    """Show a message to a person, on stderr."""
    sys.stderr.write(visible(message) + "\n")
    sys.stderr.flush()


class Context(Workplace, frozen=True, kw_only=True):
    """The common options of one command, resolved."""

    json: bool
    yes: bool
    debug: bool
    remote: str | None = None
    on_interrupt: list[str] = msgspec.field(default_factory=list)
    """The message and hint that Ctrl-C shows: what continues, and how to stop it. Empty: only "interrupted"."""

    def show(self, document: Any, lines: Callable[[], str]) -> None:
        """Print the result: the JSON document with --json, else the lines for people (nothing if they are empty)."""
        text = visible(json.dumps(document, ensure_ascii=False) if self.json else lines()).rstrip("\n")
        if text:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def show_each(self, documents: Iterable[Any], line: Callable[[Any], str], *, follow: bool) -> None:
        """Print the results as one JSON document or one line each. With `follow`, print each as soon as it arrives."""
        if follow:
            for document in documents:
                self.show(document, partial(line, document))
            return
        found = list(documents)
        self.show(found, lambda: "\n".join(map(line, found)))

    def ask(self, question: str, *, hint: str) -> str:
        """Ask the user, and return the typed line. Raises MachineError if there is no terminal."""
        if not sys.stdin.isatty():
            raise MachineError("this needs confirmation, but there is no terminal to ask on", hint=hint)
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
    remote: Annotated[
        str | None, typer.Option("--remote", metavar="NAME", help="Run it on the host of `hitless remote add NAME`.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="The value of ${param:NAME} in the file; may be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer every prompt with yes.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> Context:
    """The options that every command accepts; paths become absolute."""
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
        remote=remote,
    )


def _param(given: str) -> tuple[str, str]:
    name, _, value = given.partition("=")
    if not name or not value:
        raise typer.BadParameter("write NAME=VALUE", param_hint="'--param'")
    return name, value.rstrip()


def _remote_of(ctx: Context, name: str) -> Remote | None:
    """The host that the command is for: of --remote, else of the stage's name; None for this machine."""
    if ctx.remote is not None:
        return remote_of(ctx.data_dir, ctx.remote)
    return None if name.startswith(_HERE) else read_remotes(ctx.data_dir).get(ctx.stage)


class UnsuccessfulResult(Exception):
    """Raised after a result was printed that is a failure. The command then prints this error and hint, and exits."""

    def __init__(self, exit_code: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.exit_code, self.message, self.hint = exit_code, message, hint


def command(
    name: str, *, example: str, hidden: bool = False, local: bool = False, **fixed: Any
) -> Callable[[Command], Command]:
    """Register a command under its full name, such as `aws plan`. `function(ctx, …)` gets the resolved common options
    first, and its own options by name.

    A `local` one never runs on a remote. `fixed` sets parameters of the function that this command does not offer as
    options. Errors become `error:` and `hint:` lines (with --json one document) and the documented exit codes.
    """

    def register(function: Command) -> Command:
        shared: Mapping[str, inspect.Parameter] = inspect.signature(_common_options, eval_str=True).parameters
        options_of_its_own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = {key: one for key, one in shared.items() if key not in {own.name for own in options_of_its_own}}

        @wraps(function)
        def guarded(**options: Any) -> None:
            ctx = _common_options(**{key: options.pop(key) for key in shared})
            try:
                become_owner(ctx.data_dir)
                if not local and (there := _remote_of(ctx, name)) is not None:
                    raise typer.Exit(run_there(there, LINE, name, ctx.service_dir, ctx.stage))
                function(ctx, **options, **fixed)
            except UnsuccessfulResult as failure:
                say_on_stderr(f"error: {failure.message}\nhint: {failure.hint}")
                raise typer.Exit(failure.exit_code) from None
            except HitlessError as error:
                fail(error, as_json=ctx.json, debug=ctx.debug, folder=ctx.service_dir)
            except KeyboardInterrupt:
                sys.stderr.write("\n")
                message, hint = ctx.on_interrupt or ("interrupted", "")
                fail(InterruptedByUser(message, hint=hint), as_json=ctx.json)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                raise typer.Exit(141) from None
            except OSError as error:
                where = f"{error.filename or 'the machine'}: {error.strerror or error}"
                fail(MachineError(where, hint="`hitless doctor` may find the cause"), as_json=ctx.json, debug=ctx.debug)

        parameters = [*(one for one in options_of_its_own if one.name not in fixed), *shared.values()]
        guarded.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        guarded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        last_word = name.rpartition(" ")[2]
        VERBS[name] = CommandInfo(last_word, callback=guarded, epilog=f"Example: {example}", hidden=hidden)
        return function

    return register


def fail(error: HitlessError, *, as_json: bool, debug: bool = False, folder: Path = Path()) -> NoReturn:
    """Show an error and exit with its code; a terminal also gets the line of the file in `folder` at fault."""
    if debug:
        traceback.print_exception(error)
    if as_json:
        sys.stdout.write(json.dumps({"error": error.to_json()}, ensure_ascii=False) + "\n")
    shown = line_at_fault(error, folder) if sys.stderr.isatty() else ""
    say_on_stderr(f"error: {error.message}\n{shown}hint: {error.hint}")
    raise typer.Exit(error.exit_code)


def line_at_fault(error: HitlessError, folder: Path) -> str:
    """The line that the error names, with a mark below its column; empty if it names none."""
    try:
        number, before = error.details["line"], " " * (error.details["column"] - 1)
        text = (folder / error.details["file"]).read_text().splitlines()[number - 1]
    except (KeyError, IndexError, OSError, ValueError):
        return ""
    return f"{number:>6} | {text}\n       | {before}^\n"


def positive(value: float, option: str) -> float:
    """Return the value. Raises UsageError if it is not above zero."""
    if value <= 0:
        raise UsageError(f"{option}: {value} is not above zero", hint=f"pass {option} a number above zero")
    return value
