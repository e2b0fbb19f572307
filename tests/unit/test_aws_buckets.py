"""Artifacts out of the bucket: none that is not its own bytes."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from hitless.aws.buckets import Bucket, artifact_key
from hitless.errors import CloudError

pytestmark = pytest.mark.unit

CONTENT = b"a zip, as far as a digest knows"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FakeS3:
    def __init__(self, held: dict[str, bytes]) -> None:
        self.held = held

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - botocore's names
        if Key not in self.held:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return {"Body": StreamingBody(io.BytesIO(self.held[Key]), len(self.held[Key]))}


def test_an_artifact_is_fetched_by_its_digest(tmp_path: Path) -> None:
    Bucket(FakeS3({artifact_key(SHA256): CONTENT}), "b").get_artifact(SHA256, tmp_path / "zip")
    assert (tmp_path / "zip").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("held", "message"),
    [({}, "is not there"), ({artifact_key(SHA256): b"another"}, "does not hold the artifact of its name")],
)
def test_one_that_is_gone_or_is_not_its_own_bytes_is_refused(
    tmp_path: Path, held: dict[str, bytes], message: str
) -> None:
    with pytest.raises(CloudError, match=message):
        Bucket(FakeS3(held), "b").get_artifact(SHA256, tmp_path / "zip")
