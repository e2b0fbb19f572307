"""The event of a release's end: what EventBridge gets, and that no failure to send it changes a release."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from hitless.aws.events import DETAIL_TYPE, SOURCE, ReleaseEnded, send_event
from hitless.aws.template import load_template
from hitless.release.result import Outcome
from tests.unit.cloud_fakes import World

pytestmark = pytest.mark.unit

ENDED = ReleaseEnded("worldclock", "prod", 12, "rolled_back", "deploy", "1f2e3d", 3, "alarm rings")


def stubbed(said: list[str]) -> tuple[Stubber, Callable[[ReleaseEnded], None]]:
    """botocore checks calls and responses against AWS's own model of EventBridge."""
    client = boto3.Session(aws_access_key_id="A", aws_secret_access_key="B").client("events", region_name="us-east-1")
    return Stubber(client), partial(send_event, client, said.append)


def test_the_event_has_the_receipts_short_form() -> None:
    said: list[str] = []
    stub, send = stubbed(said)
    sent: dict[str, Any] = {}
    entry = {"Source": SOURCE, "DetailType": DETAIL_TYPE, "Detail": ANY}
    stub.add_response("put_events", {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}, {"Entries": [entry]})
    stub.client.meta.events.register("provide-client-params.events.PutEvents", lambda params, **_: sent.update(params))
    with stub:
        send(ENDED)
    assert json.loads(sent["Entries"][0]["Detail"]) == {
        "service": "worldclock",
        "stage": "prod",
        "release": 12,
        "result": "rolled_back",
        "verb": "deploy",
        "commit": "1f2e3d",
        "failures": 3,
        "reason": "alarm rings",
    }
    assert said == []


def test_a_refused_event_is_only_reported() -> None:
    """EventBridge API Reference, PutEvents: FailedEntryCount and the entry's ErrorCode come with status 200."""
    said: list[str] = []
    stub, send = stubbed(said)
    refused = {"ErrorCode": "NotAuthorizedForSourceException", "ErrorMessage": "no permission for this source"}
    stub.add_response("put_events", {"FailedEntryCount": 1, "Entries": [refused]})
    stub.add_client_error("put_events", "AccessDeniedException", "not authorized to perform: events:PutEvents")
    with stub:
        send(ENDED)
        send(ENDED)
    refusal, denial = said
    assert refusal.endswith("sent: NotAuthorizedForSourceException: no permission for this source")
    assert denial.startswith("note: the event of this release's end was not sent: ")
    assert "events:PutEvents" in denial


def test_the_deploy_role_may_send_this_event_alone() -> None:
    statements = load_template("core")["Resources"]["DeployRole"]["Properties"]["Policies"][0]["PolicyDocument"][
        "Statement"
    ]
    (ours,) = [one for one in statements if "events:PutEvents" in one.get("Action", ())]
    assert ours["Resource"]["Fn::Sub"].endswith(":event-bus/default")
    keys = {"events:source": SOURCE, "events:detail-type": DETAIL_TYPE}
    assert ours["Condition"] == {"ForAllValues:StringEquals": keys, "Null": dict.fromkeys(keys, "false")}


def test_each_release_sends_one_event_when_it_ends() -> None:
    world = World()
    world.deploy("a")
    assert world.deploy("a").outcome is Outcome.UNCHANGED
    world.deploy("b")
    assert [(one.release, one.result, one.verb, one.commit) for one in world.sent] == [
        (1, "live", "deploy", "commit-a"),
        (2, "live", "deploy", "commit-b"),
    ]
