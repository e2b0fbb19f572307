"""The functions through their routes: what clients ask, and what they get when they ask wrongly."""

from __future__ import annotations

import json

import pytest

from .client import Client

CET = {"offset": "+01:00", "abbreviation": "CET", "dst": False}
CEST = {"offset": "+02:00", "abbreviation": "CEST", "dst": True}


def test_a_zone_shows_its_time_and_the_transitions_around_it(client: Client) -> None:
    answer = client.get("/zones/Europe/Berlin?at=2026-07-01T12:00:00Z")

    assert answer.status == 200
    assert answer.json["local"] == "2026-07-01T14:00:00+02:00"
    assert answer.json["dst"] is True
    assert answer.json["country"] == {"code": "DE", "name": "Germany"}
    assert answer.json["previous_transition"] == {
        "at": "2026-03-29T01:00:00Z",
        "before": CET,
        "after": CEST,
        "shift_seconds": 3600,
    }
    assert answer.json["next_transition"]["at"] == "2026-10-25T01:00:00Z"
    assert answer.json["next_transition"]["shift_seconds"] == -3600


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia"])
def test_a_zone_is_found_whatever_the_parts_of_its_name(client: Client, name: str) -> None:
    assert client.get(f"/zones/{name}").json["zone"] == name


def test_the_slashes_of_a_zone_may_be_encoded(client: Client) -> None:
    assert client.get("/zones/America%2FArgentina%2FUshuaia").json["zone"] == "America/Argentina/Ushuaia"


def test_a_zone_that_never_changes_has_no_transitions(client: Client) -> None:
    answer = client.get("/zones/UTC")

    assert (answer.json["previous_transition"], answer.json["next_transition"]) == (None, None)


@pytest.mark.parametrize("name", ["Mars/Phobos", "europe/berlin", "../zones", "Europe/../UTC", "Europe", "Factory/"])
def test_an_unknown_zone_is_404(client: Client, name: str) -> None:
    answer = client.get(f"/zones/{name}")

    assert (answer.status, answer.json["error"]["code"]) == (404, "unknown_zone")
    assert answer.json["error"]["details"] == {"zone": name}


def test_search_finds_zones_by_their_country(client: Client) -> None:
    found = client.get("/zones?q=argentina&limit=100").json

    names = [item["zone"] for item in found["zones"]]
    assert "America/Argentina/Ushuaia" in names
    assert found["total"] == len(names)
    assert found["next"] is None


def test_search_takes_a_space_for_an_underscore(client: Client) -> None:
    assert [item["zone"] for item in client.get("/zones?q=new%20york").json["zones"]] == ["America/New_York"]


def test_the_pages_of_the_list_hold_every_zone_once(client: Client) -> None:
    names: list[str] = []
    target = "/zones?limit=100"
    while target:
        page = client.get(target).json
        names += [item["zone"] for item in page["zones"]]
        target = page["next"]

    assert len(names) == page["total"] == len(set(names))
    assert names == sorted(names)


def test_the_next_page_keeps_the_search(client: Client) -> None:
    first = client.get("/zones?q=united%20states&limit=10").json
    second = client.get(first["next"]).json

    assert second["total"] == first["total"]
    assert second["offset"] == 10
    assert not {str(item) for item in first["zones"]} & {str(item) for item in second["zones"]}


def test_an_instant_is_converted_to_several_zones(client: Client) -> None:
    answer = client.get("/convert?instant=2026-11-24T12:00:00Z&to=Asia/Kolkata&to=America/New_York")

    assert answer.json["from"] is None
    assert [local["local"] for local in answer.json["to"]] == ["2026-11-24T17:30:00+05:30", "2026-11-24T07:00:00-05:00"]


def test_a_plus_that_the_query_lost_is_understood(client: Client) -> None:
    answer = client.get("/convert?instant=2026-11-24T12:00:00+01:00&to=UTC")

    assert answer.json["instant"] == "2026-11-24T11:00:00Z"


def test_a_local_time_is_read_on_the_clocks_of_its_zone(client: Client) -> None:
    answer = client.post(
        "/convert", {"instant": "2026-11-24T12:00", "from": "Europe/Berlin", "to": ["Pacific/Auckland"]}
    )

    assert answer.json["instant"] == "2026-11-24T11:00:00Z"
    assert answer.json["to"][0]["local"] == "2026-11-25T00:00:00+13:00"


@pytest.mark.parametrize(
    ("choice", "instant"), [("earlier", "2026-10-25T00:30:00Z"), ("later", "2026-10-25T01:30:00Z")]
)
def test_of_a_local_time_that_comes_twice_the_client_chooses_one(client: Client, choice: str, instant: str) -> None:
    answer = client.get(f"/convert?instant=2026-10-25T02:30&from=Europe/Berlin&to=UTC&when_ambiguous={choice}")

    assert answer.json["instant"] == instant
    assert answer.json["ambiguous"] is True


def test_a_local_time_that_is_skipped_is_422_and_says_when_the_clocks_go_on(client: Client) -> None:
    answer = client.post("/convert", {"instant": "2026-03-29T02:30", "from": "Europe/Berlin", "to": ["UTC"]})

    assert (answer.status, answer.json["error"]["code"]) == (422, "nonexistent_time")
    assert answer.json["error"]["details"]["next_local"] == "2026-03-29T03:00:00+02:00"


def test_an_instant_without_offset_and_zone_is_422(client: Client) -> None:
    answer = client.get("/convert?instant=2026-11-24T12:00&to=UTC")

    assert (answer.status, answer.json["error"]["code"]) == (422, "missing_offset")


def test_meeting_hours_are_those_in_which_all_are_at_work(client: Client) -> None:
    participants = [{"zone": "Europe/Berlin"}, {"zone": "America/New_York", "from": "08:00", "until": "16:00"}]
    answer = client.post("/meetings", {"date": "2026-11-24", "duration_minutes": 45, "participants": participants})

    assert answer.json["windows"] == [
        {
            "from": "2026-11-24T13:00:00Z",
            "until": "2026-11-24T16:00:00Z",
            "latest_start": "2026-11-24T15:15:00Z",
            "minutes": 180,
            "local": [
                {"zone": "Europe/Berlin", "from": "2026-11-24T14:00:00+01:00", "until": "2026-11-24T17:00:00+01:00"},
                {"zone": "America/New_York", "from": "2026-11-24T08:00:00-05:00", "until": "2026-11-24T11:00:00-05:00"},
            ],
        }
    ]


def test_no_common_hours_are_an_empty_list(client: Client) -> None:
    participants = [{"zone": "Europe/Berlin"}, {"zone": "Pacific/Auckland"}]
    answer = client.post("/meetings", {"date": "2026-11-24", "duration_minutes": 30, "participants": participants})

    assert (answer.status, answer.json["windows"]) == (200, [])


ONE = {"zone": "UTC"}


@pytest.mark.parametrize(
    ("method", "target", "body", "field"),
    [
        ("GET", "/zones?limit=0", None, "limit"),
        ("GET", "/zones?limit=many", None, "limit"),
        ("GET", "/zones?limit=", None, "limit"),
        ("GET", "/zones?offset=-1", None, "offset"),
        ("GET", "/zones?page=2", None, "page"),
        ("GET", "/zones/UTC?at=2026-11-24T12:00", None, "at"),
        ("GET", "/zones/UTC?at=yesterday", None, "at"),
        ("GET", "/zones/UTC?at=1799-12-31T23:59:59Z", None, "at"),
        ("GET", "/zones/UTC?at=2500-01-01T00:00:00Z", None, "at"),
        ("GET", "/zones/UTC?at=9999-12-31T23:59:59-12:00", None, "at"),
        ("GET", "/zones/UTC?at=0001-01-01T00:00:00%2B12:00", None, "at"),
        ("GET", "/convert?to=UTC", None, "instant"),
        ("GET", "/convert?instant=2026-11-24T12:00Z", None, "to"),
        ("GET", "/convert?instant=2026-11-24T12:00Z&to=UTC&to=Mars/Phobos", None, "to[1]"),
        ("POST", "/convert", {"instant": 5, "to": ["UTC"]}, "instant"),
        ("POST", "/convert", {"instant": "2026-11-24T12:00Z", "to": "UTC"}, "to"),
        ("POST", "/convert", {"instant": "2026-11-24T12:00Z", "to": []}, "to"),
        ("POST", "/convert", {"instant": "2026-11-24T12:00Z", "to": ["UTC"] * 21}, "to"),
        ("POST", "/convert", {"instant": "2026-11-24T12:00Z", "to": ["UTC"], "when_ambiguous": []}, "when_ambiguous"),
        ("POST", "/convert", [], None),
        ("POST", "/meetings", {"date": "24.11.2026", "duration_minutes": 30, "participants": [ONE]}, "date"),
        ("POST", "/meetings", {"date": "2026-02-30", "duration_minutes": 30, "participants": [ONE]}, "date"),
        (
            "POST",
            "/meetings",
            {"date": "2026-11-24", "duration_minutes": True, "participants": [ONE]},
            "duration_minutes",
        ),
        ("POST", "/meetings", {"date": "2026-11-24", "duration_minutes": 30, "participants": []}, "participants"),
        ("POST", "/meetings", {"date": "2026-11-24", "duration_minutes": 30, "participants": [3]}, "participants[0]"),
        (
            "POST",
            "/meetings",
            {"date": "2026-11-24", "duration_minutes": 30, "participants": [ONE, {"zone": "UTC", "from": "9"}]},
            "participants[1].from",
        ),
        (
            "POST",
            "/meetings",
            {"date": "2026-11-24", "duration_minutes": 30, "participants": [{"zone": "UTC", "until": "24:00"}]},
            "participants[0].until",
        ),
    ],
)
def test_a_wrong_field_is_400_and_named(
    client: Client, method: str, target: str, body: object, field: str | None
) -> None:
    answer = client.send(method, target, None if body is None else json.dumps(body))

    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")
    assert answer.json["error"]["details"]["field"] == field


@pytest.mark.parametrize("body", [None, "", "{", "null", '"text"', "[" * 100_000, "{'a': 1}"])
def test_a_body_that_is_no_json_object_is_400(client: Client, body: str | None) -> None:
    answer = client.send("POST", "/meetings", body)

    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")


def test_health_says_ok(client: Client) -> None:
    assert client.get("/health").json == {"status": "ok"}


def test_the_version_says_which_release_answers(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "12")
    monkeypatch.setenv("HITLESS_COMMIT", "1a2b3c")
    monkeypatch.setenv("STAGE", "prod")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "worldclock")
    answer = client.get("/version").json

    assert {name: answer[name] for name in ("service", "stage", "release", "commit")} == {
        "service": "worldclock",
        "stage": "prod",
        "release": 12,
        "commit": "1a2b3c",
    }


def test_an_unpublished_version_is_no_release(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")

    assert client.get("/version").json["release"] is None


def test_no_answer_shows_the_environment(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-show-me")

    assert "do-not-show-me" not in json.dumps([client.get(f"/{name}").json for name in ("health", "version")])
