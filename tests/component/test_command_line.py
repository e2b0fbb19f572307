"""The errors of the command line: `error:` and `hint:` lines, one document with --json, exit codes, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from hitless.api.client import RemoteError
from hitless.cli.common import VERBS, Context, command
from hitless.cli.following import follow
from hitless.cli.following_runs import follow_run
from hitless.cli.main import main
from hitless.cli.remotes import folder_there
from hitless.documents import convert
from hitless.errors import EngineError, EngineNotRunningError, HitlessError
from hitless.homes.home import RolloutNews
from hitless.processes.git_hook import after_the_push

pytestmark = pytest.mark.component

GIT_IS_MISSING = RemoteError({"code": "machine", "message": "git cannot be run", "hint": "install git"})


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (("nosuch",), "no such command 'nosuch'", "`hitless --help`"),
        (("status", "--bogus"), "no such option: --bogus", "`hitless status --help`"),
        (("releases", "abc"), "invalid value for 'release': 'abc' is not a whole number", "`hitless releases --help`"),
        (("drill", "--rate", "abc"), "invalid value for '--rate': 'abc' is not a number", "`hitless drill --help`"),
        (("invoke",), "missing argument", "`hitless invoke --help`"),
        (("status", "--param", "x"), "invalid value for '--param': write NAME=VALUE", "`hitless status --help`"),
        (("aws", "nosuch"), "no such command 'nosuch'", "`hitless aws --help`"),
    ],
)
def test_an_unknown_command_or_option_gives_an_error_and_a_hint(
    words: tuple[str, ...], error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith(f"error: {error}")
    assert second.startswith(f"hint: {hint}")


@pytest.mark.parametrize(
    ("error", "started", "hint"),
    [
        (
            EngineNotRunningError("no engine"),
            None,
            "the push is kept, and its runs start when the engine does: `hitless up`",
        ),
        (
            EngineError("it went away"),
            7,
            "once the engine runs again, `hitless pipeline show 7` tells what became of it",
        ),
        (GIT_IS_MISSING, None, "install git; the push is kept, and its runs start once that is fixed"),
        (GIT_IS_MISSING, 7, "install git; the push is kept, and `hitless pipeline show 7` tells more"),
    ],
)
def test_a_failed_push_hook_says_that_the_pushed_commits_are_kept(
    error: HitlessError, started: int | None, hint: str
) -> None:
    assert after_the_push(error, started).endswith(hint)


def test_with_the_json_option_a_usage_error_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--bogus", "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "usage"
    assert error["message"] == "no such option: --bogus"


@pytest.mark.parametrize("words", [(), ("aws",)])
def test_without_a_command_the_help_is_printed_before_the_error(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: ")
    assert "\nerror: " in err
    assert "\nhint: " in err


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("status", "--help")])
def test_help_and_version_exit_with_0(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 0
    assert capsys.readouterr().err == ""


def test_logs_of_a_release_without_logs_name_the_releases_with_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs" / "dev" / "r3").mkdir(parents=True)
    assert run("logs", "--release", "4", "--data-dir", str(tmp_path)) == 2
    assert capsys.readouterr().err == "error: dev has no logs of release 4\nhint: releases with logs: 3\n"
    assert run("logs", "--data-dir", str(tmp_path)) == 2
    assert "hint: choose one with --release; releases with logs: 3" in capsys.readouterr().err


def test_empty_logs_print_a_message_on_stderr_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs" / "dev" / "r3").mkdir(parents=True)
    assert run("logs", "--release", "3", "--data-dir", str(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "dev r3: no request has come yet\n")


def test_the_hint_outside_a_service_names_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--service-dir", str(tmp_path)) == 5
    assert "hint: " + str(tmp_path) + " has no serverless.yml" in capsys.readouterr().err
    (tmp_path / "serverless.yml").touch()
    assert run("status", "--service-dir", str(tmp_path)) == 5
    assert "hint: start it with `hitless up`" in capsys.readouterr().err


@pytest.mark.parametrize("group", [(), ("pipeline",), ("aws",)])
def test_the_list_of_commands_ends_with_an_example(group: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*group, "--help") == 0
    assert capsys.readouterr().out.splitlines()[-1].strip().startswith("Example: ")


@pytest.mark.parametrize("group", [(), ("pipeline",), ("aws",)])
def test_the_list_of_commands_truncates_no_sentence(group: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*group, "--help") == 0
    cut = [line for line in capsys.readouterr().out.splitlines() if line.endswith("...")]
    assert [line.split()[0] for line in cut if "[ARGS]" not in line] == []


def test_logs_of_an_unknown_stage_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", str(tmp_path / "hello")) == 0
    capsys.readouterr()
    assert run("logs", "--stage", "stagin", "--service-dir", str(tmp_path / "hello")) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert "there is no stage stagin; stages are dev, staging, prod" in error
    assert hint == "hint: did you mean staging?"


def test_a_file_in_the_place_of_the_data_folder_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", str(tmp_path / "hello")) == 0
    capsys.readouterr()
    file = tmp_path / "file"
    file.touch()
    assert run("invoke", "api", "--service-dir", str(tmp_path / "hello"), "--data-dir", str(file)) == 1
    assert capsys.readouterr().err == f"error: {file} is a file\nhint: choose a folder with --data-dir\n"


STEP = {"at": "…", "state": "baking", "weight_percent": 10}


def interrupted(*lines: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the engine streams, and Ctrl-C while the next line is waited for."""
    yield from lines
    raise KeyboardInterrupt


def follow_engine(ctx: Context, lines: Iterator[dict[str, Any]]) -> None:
    follow(ctx, (convert(line, RolloutNews, "a line") for line in lines))


@pytest.mark.parametrize(
    ("follows", "lines", "error", "hint"),
    [
        (
            follow_engine,
            [{"step": STEP, "release": 7}],
            "interrupted: the rollout of release 7 continues in the engine",
            "`hitless abort --stage dev` stops it; `hitless status` shows it",
        ),
        (
            follow_run,
            [{"text": "step test\n", "of": 12}],
            "interrupted: run 12 continues in the engine",
            "`hitless pipeline stop 12` stops it; `hitless pipeline show 12` shows it",
        ),
        (
            follow_engine,
            [],
            "interrupted",
            "work that the engine or AWS has started continues: `hitless status` shows it",
        ),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_says_which_rollout_continues_and_how_to_stop_it(
    follows: Any, lines: list[dict[str, Any]], error: str, hint: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)

    @command("ship", example="hitless ship")
    def ship(ctx: Context) -> None:
        follows(ctx, interrupted(*lines))

    app.registered_commands.append(VERBS.pop("ship"))
    with pytest.raises(SystemExit) as end:
        app(args=["ship", *["--json"] * as_json])
    out, err = capsys.readouterr()
    assert end.value.code == 130
    assert err.endswith(f"\nerror: {error}\nhint: {hint}\n")
    assert not as_json or json.loads(out)["error"] == {
        "code": "interrupted",
        "message": error,
        "hint": hint,
        "details": {},
    }


def test_ctrl_c_reaches_a_background_job_of_a_shell() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run("nosuch") == 2
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("text", "there"), [("service: users", "users"), ("service: ../..", "api"), ("a: [", "api")])
def test_the_copy_of_a_folder_on_a_host_has_the_name_of_its_service(tmp_path: Path, text: str, there: str) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "serverless.yml").write_text(text)
    assert folder_there(tmp_path / "api") == there


def test_the_program_ends_with_its_exit_code_and_all_output_after_its_exit_handlers() -> None:
    script = "from hitless.cli.program import run; import atexit; atexit.register(print, 'handled'); run()"
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", script, "no-such-verb"]
    done = subprocess.run(command, env=buffered, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "handled\n"), done.stderr
    assert "no such command 'no-such-verb'" in done.stderr
