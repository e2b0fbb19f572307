"""The table of keys: which keys are notices, which are silent, and how unknown ones are handled."""

from __future__ import annotations

import pytest

from hitless.errors import ServiceFileError
from hitless.service.keys import KEYS, Here, Key, check_keys
from hitless.service.load import parse_yaml
from hitless.service.value import FilePlace, Notices, Value, from_plain

pytestmark = pytest.mark.unit


def notices_of(root: Value) -> tuple[str, ...]:
    notices = Notices()
    check_keys(root, notices)
    return notices.sentences()


def file_with(key: Key) -> Value:
    """A file in which only that key has a value."""
    data: object = ["x"] if key.path == "plugins" else "x"
    for part in reversed(key.path.replace("events.*", "events[]").split(".")):
        data = {part[:-2]: [data]} if part.endswith("[]") else {"name" if part == "*" else part: data}
    return from_plain(data, FilePlace("f.yml", 7))


def ids(key: Key) -> str:
    return key.path


@pytest.mark.parametrize("key", [key for key in KEYS if key.here is Here.NOTICED], ids=ids)
def test_a_key_that_works_only_on_aws_is_a_notice(key: Key) -> None:
    (sentence,) = notices_of(file_with(key))
    assert sentence.startswith("f.yml:7: ")
    assert key.path.rpartition(".")[2] in sentence
    assert key.path == "plugins" or sentence.endswith(key.effect)


@pytest.mark.parametrize("key", [key for key in KEYS if key.here in (Here.USED, Here.AWS)], ids=ids)
def test_other_known_keys_are_accepted_without_a_notice(key: Key) -> None:
    assert notices_of(file_with(key)) == ()


@pytest.mark.parametrize("key", [key for key in KEYS if key.here is Here.REFUSED], ids=ids)
def test_a_container_image_is_an_error(key: Key) -> None:
    with pytest.raises(ServiceFileError, match=key.effect):
        notices_of(file_with(key))


def test_the_table_has_each_key_once_and_its_effect() -> None:
    assert len({key.path for key in KEYS}) == len(KEYS)
    assert all(bool(key.effect) == (key.here in (Here.NOTICED, Here.REFUSED)) for key in KEYS)


def test_a_key_that_only_restates_its_default_causes_no_notice() -> None:
    quiet = "functions: {a: {layers: [], url: false, vpc: , events: [{http: {private: false}}]}}"
    assert notices_of(parse_yaml(quiet, "f.yml")) == ()
    assert notices_of(parse_yaml("provider: {endpointType: REGIONAL}", "f.yml")) == ()
    assert len(notices_of(parse_yaml("provider: {endpointType: PRIVATE}", "f.yml"))) == 1


def test_one_cause_in_several_places_gives_one_notice() -> None:
    text = "functions: {a: {events: [{sqs: x}, {sqs: y}]}, b: {events: [{sqs: z}]}}"
    (sentence,) = notices_of(parse_yaml(text, "f.yml"))
    assert sentence.endswith("(and in 2 more places)")


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        ("fuctions: {}", "fuctions", "did you mean functions?"),
        ("functions: {api: {handlr: a.b}}", "functions.api.handlr", "did you mean handler?"),
        ("functions: [{api: {timout: 3}}]", "functions[0].api.timout", "did you mean timeout?"),
        ("provider: {runtim: x}", "provider.runtim", "did you mean runtime?"),
        ("provider: {apiGateway: {binaryMediaType: x}}", "provider.apiGateway.binaryMediaType", "binaryMediaTypes"),
        ("package: {pattern: x}", "package.pattern", "did you mean patterns?"),
        ("functions: {api: {events: [{htpp: GET /}]}}", "functions.api.events[0].htpp", "did you mean http?"),
        ("functions: {api: {events: [{http: {metod: GET}}]}}", "functions.api.events[0].http.metod", "method?"),
        ("zzzz: 1", "zzzz", "known here: "),
    ],
)
def test_an_unknown_key_is_a_notice_or_an_error_with_a_suggestion(text: str, path: str, hint: str) -> None:
    (sentence,) = notices_of(parse_yaml(text, "f.yml"))
    assert sentence.startswith(f"f.yml:1: {path}: is not a key of Serverless Framework and does nothing here")
    assert hint in f"{sentence} known here: "
    with pytest.raises(ServiceFileError) as caught:
        notices_of(parse_yaml(f"{text}\nconfigValidationMode: error", "f.yml"))
    assert caught.value.message == f"f.yml:1: {path}: is not a key of Serverless Framework"
    assert hint in caught.value.hint


def test_with_plugins_an_unknown_key_is_never_an_error() -> None:
    text = "plugins: [serverless-step-functions]\nconfigValidationMode: error\nstepFunctions: {}\n"
    lines = notices_of(parse_yaml(text + "functions: {a: {warmup: true, handlr: x}}", "f.yml"))
    names = [line.split()[1] for line in lines]
    assert names == ["plugins[0]:", "stepFunctions:", "functions.a.warmup:", "functions.a.handlr:"]
    assert lines[3].endswith("did you mean handler?")


@pytest.mark.parametrize(
    "text",
    [
        "functions: {a: {events: [{http: {authoriser: aws_iam}}]}}",
        "functions: {a: {events: [{http: {privat: true}}]}}",
        "provider: {apiGateway: {resourcePolicies: []}}",
    ],
)
def test_a_misspelt_key_that_protects_routes_is_always_an_error(text: str) -> None:
    with pytest.raises(ServiceFileError, match="is not a key of Serverless Framework"):
        notices_of(parse_yaml(f"{text}\nplugins: [x]", "f.yml"))


def test_keys_of_custom_are_free_except_a_misspelt_hitless() -> None:
    names = ("tables", "files", "items", "tests", "sites", "titles", "hitlist", "hits")
    assert notices_of(from_plain({"custom": dict.fromkeys(names, 1)}, FilePlace("f.yml", 1))) == ()
    (sentence,) = notices_of(parse_yaml("custom: {hitles: {workers: 3}}", "f.yml"))
    assert sentence == "f.yml:1: custom.hitles: is not read by anything here: did you mean custom.hitless?"
    (sentence,) = notices_of(parse_yaml("hitless: {workers: 3}", "f.yml"))
    assert sentence.endswith("does nothing here: did you mean custom.hitless?")


def test_a_plugin_causes_a_notice_unless_hitless_replaces_it() -> None:
    text = "plugins: {modules: [serverless-python-requirements, serverless-offline, serverless-step-functions]}"
    assert notices_of(parse_yaml(text, "f.yml")) == (
        "f.yml:1: plugins.modules[2]: the plugin serverless-step-functions does not run here",
    )


def test_the_notice_for_a_common_plugin_says_what_replaces_it() -> None:
    text = "plugins: [serverless-prune-plugin, serverless-esbuild, serverless-dotenv-plugin]"
    bundler, dotenv = notices_of(parse_yaml(text, "f.yml"))
    assert bundler.endswith("does not run here; bundle the code yourself, and name the zip in package.artifact")
    assert dotenv.endswith("does not run here; set useDotenv: true, and list the variables in provider.environment")


def test_the_layer_of_serverless_python_requirements_causes_no_notice() -> None:
    (sentence,) = notices_of(
        parse_yaml(
            "functions: {a: {layers: [{Ref: PythonRequirementsLambdaLayer}]}, b: {layers: [!Ref MyLambdaLayer]}}",
            "f.yml",
        )
    )
    assert sentence.startswith("f.yml:1: functions.b.layers: layers are not unpacked here")
    assert notices_of(parse_yaml("functions: {a: {layers: [!Ref PythonRequirementsLambdaLayer]}}", "f.yml")) == ()


def test_another_list_of_requirements_causes_a_notice() -> None:
    (sentence,) = notices_of(parse_yaml("custom: {pythonRequirements: {fileName: requirements/prod.txt}}", "f.yml"))
    assert sentence.endswith("is not read here; hitless installs requirements.txt or a lock file")
    assert notices_of(parse_yaml("custom: {pythonRequirements: {fileName: poetry.lock}}", "f.yml")) == ()


def test_custom_params_and_resources_are_not_checked() -> None:
    text = "custom: {anything: {goes: 1}}\nparams: {dev: {x: 1}}\nprovider: {environment: {ANY: x}}"
    assert notices_of(parse_yaml(text, "f.yml")) == ()


def test_an_event_without_settings_causes_a_notice_too() -> None:
    (sentence,) = notices_of(parse_yaml("functions: {a: {events: [alexaSmartHome]}}", "f.yml"))
    assert "functions.a.events[0]" in sentence
