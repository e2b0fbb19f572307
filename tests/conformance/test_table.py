"""The table of cases is well-formed, its sources are used sparingly, and its document is up to date."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.conformance.document import DOCUMENT, written
from tests.conformance.table import (
    MOST_CASES_OF_A_PAGE,
    NOT_IMPLEMENTED,
    SERVICES,
    Expected,
    Flavour,
    Kind,
    load_cases,
)

pytestmark = pytest.mark.unit


def test_there_are_at_least_three_hundred_cases_of_every_flavour() -> None:
    cases = load_cases()
    assert len(cases) >= 300
    assert {case.flavour for case in cases} == set(Flavour)


def test_ids_are_unique_lower_case_words() -> None:
    ids = [case.id for case in load_cases()]
    assert not [name for name, count in Counter(ids).items() if count > 1]
    assert not [name for name in ids if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name)]


def test_every_case_has_a_title_a_public_source_and_a_short_quote() -> None:
    for case in load_cases():
        assert case.title[0].isalpha() or case.title[0] in "_/", case.id
        assert not case.title.endswith("."), case.id
        assert re.fullmatch(r"https://[a-z0-9.-]+/\S+", case.source), case.id
        assert 0 < len(case.quote) <= 300, case.id


def test_no_page_is_the_source_of_too_many_cases() -> None:
    pages = Counter(case.source.partition("#")[0] for case in load_cases())
    assert {page: count for page, count in pages.items() if count > MOST_CASES_OF_A_PAGE} == {}


def test_every_case_expects_something_of_a_request_or_an_invocation() -> None:
    for case in load_cases():
        assert case.expect != Expected(), case.id
        assert case.request is None or case.event is msgspec.UNSET, case.id
        assert case.expect.result is msgspec.UNSET or case.invoked, case.id


@pytest.mark.parametrize("service", sorted(path.name for path in SERVICES.iterdir()))
def test_every_route_and_function_of_a_case_is_in_its_service(service: str) -> None:
    document = yaml.safe_load((SERVICES / service / "serverless.yml").read_text("utf-8"))
    for case in load_cases():
        if case.service == service:
            function = document["functions"].get(case.function)
            assert function, f"{case.id}: no function {case.function}"
            if not case.invoked:
                assert case.route in set(_routes(function)), f"{case.id}: {case.function} has no route {case.route}"


def _routes(function: dict[str, Any]) -> list[str]:
    """`GET /path` of each HTTP event; a function URL serves every path."""
    routes = ["url"] if function.get("url") else []
    for event in function.get("events", ()):
        for kind in ("http", "httpApi"):
            match event.get(kind):
                case str(route):
                    routes.append(route)
                case {"method": str(method), "path": str(path)}:
                    routes.append(f"{method.upper()} {path}")
    return routes


def test_every_service_has_cases_and_every_missing_feature_has_a_service() -> None:
    used = {case.service for case in load_cases()}
    assert used == {path.name for path in SERVICES.iterdir()}
    assert {service for feature in NOT_IMPLEMENTED for service in feature.services} <= used


def test_a_deviation_has_a_reason_and_each_missing_feature_is_listed_once() -> None:
    deviations = [case.deviation for case in load_cases() if case.deviation]
    reasons = {feature.reason for feature in NOT_IMPLEMENTED}
    assert {deviation.reason for deviation in deviations if deviation.kind is Kind.NOT_IMPLEMENTED} == reasons
    assert not [deviation for deviation in deviations if len(deviation.reason.split()) < 3]


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text("utf-8") == written(load_cases()), "run scripts/conformance --write-docs"


def test_a_malformed_case_is_refused_with_its_file_and_id(tmp_path: Path) -> None:
    bad = {"topic": "x", "sources": {"a": "https://example.com/a"}, "cases": [{"id": "bad-case", "source": "a"}]}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(bad))
    with pytest.raises(ValueError, match=r"bad\.yaml: bad-case"):
        load_cases(tmp_path)


def test_every_pattern_compiles_and_every_operator_is_known() -> None:
    for case in load_cases():
        for operator, operand in _operators(msgspec.to_builtins(case.expect)):
            assert operator in {"$regex", "$absent", "$any", "$not", "$keys"}, case.id
            if operator == "$regex":
                re.compile(operand)
        for pattern in (*case.expect.log, *case.expect.no_log):
            re.compile(pattern)


def _operators(value: Any) -> Iterator[tuple[str, Any]]:
    match value:
        case dict():
            for key, inner in value.items():
                if key.startswith("$"):
                    yield key, inner
                else:
                    yield from _operators(inner)
        case list() | tuple():
            for inner in value:
                yield from _operators(inner)
