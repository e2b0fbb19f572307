"""The differences of two releases as a person reads them."""

from __future__ import annotations

import pytest

from hitless.release.changes import differences

pytestmark = pytest.mark.unit

GET, POST = {"method": "GET", "path": "/orders"}, {"method": "POST", "path": "/orders"}


def test_routes_and_smoke_requests_are_listed_as_added_and_removed() -> None:
    old, new = {"routes": [GET, POST], "smoke": []}, {"routes": [POST], "smoke": [{**GET, "body": None, "status": 200}]}
    assert differences(old, new) == ["routes: removed GET /orders", "smoke: added GET /orders, status 200"]
    assert differences({"routes": [GET, POST]}, {"routes": [POST, GET]}) == ["routes: new order"]
