"""The client that the tests share."""

from __future__ import annotations

import json

import pytest

from .client import FOLDER, Client, routes


@pytest.fixture(scope="session")
def client() -> Client:
    document = json.loads((FOLDER / "worldclock" / "openapi.json").read_text(encoding="utf-8"))
    return Client(list(routes()), document)
