"""A complete service from its folder: the model, and mistakes in the file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hitless.errors import ServiceFileError
from hitless.service.event_sources import Route
from hitless.service.load import default_stage
from hitless.service.model import Function
from tests.component.service_folder import API, HEAD, SCALED, fault, folder, load

__all__ = ["folder"]


pytestmark = pytest.mark.component


def test_a_complete_service_is_read(folder: Path) -> None:
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
    assert (service.region, service.package_patterns) == ("us-east-1", ())


def test_loading_a_service_does_not_depend_on_the_order_of_the_environment(folder: Path) -> None:
    one = load(folder, HEAD + API.replace("handler:", "environment: {A: 1, B: 2}, handler:"))
    two = load(folder, HEAD + API.replace("handler:", "environment: {B: 2, A: 1}, handler:"))
    assert one == two


def test_settings_for_scaling_provisioned_concurrency_are_read(folder: Path) -> None:
    (api,) = load(folder, SCALED.format(name="api", ready=2, most=9)).functions
    assert (api.provisioned_concurrency, api.max_provisioned, api.provisioned_target_percent) == (2, 9, 70)


def test_older_spellings_of_keys_are_read(folder: Path) -> None:
    text = "service: {name: demo}\nprovider: aws\nfunctions:\n  - api: {handler: handlers.api, runtime: python3.9}\n"
    assert load(folder, text).functions[0].runtime == "python3.9"
    (folder / "serverless.yml").rename(folder / "serverless.yaml")
    assert load(folder).file.name == "serverless.yaml"


def test_a_byte_order_mark_is_ignored(folder: Path) -> None:
    assert load(folder, "\ufeff" + HEAD + API).name == "demo"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("provider: aws\n", "serverless.yml:1: service is missing", "add service"),
        ("service: x\nprovider: aws\n", "'x' is not a service's name", ""),
        ("service: 1x\nprovider: aws\n", "is not a service's name", ""),
        ("service: demo\n", "provider is missing", "add provider"),
        ("service: demo\nprovider: {}\n", "serverless.yml:2: provider: has no name", "add provider.name"),
        ("service: demo\nprovider: {name: azure}\n", "provider.name: 'azure' is not one of aws", "write aws"),
        (HEAD.replace("name: aws", "name: aws, region: mars") + API, "provider.region: 'mars' is not the name", ""),
        (HEAD, "functions is missing", "add functions"),
        (HEAD + "functions: {}\n", "serverless.yml:3: functions: has no function", "add functions"),
        (HEAD + "functions: {a b: {}}\n", "a function's name is", ""),
        (HEAD + "functions: {api: }\n", "functions.api: has no handler", "add handler"),
        (HEAD + "functions: {api: {handler: [x]}}\n", "handler: must be a string, not a list", ""),
        ("service: demo\nprovider: aws\n" + API, "functions.api: has no runtime", "add provider.runtime"),
        (HEAD.replace("3.11", "3.12.1") + API, "'python3.12.1' is an unknown runtime; known: python3.9, ", "3.12?"),
        (HEAD.replace("python3.11", "ruby3.3") + API, "unknown runtime", "hitless runs Python"),
        (HEAD.replace("python3.11", "python3.11, architecture: arm") + API, "is not one of x86_64, arm64", "arm64?"),
        (HEAD + "functions:\n - api: {handler: handlers.api}\n - api: {handler: handlers.api}\n", "defined twice", ""),
        (
            SCALED.format(name="ap", ready=2, most=9),
            "custom.hitless.provisioned.ap: is not a function",
            "did you mean api?",
        ),
        (
            SCALED.format(name="api", ready=0, most=9),
            "the function has no provisionedConcurrency to scale",
            "provisionedConcurrency",
        ),
        (
            SCALED.format(name="api", ready=10, most=9),
            "max 9 is less than provisionedConcurrency 10",
            "max to 10 or more",
        ),
        ("[1]", "serverless.yml:1: must be a map, not a list", "KEY: VALUE"),
        (HEAD.replace("python3.11", "3.11") + API, "3.11 is an unknown runtime", "did you mean python3.11?"),
        (HEAD.replace("python3.11", "python3") + API, "'python3' is an unknown runtime", "hitless runs Python"),
        (HEAD + API.replace("handlers.api", "handlers.py"), "does not define py", "write handlers.FUNCTION"),
        (
            HEAD + "functions:\n api:\n  handler: handlers.api\n  events:\n  - http:\n    path: /\n",
            "http: is empty",
            "indent",
        ),
        (HEAD + API.replace("GET /", "'GET /*'"), "has the segment '*'", "{proxy+} for the rest of the path"),
        (
            HEAD + API.replace("handler:", "environment: {S: '${self:provider.stage}'}, handler:"),
            "${self:provider.stage} has no value",
            "write ${sls:stage}",
        ),
    ],
)
def test_a_mistake_is_an_error_with_file_line_and_key(folder: Path, text: str, message: str, hint: str) -> None:
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
        ("timeout: soon", "not 'soon'"),
        ("memorySize: 127", "memorySize: must be a whole number from 128 to 10240"),
        ("memorySize: 10241", "from 128 to 10240"),
        ("description: []", "description: must be a string"),
        ("environment: []", "environment: must be a map"),
        ("environment: {A: [x]}", "environment.A: must be a string, not a list"),
        ("environment: {A: }", "environment.A: has no value"),
        ("environment: {1A: x}", "is not the name of a variable"),
        ("environment: {AWS_REGION: x}", "AWS_REGION is reserved: Lambda sets it itself"),
        ("environment: {AWS_LAMBDA_FUNCTION_VERSION: x}", "is reserved: Lambda sets it itself"),
        ("environment: {_HANDLER: x}", "is reserved: Lambda sets it itself"),
        ("events: {http: GET /}", "events: must be a list"),
        ("events: [http: GET]", "'GET' is not a route"),
        ("events: [http: GET /a /b]", "is not a route"),
        ("events: [http: FETCH /]", "'FETCH /' has an unknown method; known: DELETE, GET"),
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


def test_a_path_that_api_gateway_may_refuse_is_served_with_a_notice(folder: Path) -> None:
    service = load(folder, HEAD + API.replace("GET /", "'GET /a+b/(z)/{x}', http: 'GET /{y+}'").replace("{x}", "c"))
    assert [route.path for route in service.functions[0].routes] == ["/a+b/(z)/c", "/{y+}"]
    (notice,) = service.notices
    assert notice.endswith("functions.api.events[0].http: API Gateway may refuse the path /a+b/(z)/c")


def test_a_parameter_in_the_style_of_other_frameworks_causes_a_notice(folder: Path) -> None:
    (notice,) = load(folder, HEAD + API.replace("GET /", "'GET /users/:id'")).notices
    assert notice.endswith("/users/:id has no parameter; one is written {name}")


def test_the_same_route_in_two_functions_is_an_error_that_names_both(folder: Path) -> None:
    text = HEAD + "functions:\n  a: {handler: handlers.api, events: [http: GET /x]}\n"
    error = fault(folder, text + "  b: {handler: handlers.other, events: [http: {method: GET, path: x}]}\n")
    assert error.message == (
        "serverless.yml:5: functions.b.events[0].http: GET /x is routed twice; "
        "the other is functions.a.events[0].http in serverless.yml:4"
    )
    assert error.hint == "remove one"


def test_differences_from_aws_are_notices(folder: Path) -> None:
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


def test_a_variable_that_a_function_overrides_causes_no_notice_about_the_providers(folder: Path) -> None:
    head = HEAD.replace("name: aws", "name: aws, environment: {TABLE: !Ref Table, KEY: '${ssm:/k}'}")
    service = load(folder, head + API.replace("handler:", "environment: {TABLE: here, KEY: mine}, handler:"))
    assert dict(service.functions[0].environment) == {"KEY": "mine", "TABLE": "here"}
    assert [line.split(": ")[1] for line in service.notices] == ["provider.environment.KEY"]


def test_a_value_that_only_aws_knows_is_an_error_if_needed(folder: Path) -> None:
    error = fault(folder, HEAD + API.replace("handler:", "environment: {KEY: '${ssm:/k}'}, handler:"))
    assert "functions.api.environment.KEY: ${ssm:/k} cannot be resolved here: the stage has no secret" in error.message
    assert "${env:NAME, …}" in error.hint


@pytest.mark.parametrize("runtime", ["python2.7", "python3.6", "python3.7", "python3.8"])
def test_a_runtime_that_is_no_longer_supported_runs_on_this_python(folder: Path, runtime: str) -> None:
    service = load(folder, HEAD.replace("python3.11", runtime) + API)
    assert service.functions[0].runtime == runtime
    (notice,) = service.notices
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (
        notice
        == f"serverless.yml:2: provider.runtime: Lambda no longer supports {runtime}; it runs here on Python {here}"
    )


@pytest.mark.parametrize(
    "unread",
    [
        "resources: {Resources: {Q: {Name: !Sub '${self:service}-${env:NONE}'}}}",
        "custom: {customDomain: {domainName: '${file(none.yml):domain}'}, loop: '${self:custom.loop}'}",
        "outputs: {x: '${self:custom.none}'}",
    ],
)
def test_a_variable_that_the_engine_does_not_read_needs_no_value(folder: Path, unread: str) -> None:
    head = HEAD.replace("name: aws", "name: aws, iam: {role: {x: 'arn:${opt:region, self:provider.region}'}}")
    (notice, *_) = (line for line in load(folder, head + API + unread).notices if "has no value" in line)
    assert notice.startswith("serverless.yml:2: provider.iam.role.x: a variable has no value; nothing here reads it")


def test_secrets_are_neither_in_the_repr_nor_in_notices(folder: Path) -> None:
    head = HEAD.replace("name: aws", "name: aws, environment: {KEY: '${env:KEY}'}, vpc: {x: '${env:KEY}'}")
    service = load(folder, head + API, environ={"KEY": "s3cret"})
    assert dict(service.functions[0].environment) == {"KEY": "s3cret"}
    assert "s3cret" not in repr(service)
    assert service.notices


def test_a_misspelt_stage_is_the_first_error_reported(folder: Path) -> None:
    head = HEAD.replace("name: aws", "name: aws, environment: {X: '${param:x}'}")
    text = head + API + "params: {dev: {x: 1}}\ncustom: {hitless: {stages: {dev: {}, staging: {}}}}\n"
    with pytest.raises(
        ServiceFileError, match=r"custom\.hitless\.stages: there is no stage stagin; stages are dev, staging"
    ):
        load(folder, text, stage="stagin")


def test_a_stage_that_the_file_does_not_list_is_a_notice(folder: Path) -> None:
    text = HEAD + API + "custom: {hitless: {stages: {dev: {}}}}\n"
    service = load(folder, text, stage="feature")
    assert service.settings.name == "feature"
    assert service.notices == (
        "serverless.yml:4: custom.hitless.stages: feature is not listed, so it takes the defaults",
    )


@pytest.mark.parametrize(
    ("declared", "stage"),
    [
        ("stage: prod", "prod"),
        ("stage: '${opt:stage, self:custom.stage}'", "test"),
        ("stage: '${opt:stage}'", "dev"),
        ("stage: '${env:STAGE, ''x''}'", "mine"),
        ("stage: '${ssm:/stage}'", "dev"),
        ("region: eu-west-1", "dev"),
    ],
)
def test_the_default_stage_is_the_providers_or_else_dev(folder: Path, declared: str, stage: str) -> None:
    text = HEAD.replace("name: aws", f"name: aws, {declared}") + API + "custom: {stage: test}"
    (folder / "serverless.yml").write_text(text)
    assert default_stage(folder, {"STAGE": "mine"}) == stage
    assert default_stage(folder / "none", {}) == "dev"


DOTENV = r"""
# comment
A=1
export B = two words # tail
C="quoted # not comment\nnew"
D='single $A \n'
F=
G=$A-${B}-${NONE:-dflt}-${A:+alt}-${NONE:+alt}
H=\$A
I: yaml style
J="multi
line"
SET=file
EMPTY=filled
M=$SET $LATER
LATER=l8r$A
N=${N:-self}
U==eq
"""


def test_the_dotenv_file_is_read_like_in_serverless_framework(folder: Path) -> None:
    (folder / ".env").write_text(DOTENV)
    names = ["A", "B", "C", "D", "F", "G", "H", "I", "J", "SET", "EMPTY", "M", "N", "U"]
    listed = ", ".join(f"{name}: '${{env:{name}}}'" for name in names)
    text = HEAD.replace("name: aws", f"name: aws, environment: {{{listed}}}") + API
    assert "has no value" in fault(folder, text).message
    service = load(folder, text + "useDotenv: true\n", environ={"SET": "outer", "EMPTY": ""})
    assert dict(service.functions[0].environment) == {
        "A": "1", "B": "two words", "C": "quoted # not comment\nnew", "D": "single 1 \\n", "F": "",
        "G": "1-two words-dflt-alt-", "H": "$A", "I": "yaml style", "J": "multi\nline", "SET": "outer",
        "EMPTY": "filled", "M": "outer l8r1", "N": "self", "U": "=eq",
    }  # fmt: skip


def test_the_stages_own_dotenv_file_replaces_the_common_one(folder: Path) -> None:
    (folder / ".env").write_text("A=common\nB=common")
    (folder / ".env.prod").write_text("A=prod")
    text = HEAD.replace("name: aws", "name: aws, environment: {A: '${env:A}', B: '${env:B, ''none''}'}") + API
    text += "useDotenv: true\n"
    assert dict(load(folder, text).functions[0].environment) == {"A": "common", "B": "common"}
    assert dict(load(folder, text, stage="prod").functions[0].environment) == {"A": "prod", "B": "none"}
    (folder / ".env").write_text("A=1$C\nC=c$D$D\nD=d$C$C")
    assert "expand without end" in fault(folder, text).message
    (folder / ".env").unlink()
    (folder / ".env").symlink_to("/etc/hostname")
    assert "is outside" in fault(folder, text).message
