"""The code that a function runs, by Lambda's responses: the version that equals `$LATEST`, and its bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hitless.aws.lambdas import Lambdas
from hitless.errors import CloudError

pytestmark = pytest.mark.unit

ZIP = b"a zip"
SHA256 = hashlib.sha256(ZIP).hexdigest()
LATEST: Mapping[str, Any] = {
    "CodeSha256": base64.b64encode(bytes.fromhex(SHA256)).decode(),
    "CodeSize": 5,
    "Handler": "app.handler",
    "MemorySize": 128,
    "Environment": {"Variables": {"A": "1"}},
    "RevisionId": "r1",
    "State": "Active",
}


@dataclass
class Pages:
    """A paginator."""

    pages: list[dict[str, Any]]

    def paginate(self, FunctionName: str) -> list[dict[str, Any]]:  # noqa: N803
        return self.pages


class FakeLambda:
    """One function. `versions`: number → its differences from `$LATEST`. Its list has few fields, as on AWS."""

    def __init__(self, versions: Mapping[str, Mapping[str, Any]], location: str = "") -> None:
        self._versions, self._location = versions, location

    def get_function_configuration(self, FunctionName: str, Qualifier: str = "$LATEST") -> dict[str, Any]:  # noqa: N803
        return {**LATEST, "Version": Qualifier, "RevisionId": Qualifier, **self._versions.get(Qualifier, {})}

    def get_function(self, FunctionName: str, Qualifier: str) -> dict[str, Any]:  # noqa: N803
        return {"Code": {"Location": self._location}}

    def get_paginator(self, name: str) -> Pages:
        if name == "list_aliases":
            return Pages([{"Aliases": [{"Name": "live"}]}])
        numbers = [{"Version": number} for number in self._versions]
        return Pages([{"Versions": [{"Version": "$LATEST"}]}, {"Versions": numbers}])


@pytest.mark.parametrize(
    ("versions", "same"),
    [
        ({}, None),
        ({"1": {}}, "1"),
        ({"1": {}, "2": {"MemorySize": 256}}, None),
        ({"9": {"Handler": "other"}, "10": {}}, "10"),
        ({"3": {"CodeSha256": "x"}}, None),
        ({"3": {"State": "Inactive", "Description": "osls' own", "RuntimeVersionConfig": {}}}, "3"),
    ],
)
def test_a_function_runs_its_newest_version_if_that_equals_latest(versions: Any, same: str | None) -> None:
    found = Lambdas(FakeLambda(versions)).running("demo", alias="live")
    assert found is not None
    assert (found.version, found.sha256, found.zip_bytes, found.has_live_alias) == (same, SHA256, 5, True)


def test_downloaded_code_with_another_digest_is_refused(tmp_path: Path) -> None:
    source, to = tmp_path / "source.zip", tmp_path / "to.zip"
    source.write_bytes(ZIP)
    code = Lambdas(FakeLambda({}, source.as_uri()))
    code.download("demo", SHA256, to)
    assert to.read_bytes() == ZIP
    source.write_bytes(b"another zip")
    with pytest.raises(CloudError, match="the downloaded code has the SHA-256"):
        code.download("demo", SHA256, to)
