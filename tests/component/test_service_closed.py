"""The engine refuses routes that API Gateway would protect, and services without a route."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from hitless.cli.invoke import hint_for
from hitless.cli.main import main
from hitless.errors import ServiceFileError
from hitless.pipeline.packaging import PackageOrder, package_in_process
from hitless.pipeline.runs import StepFailed
from hitless.service.closed import check_served
from hitless.service.functions import PYTHON_HERE
from hitless.service.load import load_service
from tests.component.service_folder import API, HEAD, fault, folder, load

__all__ = ["folder"]

pytestmark = pytest.mark.component

GUARDED = """
functions:
  api:
    handler: handlers.api
    events:
      - http: GET /free
      - http: {{method: get, path: admin, {guard}}}
      - http: {{method: any, path: 'users/{{id}}', {guard}}}
custom:
  hitless:
    stages: {{dev: {{}}, prod: {{home: aws}}}}
    open: [{opened}]
"""


def written(guard: str, opened: str = "") -> str:
    return HEAD + GUARDED.format(guard=guard, opened=opened)


def refusal(folder: Path, text: str) -> ServiceFileError:
    service = load(folder, text)
    with pytest.raises(ServiceFileError) as caught:
        check_served(service)
    return caught.value


@pytest.mark.parametrize(
    "guard",
    [
        "authorizer: asks",
        "authorizer: aws_iam",
        "authorizer: 'arn:aws:lambda:eu-central-1:123456789012:function:asks'",
        "authorizer: {name: asks, type: request}",
        "authorizer: {arn: 'arn:aws:cognito-idp:eu-central-1:123456789012:userpool/x', claims: [a]}",
        "authorizer: {type: COGNITO_USER_POOLS, authorizerId: !Ref Pool}",
        "authorizer: '${ssm:/authorizer}'",
        "private: true",
        "private: 'true'",
        "private: '${ssm:/closed}'",
    ],
)
def test_a_protected_route_is_refused_with_the_lines_that_would_open_it(folder: Path, guard: str) -> None:
    error = refusal(folder, written(guard))
    key = guard.partition(":")[0]
    need = {"authorizer": "an authorizer", "private": "an API key"}[key]
    where = f"serverless.yml:9: functions.api.events[1].http.{key}: "
    assert error.message.startswith(f"{where}GET /admin (and 1 more) needs {need}, which the engine does not enforce")
    assert error.hint.endswith("custom:\n  hitless:\n    open:\n      - 'GET /admin'\n      - 'ANY /users/{id}'")
    assert (error.exit_code, error.details["line"]) == (2, 9)


@pytest.mark.parametrize("guard", ["private: false", "authorizer: ''", "authorizer: null"])
def test_a_protection_that_is_switched_off_protects_nothing(folder: Path, guard: str) -> None:
    check_served(load(folder, written(guard)))


def test_only_explicitly_opened_protected_routes_are_served(folder: Path) -> None:
    error = refusal(folder, written("private: true", "get /admin/"))
    assert error.message.startswith("serverless.yml:10: functions.api.events[2].http.private: ANY /users/{id} needs")
    assert error.hint.endswith("    open:\n      - 'GET /admin'\n      - 'ANY /users/{id}'")
    service = load(folder, written("private: true", "GET /admin, 'ANY /users/{id}'"))
    check_served(service)
    assert any("http.private: " in notice and "custom.hitless.open" in notice for notice in service.notices)


def test_opening_an_unknown_route_is_an_error_and_opening_an_open_one_is_a_notice(folder: Path) -> None:
    with pytest.raises(ServiceFileError, match=r"yml:14: custom.hitless.open\[0\]: no function has") as caught:
        load(folder, written("private: true", "'GET /users/{id}'"))
    assert caught.value.hint == "did you mean ANY /users/{id}?"
    notices = load(folder, written("private: true", "GET /free")).notices
    assert any(
        notice.startswith("serverless.yml:14: custom.hitless.open[0]: GET /free needs no authorizer")
        for notice in notices
    )


@pytest.mark.parametrize(
    "policy",
    [
        "provider: {name: aws, runtime: python3.11, apiGateway: {resourcePolicy: [{Effect: Deny}]}}\n",
        "provider: {name: aws, runtime: python3.11, resourcePolicy: [{Effect: Deny}]}\n",
    ],
)
def test_a_resource_policy_protects_every_route(folder: Path, policy: str) -> None:
    text = written("private: false").replace(HEAD, "service: demo\n" + policy)
    error = refusal(folder, text)
    assert "GET /free (and 2 more) is under a resource policy" in error.message
    opened = text.replace("open: []", "open: [GET /free, GET /admin, 'ANY /users/{id}']")
    check_served(load(folder, opened))


def test_an_empty_resource_policy_protects_nothing(folder: Path) -> None:
    policy = "provider: {name: aws, runtime: python3.11, apiGateway: {resourcePolicy: []}}\n"
    check_served(load(folder, written("private: false").replace(HEAD, "service: demo\n" + policy)))


@pytest.mark.parametrize(
    ("function", "have"),
    [
        ("events: [sqs: {arn: x}, schedule: rate(1 hour), schedule: rate(2 hours)]", "have only sqs"),
        ("events: [websocket: $connect, alexaSkill]", "have only websocket, alexaSkill"),
        ("url: true\n  other:\n    handler: handlers.api\n    url: true", "have only url"),
        ("timeout: 3", "have none of them"),
        ("events: [schedule: rate(1 hour)]", "have none of them"),
    ],
)
def test_a_service_without_routes_is_refused(folder: Path, function: str, have: str) -> None:
    error = refusal(folder, f"{HEAD}functions:\n  api:\n    handler: handlers.api\n    {function}\n")
    assert error.message.startswith("serverless.yml:3: functions: the engine would serve nothing: ")
    assert error.message.endswith(f"it serves http and httpApi events or one function URL, and the functions {have}")


def test_another_python_than_the_declared_one_is_refused_only_on_request(folder: Path) -> None:
    other = next(one for one in ("python3.13", "python3.12") if one != PYTHON_HERE)
    text = re.sub(r"python3\.\d+", other, HEAD) + API
    load(folder, text + "custom: {hitless: {exact_runtime: false}}\n")
    check_served(load(folder, text))
    error = refusal(folder, text + "custom: {hitless: {exact_runtime: true}}\n")
    assert f"provider.runtime: {other} is declared, this engine's Python is {PYTHON_HERE}" in error.message
    assert ":2: " in error.message, "the line of the declaration"
    check_served(
        load(folder, HEAD.replace("python3.11", PYTHON_HERE) + API + "custom: {hitless: {exact_runtime: true}}\n")
    )
    check_served(load(folder, text + "custom: {hitless: {exact_runtime: true, stages: {dev: {home: aws}}}}\n"))


def test_protected_routes_are_not_refused_for_a_stage_on_aws(folder: Path) -> None:
    (folder / "serverless.yml").write_text(written("private: true"))
    check_served(load_service(folder, stage="prod", environ={}))


@pytest.mark.parametrize(
    "words",
    [
        ("up", "--detach"),
        ("deploy", "--dry-run"),
        ("promote", "prod", "dev"),
        ("rehearse", "--against", "."),
    ],
)
def test_the_engines_commands_refuse_protected_routes_before_they_begin(
    folder: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "serverless.yml").write_text(written("private: true"))
    with pytest.raises(SystemExit) as end:
        main(words)
    told = "".join(capsys.readouterr())
    assert end.value.code == 2
    assert "serverless.yml:9: functions.api.events[1].http.private: GET /admin" in told
    assert "      - 'GET /admin'" in told
    assert not (folder / ".hitless" / "artifacts").exists()


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD}functions:\n  api:\n    handler: handlers.api\n    events: [schedule: rate(1 hour)]\n",
        written("private: true"),
    ],
)
def test_invoke_runs_a_function_of_a_service_that_the_engine_does_not_serve(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "serverless.yml").write_text(text)
    (folder / "handlers.py").write_text("def api(event, context):\n    return {'got': event}\n")
    with pytest.raises(SystemExit) as end:
        main(("invoke", "api", "--json"))
    told = capsys.readouterr()
    assert (end.value.code, json.loads(told.out)) == (0, {"got": {}}), told.err


@pytest.mark.parametrize(
    "error", ["OperationalError: unable to open database file", "OSError: [Errno 30] Read-only file system: 'x'"]
)
def test_invoke_says_where_a_handler_may_write(error: str) -> None:
    assert "HITLESS_HANDLER_PATHS" in hint_for(error, routed=False)
    assert "HITLESS_HANDLER_PATHS" not in hint_for("KeyError: 'id'", routed=True)


def test_a_pipeline_run_refuses_protected_routes_and_its_log_has_the_lines_to_open_them(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "serverless.yml").write_text(written("private: true"))
    order = PackageOrder(folder, "", "dev", "c0ffee", None, None)
    with pytest.raises(StepFailed, match=r"http.private: GET /admin \(and 1 more\)") as failed:
        asyncio.run(package_in_process(tmp_path / "artifacts", order, log=tmp_path / "log"))
    assert failed.value.exit_code == 2
    assert "      - 'GET /admin'" in (tmp_path / "log").read_text()
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("key", ["authorizer", "private"])
def test_a_protection_with_an_unknown_value_counts_as_on(folder: Path, key: str) -> None:
    event = f"{{path: /, method: get, {key}: '${{env:NONE}}'}}"
    service = load(folder, HEAD + API.replace("GET /", event))
    with pytest.raises(ServiceFileError, match="which the engine does not enforce"):
        check_served(service)


@pytest.mark.parametrize("reference", ["${file(none.yml)}", "${ssm:/api}"])
def test_settings_that_may_contain_a_resource_policy_must_be_known(folder: Path, reference: str) -> None:
    head = HEAD.replace("name: aws", f"name: aws, apiGateway: '{reference}'")
    assert fault(folder, head + API).message.startswith("serverless.yml:2: provider.apiGateway: ")
    api = API.replace("http: GET /", f"'{reference}'")
    assert fault(folder, HEAD + api).message.startswith("serverless.yml:3: functions.api.events[0]: ")
