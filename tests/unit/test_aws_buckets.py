"""Artifacts in the bucket: none with another digest. Documents: none overwritten that was not read."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from hitless.aws.buckets import Bucket, artifact_key
from hitless.errors import CloudError, ConflictError

pytestmark = pytest.mark.unit

CONTENT = b"a zip, as far as a digest knows"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FakeS3:
    """Objects by key; an ETag is the MD5. With `checksums` it computes SHA-256 at an upload, as S3 does."""

    def __init__(self, held: dict[str, bytes], *, checksums: bool = True) -> None:
        self.held, self.checksums, self.writes = held, checksums, 0

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - botocore's names
        content = self._found(Key, "NoSuchKey", "GetObject")
        return {"Body": StreamingBody(io.BytesIO(content), len(content)), "ETag": etag(content)}

    def head_object(self, Bucket: str, Key: str, ChecksumMode: str = "") -> dict[str, Any]:  # noqa: N803
        content = self._found(Key, "404", "HeadObject")
        if not (self.checksums and ChecksumMode):
            return {}
        return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(content).digest()).decode()}

    def put_object(self, Bucket: str, Key: str, Body: Any, **asked: str) -> dict[str, Any]:  # noqa: N803
        content = Body if isinstance(Body, bytes) else Body.read()
        held = self.held.get(Key)
        if "IfNoneMatch" in asked and held is not None:
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        if "IfMatch" in asked and (held is None or etag(held) != asked["IfMatch"]):
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self.held[Key] = content
        self.writes += 1
        return {"ETag": etag(content)}

    def _found(self, key: str, code: str, call: str) -> bytes:
        if key not in self.held:
            raise ClientError({"Error": {"Code": code}}, call)
        return self.held[key]


def etag(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def test_an_artifact_is_fetched_by_its_digest(tmp_path: Path) -> None:
    Bucket(FakeS3({artifact_key(SHA256): CONTENT}), "b").get_artifact(SHA256, tmp_path / "zip")
    assert (tmp_path / "zip").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("held", "message"),
    [({}, "does not exist"), ({artifact_key(SHA256): b"another"}, "does not hold the artifact of that name")],
)
def test_a_missing_or_damaged_artifact_is_refused(tmp_path: Path, held: dict[str, bytes], message: str) -> None:
    with pytest.raises(CloudError, match=message):
        Bucket(FakeS3(held), "b").get_artifact(SHA256, tmp_path / "zip")


@pytest.mark.parametrize("checksums", [True, False], ids=["of S3's own", "read back"])
def test_an_artifact_is_written_once_and_its_digest_is_checked(tmp_path: Path, checksums: bool) -> None:
    (tmp_path / "zip").write_bytes(CONTENT)
    s3 = FakeS3({}, checksums=checksums)
    for _ in range(2):
        assert Bucket(s3, "b").put_artifact(SHA256, tmp_path / "zip") == artifact_key(SHA256)
    assert (s3.held, s3.writes) == ({artifact_key(SHA256): CONTENT}, 1)
    s3.held[artifact_key(SHA256)] = b"another"
    with pytest.raises(CloudError, match="does not hold the artifact that was built"):
        Bucket(s3, "b").put_artifact(SHA256, tmp_path / "zip")


def test_the_slower_of_two_writers_gets_a_conflict() -> None:
    bucket = Bucket(FakeS3({}), "b")
    first = bucket.put_json("1.json", {"of": 1}, new=True)
    with pytest.raises(ConflictError, match=r"has just written 1\.json"):
        bucket.put_json("1.json", {"of": 2}, new=True)
    second = bucket.put_json("1.json", {"of": 3}, over=first)
    with pytest.raises(ConflictError, match=r"has just written 1\.json"):
        bucket.put_json("1.json", {"of": 4}, over=first)
    assert bucket.get_json("1.json") == ({"of": 3}, second)
