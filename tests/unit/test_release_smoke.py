"""The loop of smoke requests, with the sending as a fake."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hitless.errors import CandidateFailedError
from hitless.release.smoke import ANY_STATUS, SmokeResponse, find_route, send_smoke_requests
from hitless.service.event_sources import Route
from hitless.service.model import Function, SmokeRequest

pytestmark = pytest.mark.unit

ONE = Function("one", "src/app.one", routes=(Route("GET", "/zones/{area}"),))
ALL = Function("all", "src/app.all", routes=(Route("ANY", "/{proxy+}"),))


def sent(responses: Mapping[str, SmokeResponse], *requests: SmokeRequest) -> tuple[str | None, list[str]]:
    """What the loop returned, and which function got which path."""
    seen: list[str] = []

    def send(request: SmokeRequest, function: Function, route: Route) -> SmokeResponse:
        seen.append(f"{function.name} {route} {request.path}")
        return responses.get(function.name, SmokeResponse(200, ""))

    return send_smoke_requests(requests, (ONE, ALL), send, logs="logs"), seen


def test_each_request_goes_to_the_function_of_the_most_specific_route() -> None:
    requests = (SmokeRequest("GET", "/zones/eu?x=1"), SmokeRequest("POST", "/zones/eu"))
    assert sent({}, *requests) == (None, ["one GET /zones/{area} /zones/eu?x=1", "all ANY /{proxy+} /zones/eu"])
    assert find_route((ONE,), "POST", "/zones/eu") is None


def test_a_request_without_a_route_fails_the_candidate() -> None:
    with pytest.raises(CandidateFailedError, match="no route of the candidate matches it"):
        sent({}, SmokeRequest("GET", "/"))


@pytest.mark.parametrize("status", [500, "no response"])
def test_an_unexpected_status_fails_the_candidate_and_names_the_logs(status: int | str) -> None:
    with pytest.raises(CandidateFailedError, match=f"GET /a: {status} instead of 200: b+$") as caught:
        sent({"all": SmokeResponse(status, "b" * 1000)}, SmokeRequest("GET", "/a"))
    assert caught.value.hint == "see `logs all`"
    assert len(caught.value.message) < 400


def test_any_status_is_accepted_with_a_note_about_an_error() -> None:
    requests = SmokeRequest("GET", "/a", status=ANY_STATUS), SmokeRequest("GET", "/b", status=ANY_STATUS)
    assert sent({"all": SmokeResponse(404, "")}, *requests)[0] == "GET /a: 404, see `logs all`"
    assert sent({}, *requests)[0] is None


@pytest.mark.parametrize("status", [ANY_STATUS, 502])
def test_a_handler_that_returns_no_response_always_fails_the_candidate(status: int) -> None:
    with pytest.raises(CandidateFailedError, match=r"src/app\.py: all \(function all\) returned no statusCode"):
        sent({"all": SmokeResponse(502, "", "None")}, SmokeRequest("GET", "/a", status=status))
