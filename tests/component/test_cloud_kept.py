"""Reading the live release from the bucket alone: its number, its document, and its artifacts by their digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.artifact.store import ArtifactStore
from hitless.aws.buckets import Bucket
from hitless.cloud.records.records import Record, Records
from hitless.cloud.release.promotion import fetch_artifacts, live_release
from hitless.errors import CloudError, ConflictError
from hitless.release.document import ReleaseDocument
from hitless.release.result import Outcome
from hitless.service.model import Hooks
from tests.unit.cloud_fakes import package

pytestmark = pytest.mark.component


@dataclass
class InMemoryBucket(Bucket):
    """Documents and artifacts by key."""

    held: dict[str, Any] = field(default_factory=dict)

    def get_json(self, key: str) -> tuple[Any, str] | None:
        return (json.loads(self.held[key]), "etag") if key in self.held else None

    def put_json(self, key: str, document: Mapping[str, Any], *, new: bool = False, over: str = "") -> str:
        self.held[key] = json.dumps(document)
        return "etag"

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.held if key.startswith(prefix)]

    def get_artifact(self, sha256: str, target: Path) -> None:
        target.write_bytes(self.held[sha256])
        if hashlib.sha256(self.held[sha256]).hexdigest() != sha256:
            raise CloudError("not its bytes")


KEPT = package("a", Hooks()).document(commit=None, message=None)


def record(number: int, outcome: str | None, ended_at: str | None) -> Record:
    return Record(
        number,
        "worldclock",
        "prod",
        "2026-11-24T08:00:00Z",
        "f",
        "AllAtOnce",
        outcome=Outcome(outcome) if outcome else None,
        ended_at=ended_at,
    )


def test_the_live_release_is_the_last_one_that_went_live() -> None:
    bucket = InMemoryBucket()
    records = Records(bucket, "prod")
    assert live_release(records) is None
    for number, outcome, ended_at in (
        (1, "live", "2026-11-24T12:00:00Z"),  # rolled back to
        (2, "live", "2026-11-24T10:00:00Z"),
        (3, "rolled_back", "2026-11-24T13:00:00Z"),
        (4, None, None),
    ):
        records.begin(record(number, outcome, ended_at), {}, new=True)
        records.keep_document(number, replace(KEPT, commit=str(number)))
    assert live_release(records) == (1, replace(KEPT, commit="1"))


def test_a_live_release_without_a_document_is_an_error() -> None:
    records = Records(InMemoryBucket(), "prod")
    records.begin(record(1, "live", "2026-11-24T12:00:00Z"), {}, new=True)
    with pytest.raises(
        ConflictError, match="release 1 of prod has no description, because an older hitless shipped it"
    ):
        live_release(records)


def test_a_package_for_aws_has_the_same_release_document_as_the_engine() -> None:
    made = package("a", Hooks())
    document = ReleaseDocument.from_json(json.loads(json.dumps(made.document(commit="1a2b", message="m").to_json())))
    assert document.functions == made.service.functions
    assert document.settings == made.service.settings
    assert (document.commit, document.message) == ("1a2b", "m")
    assert {name: one.digest for name, one in document.artifacts.items()} == {
        name: one.digest for name, one in made.artifacts.items()
    }


def test_artifacts_are_downloaded_once_and_their_digest_is_checked(tmp_path: Path) -> None:
    store, content = ArtifactStore(tmp_path / "artifacts"), b"PK\5\6" + bytes(18)  # a zip of no files
    sha256 = hashlib.sha256(content).hexdigest()
    bucket, digests = InMemoryBucket({sha256: content}), {f"sha256:{sha256}"}
    assert fetch_artifacts(bucket, store, digests) == 1
    assert store.zip_path(f"sha256:{sha256}").read_bytes() == content
    assert fetch_artifacts(bucket, store, digests) == 0

    wrong = "0" * 64
    with pytest.raises(CloudError):
        fetch_artifacts(InMemoryBucket({wrong: b"other"}), store, {f"sha256:{wrong}"})
    assert not store.zip_path(f"sha256:{wrong}").exists()
