"""`hitless drill` refuses wrong options before it sends or ships anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hitless.cli.main import build
from tests.component.drill_faulty_server import FaultyServer

pytestmark = pytest.mark.component

PLAIN = Path(__file__).parents[1] / "services" / "plain"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PLAIN, tmp_path / "plain"))


def drill(folder: Path, *words: str) -> Result:
    """Run the command in this process, with --json."""
    return CliRunner().invoke(build(("init", "drill")), ["drill", *words, "--json", "--service-dir", str(folder)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rate", "0"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (("--rate", "200000"), "--rate"),
        (("--duration", "90000"), "--duration"),
        (("--new-connections", "101"), "--new-connections"),
        (("--scenarios", "good,bad"), "bad"),
        (("--scenarios", "good,,good"), "empty name"),
        (("--faults", "bad"), "bad"),
        (("--requests", "/not/there"), "/not/there"),
        (("--stage", "prod", "--scenarios", "import-crash"), "prod"),
        (("--target", "here"), "--target"),
        (("--profile", "step:50:3000"), "--profile step:50:3000"),
        (("--profile", "ramp:50:3000", "--rate", "50"), "--rate and --profile"),
        (("--profile", "ramp:50:3000", "--duration", "nan"), "--duration"),
        (("--stage", "prod", "--scenarios", "canary,exits"), "exits"),
    ],
)
def test_invalid_options_exit_with_2(folder: Path, words: tuple[str, ...], message: str) -> None:
    ran = drill(folder, *words)
    error = json.loads(ran.stdout)["error"]
    assert ran.exit_code == 2
    assert message in error["message"]
    assert error["hint"]
    assert ran.stderr.startswith("error: ")


def test_a_drill_without_an_engine_exits_with_5(folder: Path) -> None:
    ran = drill(folder, "--duration", "1")
    assert ran.exit_code == 5
    assert json.loads(ran.stdout)["error"]["code"] == "engine_not_running"


def test_a_target_needs_neither_a_service_nor_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with FaultyServer() as server:
        ran = drill(tmp_path, "--target", f"http://127.0.0.1:{server.port}", "--rate", "100", "--duration", "1")
    document = json.loads(ran.stdout)
    assert ran.exit_code == 0, ran.stderr
    assert (document["requests"], document["failed"], document["releases"]) == (100, 0, [])
    assert (document["profile"], document["arrivals"], document["protocol"]) == (None, "even", "h1")
    assert document["report"] == str(tmp_path / "drill.html")
    assert (tmp_path / "drill.html").is_file()


def test_a_drill_sends_load_by_the_given_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with FaultyServer() as server:
        target = ("--target", f"http://127.0.0.1:{server.port}", "--duration", "2")
        ran = drill(tmp_path, *target, "--profile", "step:20:100@1", "--arrivals", "poisson")
        seen = server.seen["/"]
    document = json.loads(ran.stdout)
    assert (document["requests"], document["failed"], seen) == (120, 0, 121), "the probe's is one more"
    assert (document["profile"], document["arrivals"]) == ("step:20:100@1", "poisson")
    assert document["rate_asked_per_s"] == 60
    assert document["duration_s"] == 2.0
    assert (
        "step:20:100@1, 60 requests a second on average, arriving at random for 2 s"
        in Path(document["report"]).read_text()
    )
