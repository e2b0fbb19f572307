"""The plain commands work at the stage's home: the engine, or AWS (which cannot be reached in these tests)."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hitless.cli.main import main
from hitless.cli.settings import EngineSettings
from hitless.homes.folder import build_document
from hitless.homes.home import CLASSES, Workplace
from hitless.service.load import load_service
from hitless.service.model import Home
from hitless.store.store import Store
from tests.component.drill_faulty_server import FaultyServer
from tests.component.fake_home import HOME
from tests.fakes import release_document
from tests.support import free_port

pytestmark = pytest.mark.component

FILE = """\
service: clock
provider: {name: aws, runtime: python3.11}
functions: {api: {handler: app.handler, events: [{http: GET /time}]}}
custom: {hitless: {stages: {dev: {}, prod: {home: aws}}}}
"""
UNREACHABLE = "AWS cannot be reached"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service with stages at both homes; no engine runs, and nothing listens at AWS's address."""
    (tmp_path / "app.py").write_text("def handler(event, context): ...\n")
    (tmp_path / "serverless.yml").write_text(FILE)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def run(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """Exit code, document, and standard error."""
    with pytest.raises(SystemExit) as end:
        main([*words, "--service-dir", str(folder), "--json"])
    assert isinstance(end.value.code, int)
    said = capsys.readouterr()
    return end.value.code, json.loads(said.out), said.err


@pytest.mark.parametrize(
    "words",
    [
        ("deploy",),
        ("rollback",),
        ("abort",),
        ("logs",),
        ("releases",),
        ("releases", "3"),
        ("drill", "--releases", "1"),
    ],
)
def test_a_command_works_at_the_stages_home(
    words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document, _ = run(folder, capsys, *words, "--stage", "prod")
    assert (code, document["error"]["code"]) == (1, "machine")
    assert document["error"]["message"].startswith(UNREACHABLE)
    assert not (folder / ".hitless").exists(), "nothing was begun"
    if words == ("logs",):
        return  # the engine's are files: they need no engine, and there are none yet
    code, document, _ = run(folder, capsys, *words, "--stage", "dev")
    assert (code, document["error"]["code"]) == (5, "engine_not_running")


def test_only_a_stage_on_aws_leaves_values_of_aws_to_osls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provider = "provider: {name: aws, runtime: python3.11, environment: {KEY: '${ssm:/clock/key}'}}"
    text = FILE.replace("provider: {name: aws, runtime: python3.11}", provider)
    (folder / "serverless.yml").write_text(text)
    for words in (("deploy", "--stage", "prod"), ("rollback", "--stage", "prod"), ("deploy", "--home", "aws")):
        code, document, _ = run(folder, capsys, *words)
        assert (code, UNREACHABLE in document["error"]["message"]) == (1, True), words
    code, document, _ = run(folder, capsys, "deploy")
    assert (code, "${ssm:/clock/key} cannot be resolved here" in document["error"]["message"]) == (2, True)
    code, document, _ = run(folder, capsys, "deploy", "--param", "ssm:/clock/key=mine")
    assert (code, document["error"]["code"]) == (5, "engine_not_running")


@pytest.mark.parametrize(
    "words",
    [("deploy",), ("rollback",), ("abort",), ("logs",), ("releases",), ("status",), ("drill", "--releases", "1")],
)
def test_the_home_option_overrides_the_stages_home(
    words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document, _ = run(folder, capsys, *words, "--stage", "dev", "--home", "aws")
    assert (code, document["error"]["message"].startswith(UNREACHABLE)) == (1, True)
    if words == ("logs",):
        return
    code, document, _ = run(folder, capsys, *words, "--stage", "prod", "--home", "engine")
    assert (code, document["error"]["code"]) == (5, "engine_not_running")


@pytest.mark.parametrize(
    "words",
    [("deploy",), ("rollback",), ("abort",), ("logs",), ("releases",), ("status",), ("promote", "dev", "prod")],
)
def test_the_older_command_names_work_on_aws_and_are_hidden(
    words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document, _ = run(folder, capsys, "aws", *words, "--stage", "dev")
    assert (code, document["error"]["message"].startswith(UNREACHABLE)) == (1, True)
    with pytest.raises(SystemExit):
        main(["aws", "--help"])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert {"plan", "bootstrap", "adopt", "repair", "destroy"} <= set(listed)
    assert words[0] not in listed


def test_promote_with_home_aws_needs_no_engine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, _ = run(folder, capsys, "promote", "dev", "prod", "--home", "aws")
    assert (code, document["error"]["message"].startswith(UNREACHABLE)) == (1, True)


@pytest.mark.parametrize("why", [UNREACHABLE, "no AWS credentials were found"])
def test_status_shows_an_error_for_a_stage_on_aws_that_cannot_be_reached(
    why: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if why != UNREACHABLE:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, "/dev/null")
    code, document, said = run(folder, capsys, "status")
    assert (code, document["service"], document["engine"]) == (0, "clock", None)
    (prod,) = document["stages"]
    assert (prod["stage"], prod["home"], prod["url"], prod["live"], prod["functions"]) == (
        "prod",
        "aws",
        None,
        None,
        [],
    )
    assert prod["error"].startswith(why)
    assert f"warning: prod on AWS: {why}" in said
    assert "no engine is running" in said


def test_the_engine_opens_no_address_for_a_stage_on_aws(folder: Path) -> None:
    (folder / "serverless.yml").write_text(FILE.replace("prod: {home: aws}", "prod: {home: aws}, staging: {}"))
    service = load_service(folder, stage="dev", environ={})
    taken = [(one.stage, one.port, one.movable) for one in EngineSettings.of(service).addresses]
    assert taken == [("dev", 8080, False), ("staging", 8082, True)]


def test_releases_and_events_are_read_from_the_state_file_if_no_engine_runs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run(folder, capsys, "releases")
    assert (code, "no engine is running" in said) == (5, True), "there is no state file yet"
    (folder / ".hitless").mkdir()
    with closing(Store(folder / ".hitless" / "state.sqlite")) as store:
        store.add_release("dev", release_document(message="first"), "2026-11-24T06:00:00.000Z")
        store.add_event("release 1 is live", "dev", "2026-11-24T06:00:01.000Z")
    code, listed, _ = run(folder, capsys, "releases")
    assert (code, [(one["release"], one["message"]) for one in listed]) == (0, [(1, "first")])
    code, one, _ = run(folder, capsys, "releases", "1")
    assert (code, one["release"]) == (0, 1)
    code, events, _ = run(folder, capsys, "events")
    assert (code, [event["sentence"] for event in events]) == (0, ["release 1 is live"])
    assert run(folder, capsys, "releases", "9")[0] == 2
    assert run(folder, capsys, "events", "--follow")[0] == 5, "nothing more can come"


def test_status_needs_an_engine_if_no_stage_is_on_aws(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "serverless.yml").write_text(FILE.replace("home: aws", ""))
    code, document, _ = run(folder, capsys, "status")
    assert (code, document["error"]["code"]) == (5, "engine_not_running")


def test_only_a_promotion_from_aws_to_aws_works_without_an_engine(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "serverless.yml").write_text(FILE.replace("dev: {}", "dev: {}, staging: {home: aws}"))
    code, document, _ = run(folder, capsys, "promote", "staging", "prod")
    assert (code, document["error"]["message"].startswith(UNREACHABLE)) == (1, True)
    for words in (("dev", "prod"), ("prod", "dev")):
        code, document, _ = run(folder, capsys, "promote", *words)
        assert (code, document["error"]["code"]) == (5, "engine_not_running"), words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up",), "the home of stage prod is AWS, not this machine's engine"),
        (("deploy", "--no-wait"), "--no-wait: only this command brings a release on AWS to its end"),
        (("drill", "--faults", "kill-worker"), "the home of stage prod is AWS, where no process can be killed"),
        (("deploy", "--home", "engine", "--compare"), "--compare is for a dry run on AWS"),
        (("logs", "--home", "engine", "--minutes", "5"), "--minutes is for a stage on AWS"),
        (("logs", "--access"), "the home of prod is AWS"),
        (("promote", "dev", "prod", "--home", "engine"), "the home of stage prod is AWS"),
        (("promote", "dev", "prod", "--strategy", "AllAtOnce"), "--strategy is for a promotion from AWS to AWS"),
        (("aws", "promote", "prod", "prod"), "prod cannot be promoted to itself"),
        (("aws", "promote", "dev", "prod", "--from-profile", "nobody"), "profile (nobody) could not be found"),
    ],
)
def test_an_option_of_the_other_home_is_refused(
    words: tuple[str, ...], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document, _ = run(folder, capsys, *words, "--stage", "prod")
    assert code == 2
    assert said in document["error"]["message"]
    assert document["error"]["hint"]
    assert not (folder / ".hitless").exists(), "nothing was begun"


def test_a_drill_finds_a_stages_url_on_aws_and_rarely_requests_its_status(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLASSES, Home.AWS, "tests.component.fake_home:home")
    monkeypatch.setattr(HOME, "asked", 0)
    words = ("drill", "--stage", "prod", "--releases", "0", "--rate", "100", "--duration", "1")
    monkeypatch.setattr(HOME, "url", None)
    code, document, _ = run(folder, capsys, *words)
    assert (code, document["error"]["message"]) == (1, "stage prod has no URL yet")
    with FaultyServer() as server:
        monkeypatch.setattr(HOME, "url", f"http://127.0.0.1:{server.port}")
        code, document, said = run(folder, capsys, *words, "--report", str(folder / "drill.html"))
    assert code == 0, said
    assert (document["target"], document["requests"], document["failed"]) == (HOME.url, 100, 0)
    assert HOME.asked < 5, "its status costs calls to AWS: it is asked before, and not ten times a second"


def test_a_second_rollback_says_that_it_undoes_the_first(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLASSES, Home.AWS, "tests.component.fake_home:home")
    monkeypatch.setattr(HOME, "shipped", [1, 2])
    said = [run(folder, capsys, "rollback", *words, "--stage", "prod")[2] for words in ((), (), ("1",))]
    assert ["its configuration is back" in one for one in said] == [True, True, True]
    assert ["this undid the rollback to release 1" in one for one in said] == [False, True, False]


def test_a_dry_run_names_changed_settings_by_key_and_no_value_of_the_environment(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "app.py").write_text("def handler(event, context):\n    return {'statusCode': 200}\n")
    code, first, _ = run(folder, capsys, "deploy", "--dry-run")
    assert (code, first["functions"], first["configuration"]) == (0, [{"name": "api", "action": "add"}], [])
    said: list[str] = []
    place = Workplace(stage="dev", service_dir=folder, data_dir=folder / ".hitless", say=said.append)
    live = build_document(place, load_service(folder, stage="dev", environ={}))
    with closing(Store(folder / ".hitless" / "state.sqlite")) as store:
        number = store.add_release("dev", live, "2026-11-30T06:00:00Z")
        store.set_live("dev", number, "2026-11-30T06:00:01Z")
    changed = FILE.replace("handler: app.handler", "handler: app.handler, memorySize: 256, environment: {KEY: s3cret}")
    (folder / "serverless.yml").write_text(changed)
    code, document, _ = run(folder, capsys, "deploy", "--dry-run")
    assert (code, document["functions"]) == (0, [{"name": "api", "action": "keep"}])
    assert document["configuration"] == [
        "functions.api.memory_mb: 1024 → 256",
        "functions.api.environment.KEY: added",
    ]


def test_doctor_checks_osls_and_no_port_for_a_stage_on_aws(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HITLESS_OSLS", "/nowhere/osls")
    checks = {one["check"]: one for one in run(folder, capsys, "doctor")[1]["checks"]}
    assert checks["osls and its Node"]["well"] is False
    assert "/nowhere/osls" in checks["osls and its Node"]["found"]
    assert {name for name in checks if name.startswith("port")} == {"port of dev"}
