"""The published JSON Schemas: they are those of the code, accept every file of the repository, and refuse mistakes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from scripts.schemas import schemas

from hitless.cli.schema import FOLDER, Document
from hitless.drill.requests import RequestLine
from hitless.pipeline.buildspec.spec import Buildspec
from hitless.service.keys import KEYS, Here
from hitless.service.load import parse_yaml, read_yaml
from hitless.service.settings import STAGE
from hitless.service.strategy import parse
from hitless.service.value import Unresolved, Value
from tests.unit.test_service_settings import MISTAKES

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
SCHEMAS = schemas()
VALIDATORS = {name: jsonschema_rs.Draft202012Validator(schema) for name, schema in SCHEMAS.items()}
SERVERLESS, BUILDSPEC, REQUESTS = (VALIDATORS[name] for name in Document)
FILES = [
    *(path for path in ROOT.glob("examples/*/serverless.yml")),
    *(path for path in ROOT.glob("tests/**/serverless.yml") if "broken" not in path.parts),
    *(ROOT / "src/hitless/templates").glob("*/serverless.yml"),
]
ONLY_THE_READER_KNOWS = {
    "{workers: {min: 0}}",
    "{workers: {min: 3, max: 2}}",
    "{stages: {dev: {alarms: {also: [a, b, c, d, e, f, g, h]}}}}",
    "{stages: {dev: {alarms: {also: ['']}}}}",
    "{stages: {dev: {sticky: 'header:a b'}}}",
    "{stages: {dev: {network: {vpc: vpc-0a1b2c3d}}}}",
    "{stages: {dev: {network: {vpc: vpc-0a1b2c3d, subnets: []}}}}",
    "{stages: {dev: {network: none, nat: single}}}",
    "{stages: {dev: {listen: 8080}}}",
    "{stages: {dev: {basePath: v1}}}",
    "{stages: {dev: {tls: {acme: {}}}}}",
    "{stages: {dev: {tls: {acme: {staging: true, directory: 'https://ca.example.org/'}}}}}",
    "{stages: {dev: {tls: {certificate: /c, key: /k, challenges: ':1'}}}}",
    "{stages: {dev: {tls: {certificate: /c, key: /k, redirect: ':0'}}}}",
    "{stages: {dev: {listen: ':443', tls: {certificate: /c, key: /k, redirect: ':80'}}, b: {listen: ':80'}}}",
    "{stages: {dev: {smoke: [FETCH /]}}}",
    '{stages: {dev: {smoke: [{path: /, headers: {x: "a\\r\\nb"}}]}}}',
    "{stages: {dev: {smoke: [{path: /, headers: {'a b': c}}]}}}",
    "{stages: {dev: {}, b: {listen: '127.0.0.1:8080'}}}",
}
"""Mistakes that depend on two values, or that a pattern would hold twice."""


def plain(value: Value) -> Any:
    """As an editor sees the file: tags and variables are text."""
    if isinstance(value.data, Mapping):
        return {key: plain(entry) for key, entry in value.data.items()}
    if isinstance(value.data, tuple):
        return [plain(item) for item in value.data]
    return value.data.reference if isinstance(value.data, Unresolved) else value.data


def faults(document: Any) -> list[str]:
    return [f"{error.instance_path}: {error.message}" for error in SERVERLESS.iter_errors(document)]


def with_settings(text: str) -> Any:
    return plain(parse_yaml(f"service: s\nprovider: aws\nfunctions: {{}}\ncustom: {{hitless: {text}}}", "f.yml"))


def blocks(page: str) -> Iterator[Any]:
    for block in re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL):
        yield {"service": "s", "provider": "aws", "functions": {}} | plain(parse_yaml(block, page))


@pytest.mark.parametrize("name", Document)
def test_the_published_schema_is_that_of_the_code(name: Document) -> None:
    published = json.loads((FOLDER / f"{name}.json").read_text())
    assert published == SCHEMAS[name], "write it again: .venv/bin/python -m scripts.schemas"
    jsonschema_rs.meta.validate(published)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_service_of_the_repository_is_accepted(file: Path) -> None:
    text = re.sub(r"\{\{ *(\w+) *\}\}", r"\1", file.read_text())  # a template's placeholders
    assert faults(plain(parse_yaml(text, file.name))) == []


def test_the_examples_of_the_documentation_are_accepted() -> None:
    found = list(blocks("serverless-yml.md"))
    assert len(found) >= 2
    assert [fault for document in found for fault in faults(document)] == []


@pytest.mark.parametrize("text", [text for text, _, _ in MISTAKES])
def test_a_mistake_is_refused_if_a_schema_can_know_it(text: str) -> None:
    assert bool(faults(with_settings(text))) == (text not in ONLY_THE_READER_KNOWS)


def test_values_may_be_variables_numbers_in_quotes_and_null() -> None:
    text = """{workers: '${env:N}', memory_mb: '512', previews: , builds: {memory_mb: '${self:custom.m}'},
        stages: {dev: , prod: {shield: 'true', access_log: off, sticky: false, rehearsal: {rate: '7'}}}}"""
    assert faults(with_settings(text)) == []


@pytest.mark.parametrize("name", ["AllAtOnce", "Canary5Percent30Seconds", "Linear10PercentEvery1Minute", "Canary", "x"])
def test_a_strategy_is_accepted_as_its_parser_accepts_it(name: str) -> None:
    try:
        known = bool(parse(name))
    except ValueError:
        known = False
    assert jsonschema_rs.Draft202012Validator(STAGE["strategy"].schema).is_valid(name) == known


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_key_of_the_framework_is_in_the_schema(key: Any) -> None:
    at, above = SCHEMAS[Document.SERVERLESS], ""
    for part in key.path.split("."):
        inside = "items" if above == "events" else "additionalProperties"
        at, above = (at[inside] if part == "*" else at["properties"][part]), part
    assert ("not" in at) == (key.here is Here.REFUSED)


@pytest.mark.parametrize("file", sorted(ROOT.glob("**/buildspec*.yml")), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_buildspec_of_the_repository_is_accepted(file: Path) -> None:
    assert list(BUILDSPEC.iter_errors(plain(read_yaml(file, file.name)))) == []


@pytest.mark.parametrize("text", ["{version: '0.1'}", "{version: 0.2, phase: {}}", "{version: 0.2, batch: {}}"])
def test_an_invalid_buildspec_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Buildspec.read(text)
    assert not BUILDSPEC.is_valid(plain(parse_yaml(text, "f.yml")))


@pytest.mark.parametrize(
    ("line", "valid"),
    [
        ('{"path": "/a", "method": "PUT", "body": {"a": 1}, "weight": 2, "status": 201}', True),
        ('{"method": "GET"}', False),
        ('{"path": "/", "weight": 0}', False),
        ('{"path": "/", "wieght": 1}', False),
    ],
)
def test_a_line_of_the_drills_requests_is_accepted_as_the_drill_accepts_it(line: str, valid: bool) -> None:
    assert REQUESTS.is_valid(json.loads(line)) == valid
    try:
        msgspec.json.decode(line, type=RequestLine)
    except msgspec.ValidationError:
        assert not valid
