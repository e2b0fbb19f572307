"""The folder of the service's file: handlers, other files, links, limits."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hitless.errors import ServiceFileError
from hitless.service.load import load_service
from tests.component.service_folder import API, HEAD, fault, folder, load

__all__ = ["folder"]


pytestmark = pytest.mark.component


# -- handlers


@pytest.mark.parametrize(
    ("source", "attribute"),
    [
        ("def f(e, c): ...", "f"),
        ("class F: ...", "F"),
        ("f = lambda e, c: 1", "f"),
        ("f: object = 1", "f"),
        ("a, (f, *b) = 1, (2, 3)", "f"),
        ("from x import f", "f"),
        ("import y as f", "f"),
        ("import f.g", "f"),
        ("from x import *", "f"),
        ("try:\n  import f\nexcept ImportError:\n  f = None", "f"),
        ("try:\n  import g\nexcept ImportError:\n  f = None", "f"),
        ("if True:\n  def f(e, c): ...", "f"),
        ("with open('x') as f: ...", "f"),
        ("for f in (): ...", "f"),
        ("match 1:\n  case 1:\n    f = 1", "f"),
        ("if (f := 1): ...", "f"),
        ("globals()['f'] = 1", "f"),
        ("def __getattr__(name): ...", "f"),
        ("def make():\n  global f\n  f = 1\nmake()", "f"),
        ("@wrap\nasync def f(e, c): ...", "f"),
        ("async def f(e, c): ...\ndef f(e, c): ...", "f"),
    ],
)
def test_a_handler_is_found_in_every_form_of_definition(folder: Path, source: str, attribute: str) -> None:
    (folder / "m.py").write_text(source)
    assert (
        load(folder, HEAD + f"functions: {{api: {{handler: m.{attribute}}}}}").functions[0].handler == f"m.{attribute}"
    )


@pytest.mark.parametrize("handler", ["src/api.main", "src.api.main", "pack.main", "src/pack-2/x.main"])
def test_handlers_are_found_in_folders_and_packages(folder: Path, handler: str) -> None:
    for name in ("src/api.py", "pack/__init__.py", "src/pack-2/x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("def main(e, c): ...")
    assert load(folder, HEAD + f"functions: {{api: {{handler: {handler}}}}}").functions[0].handler == handler


@pytest.mark.parametrize(
    ("handler", "message", "hint"),
    [
        ("handlers.apy", "handlers.py does not define apy", "did you mean api?"),
        ("handlers.zzz", "handlers.py does not define zzz", "define zzz in handlers.py"),
        ("handler.api", "there is no handler.py in the service's folder", "did you mean handlers.py?"),
        ("src/none.api", "there is no src/none.py", ""),
        ("handlers", "'handlers' is not a handler", "path/to/module.function"),
        ("handlers.", "is not a handler", ""),
        ("./handlers.api", "is not a handler", ""),
        ("../x/handlers.api", "is not a handler", ""),
        ("/etc/handlers.api", "is not a handler", ""),
        ("handlers.api()", "is not a handler", ""),
        ("broken.api", "broken.py:2: syntax error", "fix broken.py"),
        ("inner.api", "inner.py does not define api", ""),
        ("coroutine.api", "coroutine.py defines api as async", ""),
        ("nul.api", "nul.py", ""),
    ],
)
def test_a_missing_handler_is_an_error(folder: Path, handler: str, message: str, hint: str) -> None:
    (folder / "broken.py").write_text("def api(): ...\ndef (:\n")
    (folder / "inner.py").write_text("class A:\n  def api(self): ...\ndef b():\n  api = 1\n")
    (folder / "coroutine.py").write_text("async def api(e, c): ...\n")
    (folder / "nul.py").write_bytes(b"def api(): ...\0")
    error = fault(folder, HEAD + f"functions: {{api: {{handler: {handler}}}}}")
    assert error.message.startswith("serverless.yml:3: functions.api.handler: ")
    assert message in error.message
    assert hint in error.hint


def test_a_handler_that_links_outside_the_service_is_an_error(folder: Path) -> None:
    (folder.parent / "outside.py").write_text("def api(e, c): ...")
    (folder / "inside.py").symlink_to(folder.parent / "outside.py")
    assert "link out of the service's folder" in fault(folder, HEAD + "functions: {a: {handler: inside.api}}").message


# -- files


def test_files_within_the_repository_are_read(folder: Path) -> None:
    (folder.parent / ".git").mkdir()
    (folder.parent / "shared.json").write_text('{"timeout": 9, "deep": {"x": [1, "two"]}}')
    (folder / "env.yml").write_text("dev: {LEVEL: debug}\n")
    (folder / "motto.txt").write_text("so be it")
    environment = "environment: '${file(./env.yml):${sls:stage}}'"
    text = HEAD + API.replace("handler:", f"timeout: '${{file(../shared.json):timeout}}', {environment}, handler:")
    text += "custom: {motto: '${file(motto.txt)}', two: '${file(../shared.json):deep.x.1}'}\n"
    (function,) = load(folder, text).functions
    assert (function.timeout_s, function.environment) == (9, (("LEVEL", "debug"),))


def test_a_whole_section_may_be_in_another_file(folder: Path) -> None:
    (folder / "functions.yml").write_text("api:\n  handler: handlers.api\n  timeout: soon\n")
    error = fault(folder, HEAD + "functions: ${file(functions.yml)}\n")
    assert error.message == (
        "serverless.yml:3: functions.api.timeout: must be a whole number from 1 to 900, not a string"
        " (written in functions.yml:3)"
    )


@pytest.mark.parametrize(
    ("sample", "written"),
    [
        ("secrets.example.json", "secrets.json"),
        ("config.yml.dist", "config.yml"),
        ("stages-sample", "stages/common.yml"),
    ],
)
def test_the_hint_for_a_missing_file_names_a_sample_beside_it(folder: Path, sample: str, written: str) -> None:
    (folder / sample).touch()
    error = fault(folder, HEAD + API.replace("handler:", f"environment: {{x: '${{file({written}):x}}'}}, handler:"))
    assert f"copy {sample} to {written.partition('/')[0]} and fill it in" in error.hint


def test_the_hint_for_a_missing_variable_says_how_to_use_a_dotenv_file(folder: Path) -> None:
    text = HEAD + API.replace("handler:", "environment: {x: '${env:KEY}'}, handler:")
    assert fault(folder, text).hint.startswith("set KEY in the environment, or")
    (folder / ".env.example").touch()
    assert "in .env (copy .env.example to .env and fill it in), or" in fault(folder, "useDotenv: true\n" + text).hint
    (folder / ".env").touch()
    assert fault(folder, text).hint.startswith("set KEY in the environment (.env is read with useDotenv: true)")
    assert "set KEY in the environment or in .env, or" in fault(folder, "useDotenv: true\n" + text).hint


def test_one_error_names_all_variables_without_a_value(folder: Path) -> None:
    variables = "{a: '${env:A}', b: '${ssm:/b}', c: x, d: '${env:D}'}"
    error = fault(folder, HEAD + API.replace("handler:", f"environment: {variables}, handler:"))
    assert error.message.endswith("environment.a: ${env:A} has no value; the same applies to b, d")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("/etc/hostname", "is an absolute path"),
        ("~/x.yml", "is an absolute path"),
        ("../secret.yml", "is outside"),
        ("../../../../../../etc/hostname", "is outside"),
        ("link.yml", "is outside"),
        ("down/../../secret.yml", "is outside"),
        ("down", "is not a regular file"),
        ("pipe.yml", "is not a regular file"),
        ("large.yml", "is larger than"),
        ("bad.json", "is not JSON: Expecting"),
        ("latin.txt", "is not UTF-8"),
        ("bad.yml", "bad.yml:2: is not YAML"),
        ("none.yml", "has no value: there is no file none.yml"),
    ],
)
def test_the_error_for_an_unreadable_file_names_the_line_that_uses_it(folder: Path, written: str, message: str) -> None:
    (folder.parent / "secret.yml").write_text("x: s3cret")
    (folder / "link.yml").symlink_to(folder.parent / "secret.yml")
    (folder / "down").mkdir()
    os.mkfifo(folder / "pipe.yml")
    (folder / "large.yml").write_text("x: " + "y" * 1024 * 1024)
    (folder / "bad.json").write_text("{x}")
    (folder / "latin.txt").write_bytes(b"\xe4")
    (folder / "bad.yml").write_text("x: 1\n\ty: 2\n")
    assert load(folder, HEAD + API + f"resources:\n  x: ${{file({written}):x}}\n").notices[-1].endswith("reads it")
    error = fault(folder, HEAD + API.replace("handler:", f"environment: {{x: '${{file({written}):x}}'}}, handler:"))
    assert message in error.message
    assert "s3cret" not in error.message
    if message != "bad.yml:2: is not YAML":
        assert error.message.startswith("serverless.yml:3: functions.api.environment.x: ")


def test_a_handler_in_a_dependency_is_checked_by_the_build(folder: Path) -> None:
    text = HEAD + API.replace("handlers.api", "datadog_lambda.handler.handler")
    assert "there is no datadog_lambda/handler.py" in fault(folder, text).message
    (folder / "requirements.txt").write_text("datadog_lambda==6.0\n")
    assert load(folder, text).functions[0].handler == "datadog_lambda.handler.handler"
    assert "there is no handler.py" in fault(folder, HEAD + API.replace("handlers.api", "handler.api")).message


def test_javascript_files_are_not_run_and_are_an_error_only_if_needed(folder: Path) -> None:
    (folder / "x.js").write_text("module.exports = {}")
    assert load(folder, HEAD + API + "custom: {x: '${file(x.js):y}'}\n").functions
    text = HEAD + API.replace("handler:", "timeout: '${file(x.js):t}', handler:")
    assert "${file(x.js)} cannot be resolved here: a JavaScript file" in fault(folder, text).message


def test_a_file_without_read_permission_is_an_error_that_names_it(folder: Path) -> None:
    (folder / "serverless.yml").write_text(HEAD + API)
    (folder / "serverless.yml").chmod(0)
    if os.access(folder / "serverless.yml", os.R_OK):
        pytest.skip("this user reads everything")
    assert "serverless.yml cannot be read: Permission denied" in fault(folder).message


# -- bounds


def test_a_folder_without_serverless_yml_is_an_error_that_says_what_to_do(folder: Path) -> None:
    error = fault(folder)
    assert f"there is no serverless.yml in {folder}" in error.message
    assert "hitless init" in error.hint
    (folder / "serverless.ts").write_text("x")
    assert "serverless.ts is not read here" in fault(folder).message


def test_a_large_file_or_one_that_is_not_utf_8_is_an_error(folder: Path) -> None:
    assert "larger than 1048576 bytes" in fault(folder, "#" * (1024 * 1024 + 1)).message
    (folder / "serverless.yml").write_bytes(b"service: demo\nx: \xff\n")
    assert fault(folder).message == "serverless.yml:2: is not UTF-8"


def test_very_deeply_nested_variables_are_an_error(folder: Path) -> None:
    text = HEAD + API + "custom:\n  x: " + "${self:" * 20_000 + "x" + "}" * 20_000 + "\n"
    assert "nested too deeply" in fault(folder, text).message


def test_too_many_files_are_an_error(folder: Path) -> None:
    names = [f"f{index}.txt" for index in range(101)]
    for name in names:
        (folder / name).write_text("x")
    listed = "".join(f"  k{name[:-4]}: ${{file({name})}}\n" for name in names)
    text = HEAD + API.replace("handler:", "environment: '${self:custom}', handler:") + "custom:\n" + listed
    assert "custom.kf100: is one file more than can be read" in fault(folder, text).message


def test_a_too_large_module_is_an_error(folder: Path) -> None:
    (folder / "big.py").write_text("api = 1\n#" + "x" * 4 * 1024 * 1024)
    assert "big.py is larger than" in fault(folder, HEAD + "functions: {a: {handler: big.api}}").message


def test_a_name_too_long_for_lambda_is_a_notice(folder: Path) -> None:
    name = "a" * 56
    assert load(folder, HEAD + API.replace("api: {", f"{name[:-1]}: {{")).notices == ()
    (notice,) = load(folder, HEAD + API.replace("api: {", f"{name}: {{")).notices
    assert f"Lambda refuses demo-dev-{name}" in notice


@pytest.mark.parametrize(
    ("hitless", "message", "hint"),
    [
        ("idempotent: [PUT /zone]", "custom.hitless.idempotent[0]: no function has the route PUT /zone", ""),
        ("stages: {dev: {hooks: {pre_traffic: chek}}}", "pre_traffic: there is no function 'chek'", ""),
        ("stages: {dev: {hooks: {post_traffic: api}}}", "post_traffic: api serves http routes", "without http events"),
    ],
)
def test_hooks_and_idempotent_routes_must_exist(folder: Path, hitless: str, message: str, hint: str) -> None:
    with pytest.raises(ServiceFileError, match=re.escape(message)) as caught:
        load(folder, HEAD + API + f"custom: {{hitless: {{{hitless}}}}}\n")
    assert hint in caught.value.hint


def test_a_service_file_linked_from_outside_is_not_read(folder: Path) -> None:
    secret = folder.parent / "shadow"
    secret.write_text("root:hush-hush:19000:0\n")
    (folder / "serverless.yml").symlink_to(secret)
    with pytest.raises(ServiceFileError, match=r"^serverless\.yml is a link to a file outside ") as refused:
        load_service(folder, stage="dev", environ={})
    assert "hush" not in str(refused.value.to_json())
    (folder.parent / ".git").mkdir()
    with pytest.raises(ServiceFileError, match=r"^serverless\.yml:1"):  # within the repository: read, and no service
        load_service(folder, stage="dev", environ={})


def test_a_functions_module_is_a_folder_of_the_service_and_needs_individual_packages(folder: Path) -> None:
    (folder / "bot").mkdir()
    (folder / "bot" / "web.py").write_text("def hello(event, context): ...\n")
    text = "functions: {api: {handler: web.hello, module: bot, events: [http: GET /]}}\n"
    service = load(folder, HEAD + "package: {individually: true}\n" + text)
    assert (service.functions[0].module, service.functions[0].handler) == ("bot", "web.hello")
    assert "there is no web.py" in fault(folder, HEAD + text).message
    outside = HEAD + "package: {individually: true}\n" + text.replace("module: bot", "module: ../..")
    assert "is not a folder of the service" in fault(folder, outside).message
