"""A stage whose home is AWS is refused by the verbs of this machine's engine, and the verb that serves it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hitless.cli.main import main

pytestmark = pytest.mark.component

FILE = """\
service: clock
provider: {name: aws, runtime: python3.11}
functions: {api: {handler: app.handler, events: [{http: GET /time}]}}
custom: {hitless: {stages: {dev: {}, prod: {home: aws}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text("def handler(event, context): ...\n")
    (tmp_path / "serverless.yml").write_text(FILE)
    return tmp_path


def run(folder: Path, *words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main([*words, "--service-dir", str(folder), "--json"])
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("verb", "named"),
    [
        ("deploy", "deploy"),
        ("up", "deploy"),
        ("rollback", "rollback"),
        ("abort", "abort"),
        ("logs", "logs"),
        ("releases", "releases"),
    ],
)
def test_the_verb_on_aws_is_named(folder: Path, verb: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, verb, "--stage", "prod") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == "serverless.yml: the home of stage prod is AWS, not this machine's engine"
    assert f"`hitless aws {named} --stage prod`" in error["hint"]
    assert not (folder / ".hitless").exists(), "nothing was begun"


def test_a_stage_at_home_here_is_not_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "rollback") == 5
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "engine_not_running"
