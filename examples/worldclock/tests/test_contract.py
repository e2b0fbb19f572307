"""`openapi.json`, `serverless.yml` and the functions say the same."""

from __future__ import annotations

import json
import logging
import re
from datetime import date

import pytest
import yaml
from jsonschema import Draft202012Validator
from worldclock import fields
from worldclock import zones as time_zones
from worldclock.api import entry, resolver
from worldclock.errors import InvalidRequest
from worldclock.fields import Fields
from worldclock.handlers import convert, meetings, meta, zones

from .client import CONTEXT, FOLDER, Client, Route, event


def test_the_document_lists_the_routes_of_serverless_yml(client: Client) -> None:
    documented = {(method.upper(), path) for path, item in client.document["paths"].items() for method in item}

    assert documented == {(route.method, route.documented) for route in client.routes}


def test_the_document_is_served_as_it_stands(client: Client) -> None:
    assert client.get("/openapi.json").json == client.document


def test_each_schema_of_the_document_is_valid(client: Client) -> None:
    for schema in client.document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_limits_in_the_document_are_those_of_the_code(client: Client) -> None:
    schemas = client.document["components"]["schemas"]
    parameters = {p["name"]: p["schema"] for p in client.document["paths"]["/zones"]["get"]["parameters"]}

    assert parameters["limit"]["maximum"] == zones._MOST_ZONES
    assert parameters["limit"]["default"] == zones._DEFAULT_LIMIT
    assert schemas["ConversionRequest"]["properties"]["to"]["maxItems"] == convert._MOST_TARGETS
    assert schemas["MeetingRequest"]["properties"]["participants"]["maxItems"] == meetings._MOST_PARTICIPANTS


def test_the_patterns_and_names_in_the_document_are_those_of_the_code(client: Client) -> None:
    schemas = client.document["components"]["schemas"]

    assert schemas["ZoneName"]["enum"] == list(time_zones.NAMES)
    assert schemas["Day"]["pattern"] == f"^{fields.DAY}$"
    assert schemas["Instant"]["pattern"] == f"^{fields.INSTANT}$"
    assert schemas["Moment"]["pattern"] == f"^{fields.MOMENT}$"


@pytest.mark.parametrize("year", [1799, 1800, 1896, 1900, 2000, 2023, 2024, 2100, 2400, 2499, 2500])
def test_the_pattern_of_a_day_is_the_calendar(year: int) -> None:
    for month in range(14):
        for day in range(33):
            try:
                exists = bool(date(year, month, day)) and 1800 <= year < 2500
            except ValueError:
                exists = False
            assert bool(re.fullmatch(fields.DAY, f"{year}-{month:02}-{day:02}")) == exists


def test_every_smoke_request_is_answered(client: Client) -> None:
    service = yaml.safe_load((FOLDER / "serverless.yml").read_text(encoding="utf-8"))
    for smoke in service["custom"]["smoke"]:
        answer = client.send(smoke.get("method", "GET"), smoke["path"], smoke.get("body"))
        assert answer.status == smoke.get("status", 200), smoke


def test_an_unknown_route_has_the_shape_of_every_error() -> None:
    lost = Route("DELETE", "/health", meta.handler)
    answer = meta.handler(event(lost, "/health", "", {}, None), CONTEXT)

    assert answer["statusCode"] == 404
    assert json.loads(answer["body"])["error"]["code"] == "unknown_route"


def test_a_defect_is_logged_and_left_to_the_platform(caplog: pytest.LogCaptureFixture) -> None:
    app = resolver()

    @app.get("/broken")
    def broken() -> dict[str, object]:
        return {"never": 1 // 0}

    handler = entry(app)
    with pytest.raises(ZeroDivisionError), caplog.at_level(logging.ERROR):
        handler(event(Route("GET", "/broken", handler), "/broken", "", {}, None), CONTEXT)

    assert "unexpected error" in caplog.text


def test_unknown_fields_are_named() -> None:
    with pytest.raises(InvalidRequest, match="dat: is not a field; known are date"):
        Fields({"dat": 1}, known={"date"})
