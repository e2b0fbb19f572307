"""A whole service from its folder: the model, the handlers' existence, files, links, bounds."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from hitless.errors import ServiceFileError
from hitless.service.load import load_service
from hitless.service.model import Function, Route, Service

pytestmark = pytest.mark.component

HEAD = "service: demo\nprovider: {name: aws, runtime: python3.11}\n"
SCALED = (
    HEAD
    + "functions: {{api: {{handler: handlers.api, provisionedConcurrency: {ready}}}}}\n"
    + "custom: {{hitless: {{provisioned: {{{name}: {{max: {most}}}}}}}}}\n"
).replace("provider: {name: aws, runtime: python3.11}", "provider: {{name: aws, runtime: python3.11}}")
API = "functions: {api: {handler: handlers.api, events: [http: GET /]}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "repository" / "service"
    home.mkdir(parents=True)
    (home / "handlers.py").write_text("def api(event, context): ...\ndef other(event, context): ...\n")
    return home


def load(
    folder: Path,
    text: str | None = None,
    *,
    stage: str = "dev",
    options: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Service:
    if text is not None:
        (folder / "serverless.yml").write_text(text, encoding="utf-8")
    return load_service(folder, stage=stage, options=options, environ=environ or {})


def fault(folder: Path, text: str | None = None, *, environ: Mapping[str, str] | None = None) -> ServiceFileError:
    with pytest.raises(ServiceFileError) as caught:
        load(folder, text, environ=environ)
    return caught.value


def test_a_service_is_read_whole(folder: Path) -> None:
    text = """
service: demo
provider:
  name: aws
  runtime: python3.12
  architecture: arm64
  region: ${opt:region, 'eu-central-1'}
  memorySize: 256
  timeout: 10
  environment: {STAGE: '${sls:stage}', LEVEL: info}
package:
  individually: true
  exclude: [tests/**, '!keep']
  include: [extra]
  patterns: ['!*.md']
functions:
  api:
    handler: handlers.api
    description: The API
    memorySize: 512
    environment: {LEVEL: '${env:LEVEL}', PORT: 8080, ON: true, EMPTY: ''}
    events:
      - http: get zones
      - http: {path: /zones/{area}/, method: any}
    package: {patterns: [api/**]}
  other:
    handler: handlers.other
    runtime: python3.11
custom: {hitless: {workers: 3, stages: {dev: {}, prod: {}}}}
"""
    service = load(folder, text.replace("/zones/{area}/", "'/zones/{area}/'"), environ={"LEVEL": "debug"})
    assert (service.name, service.stage, service.region) == ("demo", "dev", "eu-central-1")
    assert (service.folder, service.file) == (folder, folder / "serverless.yml")
    assert service.individually
    assert service.package_patterns == ("!tests/**", "keep", "extra", "!*.md")
    assert [stage.name for stage in service.stages] == ["dev", "prod"]
    assert service.settings is service.stages[0]
    assert service.notices == ()
    assert service.functions[0] == Function(
        name="api",
        handler="handlers.api",
        runtime="python3.12",
        architecture="arm64",
        memory_mb=512,
        timeout_s=10,
        environment=(("EMPTY", ""), ("LEVEL", "debug"), ("ON", "true"), ("PORT", "8080"), ("STAGE", "dev")),
        routes=(Route("GET", "/zones"), Route("ANY", "/zones/{area}")),
        package_patterns=("api/**",),
        workers=3,
        description="The API",
    )
    assert service.function("other") == Function(
        "other", "handlers.other", architecture="arm64", memory_mb=256, timeout_s=10, workers=3,
        environment=(("LEVEL", "info"), ("STAGE", "dev")),
    )  # fmt: skip
    assert service.function("none") is None


def test_the_defaults_are_serverless_frameworks(folder: Path) -> None:
    service = load(folder, HEAD + API)
    (function,) = service.functions
    assert (function.memory_mb, function.timeout_s, function.workers, function.architecture) == (1024, 6, 2, "x86_64")
    assert (service.region, service.individually, service.package_patterns) == ("us-east-1", False, ())


def test_reading_twice_gives_equal_services_whatever_the_order_of_the_environment(folder: Path) -> None:
    one = load(folder, HEAD + API.replace("handler:", "environment: {A: 1, B: 2}, handler:"))
    two = load(folder, HEAD + API.replace("handler:", "environment: {B: 2, A: 1}, handler:"))
    assert one == two


def test_how_far_a_functions_provisioned_concurrency_is_scaled_is_read(folder: Path) -> None:
    (api,) = load(folder, SCALED.format(name="api", ready=2, most=9)).functions
    assert (api.provisioned_concurrency, api.max_provisioned, api.provisioned_target_percent) == (2, 9, 70)


def test_older_spellings_are_read(folder: Path) -> None:
    text = "service: {name: demo}\nprovider: aws\nfunctions:\n  - api: {handler: handlers.api, runtime: python3.9}\n"
    assert load(folder, text).functions[0].runtime == "python3.9"
    (folder / "serverless.yml").rename(folder / "serverless.yaml")
    assert load(folder).file.name == "serverless.yaml"


def test_a_byte_order_mark_is_no_part_of_the_file(folder: Path) -> None:
    assert load(folder, "\ufeff" + HEAD + API).name == "demo"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("provider: aws\n", "serverless.yml:1: service is missing", "add service"),
        ("service: x\nprovider: aws\n", "'x' is not a service's name", ""),
        ("service: 1x\nprovider: aws\n", "is not a service's name", ""),
        ("service: demo\n", "provider is missing", "add provider"),
        ("service: demo\nprovider: {}\n", "serverless.yml:2: provider: has no name", "add provider.name"),
        ("service: demo\nprovider: {name: azure}\n", "provider.name: 'azure' is not one of aws", ""),
        (HEAD.replace("name: aws", "name: aws, region: mars") + API, "provider.region: 'mars' is not the name", ""),
        (HEAD, "functions is missing", "add functions"),
        (HEAD + "functions: {}\n", "serverless.yml:3: functions: names no function", "add functions"),
        (HEAD + "functions: {a b: {}}\n", "a function's name is", ""),
        (HEAD + "functions: {api: }\n", "functions.api: has no handler", "add handler"),
        (HEAD + "functions: {api: {handler: [x]}}\n", "handler: must be a string, and is a list", ""),
        ("service: demo\nprovider: aws\n" + API, "functions.api: has no runtime", "add provider.runtime"),
        (HEAD.replace("3.11", "3.12.1") + API, "'python3.12.1' is an unknown runtime; known are python3.9, ", "3.12?"),
        (HEAD.replace("python3.11", "nodejs22.x") + API, "unknown runtime", "hitless runs Python"),
        (HEAD.replace("python3.11", "python3.11, architecture: arm") + API, "is not one of x86_64, arm64", "arm64?"),
        (HEAD + "functions:\n - api: {handler: handlers.api}\n - api: {handler: handlers.api}\n", "defined twice", ""),
        (
            SCALED.format(name="ap", ready=2, most=9),
            "custom.hitless.provisioned.ap: is no function",
            "did you mean api?",
        ),
        (
            SCALED.format(name="api", ready=0, most=9),
            "scales what the function does not have",
            "provisionedConcurrency",
        ),
        (SCALED.format(name="api", ready=10, most=9), "has max 9 under provisionedConcurrency 10", "max: 10 or more"),
        ("[1]", "serverless.yml:1: must be a map, and is a list", ""),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_key(folder: Path, text: str, message: str, hint: str) -> None:
    error = fault(folder, text)
    assert message in error.message
    assert error.message.startswith("serverless.yml:")
    assert hint in error.hint
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("timeout: 0", "timeout: must be a whole number from 1 to 900"),
        ("timeout: 901", "from 1 to 900"),
        ("timeout: 1.5", "from 1 to 900"),
        ("timeout: soon", "and is 'soon'"),
        ("memorySize: 127", "memorySize: must be a whole number from 128 to 10240"),
        ("memorySize: 10241", "from 128 to 10240"),
        ("description: []", "description: must be a string"),
        ("environment: []", "environment: must be a map"),
        ("environment: {A: [x]}", "environment.A: must be a string, and is a list"),
        ("environment: {A: }", "environment.A: has no value"),
        ("environment: {1A: x}", "is not the name of a variable"),
        ("environment: {AWS_REGION: x}", "AWS_REGION is set by Lambda itself"),
        ("environment: {AWS_LAMBDA_FUNCTION_VERSION: x}", "is set by Lambda itself"),
        ("environment: {_HANDLER: x}", "is set by Lambda itself"),
        ("events: {http: GET /}", "events: must be a list"),
        ("events: [http: GET]", "'GET' is not a route"),
        ("events: [http: GET /a /b]", "is not a route"),
        ("events: [http: FETCH /]", "'FETCH /' has an unknown method; known are DELETE, GET"),
        ("events: [http: '* /']", "unknown method"),
        ("events: [http: {path: /}]", "http: has no method"),
        ("events: [http: {method: get}]", "http: has no path"),
        ("events: [http: {method: get, path: /a//b}]", "http.path: the path /a//b has an empty segment"),
        ("events: [http: 'GET /{proxy+}/a']", "not the last segment"),
        ("events: [http: 'GET /{x}/{x}']", "names a parameter twice"),
        ("events: [http: GET /a, http: get a]", "GET /a is routed twice"),
        ("events: [http: 'GET /{a}/x', http: 'POST /{b}']", "{a} and {b} are both variable parts under /"),
        ("image: x", "functions.api.image: container images are not run here"),
        ("package: {patterns: x}", "package.patterns: must be a list"),
    ],
)
def test_a_function_that_aws_would_refuse_is_refused(folder: Path, settings: str, message: str) -> None:
    error = fault(folder, HEAD + f"functions:\n  api:\n    handler: handlers.api\n    {settings}\n")
    assert message in error.message
    assert error.message.startswith("serverless.yml:6: functions.api")


def test_the_same_route_in_two_functions_names_both(folder: Path) -> None:
    text = HEAD + "functions:\n  a: {handler: handlers.api, events: [http: GET /x]}\n"
    error = fault(folder, text + "  b: {handler: handlers.other, events: [http: {method: GET, path: x}]}\n")
    assert error.message == (
        "serverless.yml:5: functions.b.events[0].http: GET /x is routed twice; "
        "the other is functions.a.events[0].http in serverless.yml:4"
    )


def test_what_is_different_here_is_noticed(folder: Path) -> None:
    text = """service: demo
provider:
  name: aws
  runtime: python3.11
  stage: prod
  environment: {TABLE: !Ref Table, ARN: {Fn::GetAtt: [A, B]}, VERSION: 1.10, ZIP: 0123}
functions:
  api:
    handler: handlers.api
    timeout: 30
    package: {patterns: [x]}
    events: [http: GET /]
  quiet: {handler: handlers.other, timeout: 30}
resources: {Resources: {T: '${ssm:/x}'}}
custom: {unused: '${s3:b/y}'}
"""
    service = load(folder, text)
    assert dict(service.functions[0].environment) == {"VERSION": "1.1", "ZIP": "123"}
    assert service.functions[0].package_patterns == ()
    assert [line.split(": ")[1] for line in service.notices] == [
        "resources",
        "provider.stage",
        "functions.api.timeout",
        "provider.environment.ARN",
        "provider.environment.TABLE",
        "provider.environment.VERSION",
        "provider.environment.ZIP",
        "functions.api.package",
        "resources.Resources.T",
    ]
    assert all(line.startswith("serverless.yml:") and "more place" not in line for line in service.notices)


def test_a_variable_that_the_function_sets_itself_needs_no_notice_about_the_providers(folder: Path) -> None:
    head = HEAD.replace("name: aws", "name: aws, environment: {TABLE: !Ref Table, KEY: '${ssm:/k}'}")
    service = load(folder, head + API.replace("handler:", "environment: {TABLE: here, KEY: mine}, handler:"))
    assert dict(service.functions[0].environment) == {"KEY": "mine", "TABLE": "here"}
    assert [line.split(": ")[1] for line in service.notices] == ["provider.environment.KEY"]


def test_what_only_aws_knows_is_an_error_where_it_is_needed(folder: Path) -> None:
    error = fault(folder, HEAD + API.replace("handler:", "environment: {KEY: '${ssm:/k}'}, handler:"))
    assert "functions.api.environment.KEY: ${ssm:/k} cannot be resolved here: AWS Systems Manager" in error.message
    assert "${env:NAME, …}" in error.hint


def test_secrets_are_neither_in_the_repr_nor_in_notices(folder: Path) -> None:
    head = HEAD.replace("name: aws", "name: aws, environment: {KEY: '${env:KEY}'}, vpc: {x: '${env:KEY}'}")
    service = load(folder, head + API, environ={"KEY": "s3cret"})
    assert dict(service.functions[0].environment) == {"KEY": "s3cret"}
    assert "s3cret" not in repr(service)
    assert service.notices


def test_a_stage_that_is_not_there_is_named_before_what_it_lacks(folder: Path) -> None:
    text = HEAD + API + "params: {dev: {x: 1}}\ncustom: {v: '${param:x}', hitless: {stages: {dev: {}, staging: {}}}}\n"
    with pytest.raises(
        ServiceFileError, match=r"custom\.hitless\.stages: there is no stage prod; stages are dev, staging"
    ):
        load(folder, text, stage="prod")


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
def test_a_handler_is_found_however_the_module_makes_it(folder: Path, source: str, attribute: str) -> None:
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
        ("broken.api", "broken.py:2: syntax error", "mend broken.py"),
        ("inner.api", "inner.py does not define api", ""),
        ("coroutine.api", "coroutine.py defines api as async", ""),
        ("nul.api", "nul.py", ""),
    ],
)
def test_a_handler_that_is_not_there_is_named(folder: Path, handler: str, message: str, hint: str) -> None:
    (folder / "broken.py").write_text("def api(): ...\ndef (:\n")
    (folder / "inner.py").write_text("class A:\n  def api(self): ...\ndef b():\n  api = 1\n")
    (folder / "coroutine.py").write_text("async def api(e, c): ...\n")
    (folder / "nul.py").write_bytes(b"def api(): ...\0")
    error = fault(folder, HEAD + f"functions: {{api: {{handler: {handler}}}}}")
    assert error.message.startswith("serverless.yml:3: functions.api.handler: ")
    assert message in error.message
    assert hint in error.hint


def test_a_handler_that_is_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder.parent / "outside.py").write_text("def api(e, c): ...")
    (folder / "inside.py").symlink_to(folder.parent / "outside.py")
    assert "link out of the service's folder" in fault(folder, HEAD + "functions: {a: {handler: inside.api}}").message


# -- files


def test_files_beside_the_service_and_within_its_repository_are_read(folder: Path) -> None:
    (folder.parent / ".git").mkdir()
    (folder.parent / "shared.json").write_text('{"timeout": 9, "deep": {"x": [1, "two"]}}')
    (folder / "env.yml").write_text("dev: {LEVEL: debug}\n")
    (folder / "motto.txt").write_text("so be it")
    environment = "environment: '${file(./env.yml):${sls:stage}}'"
    text = HEAD + API.replace("handler:", f"timeout: '${{file(../shared.json):timeout}}', {environment}, handler:")
    text += "custom: {motto: '${file(motto.txt)}', two: '${file(../shared.json):deep.x.1}'}\n"
    (function,) = load(folder, text).functions
    assert (function.timeout_s, function.environment) == (9, (("LEVEL", "debug"),))


def test_whole_parts_of_the_file_may_stand_elsewhere(folder: Path) -> None:
    (folder / "functions.yml").write_text("api:\n  handler: handlers.api\n  timeout: soon\n")
    error = fault(folder, HEAD + "functions: ${file(functions.yml)}\n")
    assert error.message == (
        "serverless.yml:3: functions.api.timeout: must be a whole number from 1 to 900, and is a string"
        " (written in functions.yml:3)"
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("/etc/hostname", "named by an absolute path"),
        ("~/x.yml", "named by an absolute path"),
        ("../secret.yml", "lies outside of"),
        ("../../../../../../etc/hostname", "lies outside of"),
        ("link.yml", "lies outside of"),
        ("down/../../secret.yml", "lies outside of"),
        ("down", "is not a regular file"),
        ("pipe.yml", "is not a regular file"),
        ("large.yml", "is larger than"),
        ("bad.json", "is not JSON: Expecting"),
        ("latin.txt", "is not UTF-8"),
        ("bad.yml", "bad.yml:2: is not YAML"),
        ("none.yml", "has no value"),
    ],
)
def test_files_that_cannot_be_read_are_refused_in_place(folder: Path, written: str, message: str) -> None:
    (folder.parent / "secret.yml").write_text("x: s3cret")
    (folder / "link.yml").symlink_to(folder.parent / "secret.yml")
    (folder / "down").mkdir()
    os.mkfifo(folder / "pipe.yml")
    (folder / "large.yml").write_text("x: " + "y" * 1024 * 1024)
    (folder / "bad.json").write_text("{x}")
    (folder / "latin.txt").write_bytes(b"\xe4")
    (folder / "bad.yml").write_text("x: 1\n\ty: 2\n")
    error = fault(folder, HEAD + API + f"custom:\n  x: ${{file({written}):x}}\n")
    assert message in error.message
    assert "s3cret" not in error.message
    if message != "bad.yml:2: is not YAML":
        assert error.message.startswith("serverless.yml:5: custom.x: ")


def test_javascript_files_are_not_run_and_only_matter_where_they_are_needed(folder: Path) -> None:
    (folder / "x.js").write_text("module.exports = {}")
    assert load(folder, HEAD + API + "custom: {x: '${file(x.js):y}'}\n").functions
    text = HEAD + API.replace("handler:", "timeout: '${file(x.js):t}', handler:")
    assert "${file(x.js)} cannot be resolved here: a JavaScript file" in fault(folder, text).message


def test_a_file_without_permission_is_named(folder: Path) -> None:
    (folder / "serverless.yml").write_text(HEAD + API)
    (folder / "serverless.yml").chmod(0)
    if os.access(folder / "serverless.yml", os.R_OK):
        pytest.skip("this user reads everything")
    assert "serverless.yml cannot be read: Permission denied" in fault(folder).message


# -- bounds


def test_a_folder_without_a_service_says_what_to_do(folder: Path) -> None:
    error = fault(folder)
    assert f"there is no serverless.yml in {folder}" in error.message
    assert "hitless init" in error.hint
    (folder / "serverless.ts").write_text("x")
    assert "serverless.ts is not read here" in fault(folder).message


def test_a_file_beyond_the_bound_or_not_utf_8_is_refused(folder: Path) -> None:
    assert "larger than 1048576 bytes" in fault(folder, "#" * (1024 * 1024 + 1)).message
    (folder / "serverless.yml").write_bytes(b"service: demo\nx: \xff\n")
    assert fault(folder).message == "serverless.yml:2: is not UTF-8"


def test_variables_nested_beyond_all_measure_are_refused(folder: Path) -> None:
    text = HEAD + API + "custom:\n  x: " + "${self:" * 20_000 + "x" + "}" * 20_000 + "\n"
    assert "nested too deep" in fault(folder, text).message


def test_more_files_than_the_bound_are_refused(folder: Path) -> None:
    names = [f"f{index}.txt" for index in range(101)]
    for name in names:
        (folder / name).write_text("x")
    error = fault(folder, HEAD + API + "custom:\n" + "".join(f"  k{name[:-4]}: ${{file({name})}}\n" for name in names))
    assert "custom.kf100: names file number 101" in error.message


def test_a_module_beyond_the_bound_is_refused(folder: Path) -> None:
    (folder / "big.py").write_text("api = 1\n#" + "x" * 4 * 1024 * 1024)
    assert "big.py is larger than" in fault(folder, HEAD + "functions: {a: {handler: big.api}}").message


def test_a_name_that_lambda_refuses_for_its_length_is_noticed(folder: Path) -> None:
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
def test_hooks_and_routes_that_may_run_twice_must_be_there(folder: Path, hitless: str, message: str, hint: str) -> None:
    with pytest.raises(ServiceFileError, match=re.escape(message)) as caught:
        load(folder, HEAD + API + f"custom: {{hitless: {{{hitless}}}}}\n")
    assert hint in caught.value.hint
