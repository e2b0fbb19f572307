"""A bucket is emptied completely, or an object that S3 keeps is reported, to which S3 responds with 200."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from hitless.aws.buckets import empty_bucket
from hitless.errors import CloudError

pytestmark = pytest.mark.unit


def bucket_whose_deletion_answers(answer: dict[str, Any]) -> Stubber:
    s3 = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
    stubber = Stubber(s3)
    held = {"Versions": [{"Key": "kept.zip", "VersionId": "1"}], "DeleteMarkers": [{"Key": "old", "VersionId": "2"}]}
    stubber.add_response("list_object_versions", held, {"Bucket": "artifacts"})
    objects = [{"Key": "kept.zip", "VersionId": "1"}, {"Key": "old", "VersionId": "2"}]
    wanted = {"Bucket": "artifacts", "Delete": {"Objects": objects, "Quiet": True}}
    stubber.add_response("delete_objects", answer, wanted)
    stubber.activate()
    return stubber


def test_emptying_a_bucket_deletes_every_version_and_delete_marker() -> None:
    s3 = bucket_whose_deletion_answers({})
    empty_bucket(s3.client, "artifacts")
    s3.assert_no_pending_responses()


def test_an_object_that_s3_does_not_delete_is_reported() -> None:
    errors = [{"Key": "kept.zip", "VersionId": "1", "Code": "AccessDenied", "Message": "Access Denied"}]
    with pytest.raises(CloudError, match=r"artifacts: S3 does not delete kept\.zip: AccessDenied") as caught:
        empty_bucket(bucket_whose_deletion_answers({"Errors": errors}).client, "artifacts")
    assert "object lock" in caught.value.hint
