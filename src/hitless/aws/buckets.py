"""The stage's artifact bucket: zips named by their digest, and one JSON document for each release.

An artifact's key is its digest, so an object is never overwritten with other bytes. Its digest is checked by the
SHA-256 that S3 computed at the upload. If S3 has none, the bytes are read back.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import ClientError

from hitless.aws.session import Ignoring, error_code
from hitless.errors import CloudError, ConflictError

_ABSENT = {"404", "NoSuchKey", "NotFound"}
_FASTER = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class Bucket:
    """One bucket. botocore's errors leave as they are: callers are inside `aws_errors`."""

    def __init__(self, s3: Any, name: str) -> None:
        self.name = name
        self._s3 = s3

    def put_artifact(self, sha256: str, zipped: Path) -> str:
        """Upload the artifact with that digest (hex) unless it is there; its key. Raises CloudError if bytes differ."""
        key = artifact_key(sha256)
        if self._digest_of(key) is None:
            with zipped.open("rb") as body:
                checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
                self._s3.put_object(Bucket=self.name, Key=key, Body=body, ChecksumSHA256=checksum)
        found = self._digest_of(key)
        if found != sha256:
            raise CloudError(
                f"s3://{self.name}/{key} does not hold the artifact that was built (its SHA-256 is {found})",
                hint="delete that object, check who may write to the bucket, and repeat",
            )
        return key

    def get_artifact(self, sha256: str, target: Path) -> None:
        """Write the artifact with that digest (hex) to a file. Raises CloudError if it is missing or differs."""
        key = artifact_key(sha256)
        try:
            body = self._s3.get_object(Bucket=self.name, Key=key)["Body"]
        except ClientError as error:
            if error_code(error) in _ABSENT:
                raise CloudError(
                    f"s3://{self.name}/{key} does not exist", hint="deploy its commit again: `hitless aws deploy`"
                ) from error
            raise
        if (found := save(body, target)) != sha256:
            raise CloudError(
                f"s3://{self.name}/{key} does not hold the artifact of that name (its SHA-256 is {found})",
                hint="check who may write to the bucket; deploy the release's commit again",
            )

    def get_json(self, key: str) -> tuple[Any, str] | None:
        """The document and its ETag, or None if there is none."""
        with Ignoring(*_ABSENT):
            found = self._s3.get_object(Bucket=self.name, Key=key)
            return json.loads(found["Body"].read()), str(found["ETag"])
        return None

    def put_json(self, key: str, document: Mapping[str, Any], *, new: bool = False, over: str = "") -> str:
        """Write the document and return its ETag. Raises ConflictError if another process was faster.

        With `new` the document must not exist. With `over` its ETag must be that one (Amazon S3 User Guide,
        "conditional writes").
        """
        condition = {"IfNoneMatch": "*"} if new else {"IfMatch": over} if over else {}
        body = json.dumps(document, sort_keys=True).encode()
        try:
            done = self._s3.put_object(
                Bucket=self.name, Key=key, Body=body, ContentType="application/json", **condition
            )
        except ClientError as error:
            if error_code(error) in _FASTER:
                raise ConflictError(
                    f"another process has just written {key}", hint="repeat the command: the newest release wins"
                ) from error
            raise
        return str(done["ETag"])

    def holds(self, sha256: str) -> bool:
        """Whether the artifact with that digest (hex) is in the bucket."""
        with Ignoring(*_ABSENT):
            self._s3.head_object(Bucket=self.name, Key=artifact_key(sha256))
            return True
        return False

    def url_of(self, key: str) -> str:
        """The object's address, as CloudFormation takes it for a template."""
        return f"{self._s3.meta.endpoint_url}/{self.name}/{key}"

    def keys(self, prefix: str) -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [str(each["Key"]) for page in pages for each in page.get("Contents", ())]

    def _digest_of(self, key: str) -> str | None:
        head = None
        with Ignoring(*_ABSENT):
            head = self._s3.head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED")
        if head is None:
            return None
        if checksum := head.get("ChecksumSHA256"):
            return base64.b64decode(checksum).hex()
        return hashlib.file_digest(self._s3.get_object(Bucket=self.name, Key=key)["Body"], "sha256").hexdigest()


def save(source: BinaryIO, target: Path) -> str:
    """Write the stream to the file. Returns the SHA-256 (hex) of what the file has then."""
    with target.open("w+b") as file:
        shutil.copyfileobj(source, file)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def artifact_key(sha256: str) -> str:
    """The key of the artifact with that digest (hex)."""
    return f"artifacts/{sha256}.zip"


_NO_BUCKET = ("NoSuchBucket", "404")


def empty_bucket(s3: Any, bucket: str) -> None:
    """Delete all versions of all objects. A missing bucket counts as empty.

    There is no way back: callers have asked a person. Raises CloudError if S3 refuses to delete an object, because of a
    lock or a policy: S3 reports that with status 200.
    """
    with Ignoring(*_NO_BUCKET):
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            held = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in held]
            if objects:
                answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
                for refused in answer.get("Errors", ()):
                    raise CloudError(
                        f"{bucket}: S3 does not delete {refused['Key']}: {refused['Code']} {refused['Message']}",
                        hint="check the bucket's policy and its object lock, then repeat the command",
                    )


def delete_bucket(s3: Any, bucket: str) -> None:
    """Empty and delete the bucket, if it is there."""
    empty_bucket(s3, bucket)
    with Ignoring(*_NO_BUCKET):
        s3.delete_bucket(Bucket=bucket)
