"""Text of builds, handlers and commits reaches a terminal without control characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from hitless.cli.common import Context, fail, line_at_fault, say_on_stderr
from hitless.cli.following_runs import follow_run
from hitless.errors import UsageError
from hitless.pipeline.buildspec.output import visible
from hitless.processes import git_hook

pytestmark = pytest.mark.unit

EVIL = "a\tb\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u202ec\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (EVIL, "a\tb�]0;title��31m��c\n"),
        ("10 %\r20 %\r\ndone\r\n", "10 %\n20 %\ndone\n"),
        ("\x1b[1;31mFAILED\x1b[0m tests", "FAILED tests"),
        ("\x1b\x1b[31m[2J", "�[2J"),
        ("Zürich 東京 שלום", "Zürich 東京 שלום"),
    ],
)
def test_escaping_keeps_tabs_newlines_and_every_language(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_no_output_has_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    people, programs = (
        Context(json=one, stage="dev", service_dir=Path(), data_dir=Path(), say=say_on_stderr, yes=False, debug=False)
        for one in (False, True)
    )
    people.say(EVIL)
    people.show({}, lambda: EVIL)
    programs.show({"said": EVIL}, lambda: "")
    follow_run(people, iter([{"text": EVIL}]))
    git_hook._say(EVIL)
    with pytest.raises(typer.Exit):
        fail(UsageError(EVIL, hint=EVIL), as_json=False)
    out, err = capsys.readouterr()
    assert out.count("title") == 3
    assert err.count("title") == 4
    assert not [one for one in out + err if one not in "\n\t" and not one.isprintable()]
    assert json.loads(out.splitlines()[1])["said"].startswith("a\tb\x1b[2J"), "JSON escapes them itself"


def test_a_terminal_gets_the_line_of_the_file_at_fault_with_a_mark_below_its_column(tmp_path: Path) -> None:
    (tmp_path / "serverless.yml").write_text("service: s\nfunctions: {api: {handlr: a.b}}\n")
    place = {"file": "serverless.yml", "line": 2, "column": 19, "path": "functions.api.handlr"}
    assert line_at_fault(UsageError("x", details=place), tmp_path).splitlines() == [
        "     2 | functions: {api: {handlr: a.b}}",
        "       |                   ^",
    ]
    for details in ({}, place | {"line": 9}, place | {"file": "gone.yml"}):
        assert line_at_fault(UsageError("x", details=details), tmp_path) == ""
