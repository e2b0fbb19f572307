"""A bucket emptied and deleted: every version of every object. There is no way back; callers have asked a person."""

from __future__ import annotations

from typing import Any

from hitless.aws.session import Ignoring
from hitless.errors import CloudError

_ABSENT = ("NoSuchBucket", "404")


def empty_bucket(s3: Any, bucket: str) -> int:
    """Delete all versions of all objects; how many there were. A bucket that is not there counts as empty. CloudError
    where S3 refuses to delete one, for a lock on it, say, or a policy's denial: it answers 200 to that.
    """
    count = 0
    with Ignoring(*_ABSENT):
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            held = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in held]
            if objects:
                answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
                for refused in answer.get("Errors", ()):
                    raise CloudError(
                        f"{bucket}: S3 does not delete {refused['Key']}: {refused['Code']} {refused['Message']}",
                        hint="see the bucket's policy and its object lock, then repeat the command",
                    )
                count += len(objects)
    return count


def delete_bucket(s3: Any, bucket: str) -> None:
    """Empty and delete the bucket, if it is there."""
    empty_bucket(s3, bucket)
    with Ignoring(*_ABSENT):
        s3.delete_bucket(Bucket=bucket)
