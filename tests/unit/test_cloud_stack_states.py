"""The service's stack in each state before or after a release: the steps taken, and the messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from hitless.aws.osls import Osls
from hitless.aws.stacks import Stacks
from hitless.cloud.stage.stage import ROLE_TRIES, ServiceStack, StillAtWorkError
from hitless.errors import CloudError, ConflictError, HitlessError
from tests.aws.front.unspread import REFUSALS
from tests.unit.aws_fakes import FakeCloudFormation, FakeStack, FakeTime
from tests.unit.cloud_fakes import CORE

pytestmark = pytest.mark.unit

NAME = "clock-dev"
TEMPLATE: dict[str, Any] = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}


class Deployed(FakeCloudFormation):
    """With what a service's stack is asked besides."""

    template: Mapping[str, Any] = {}

    def get_template(self, StackName: str, TemplateStage: str) -> dict[str, Any]:  # noqa: N803 - botocore's names
        return {"TemplateBody": json.dumps(self.template)}


@dataclass
class FakeOsls:
    """osls whose deploy runs `act`, and returns `words` if it failed."""

    act: Callable[[], None] = lambda: None
    words: str | None = None
    states: list[Mapping[str, Any]] = field(default_factory=list)

    def deploy(self, folder: Path, state: Mapping[str, Any]) -> str | None:
        self.states.append(state)
        self.act()
        return self.words


def service_stack(cf: FakeCloudFormation, osls: FakeOsls, said: list[str] | None = None) -> ServiceStack:
    say = (said if said is not None else []).append
    return ServiceStack(
        NAME, service="clock", stage="dev", region="eu-central-1", core=CORE,
        stacks=Stacks(cf, say=say, clock=FakeTime()), cloudformation=cf, lambdas=cast(Any, None),
        osls=lambda: cast(Osls, osls), say=say, now=lambda: datetime(2026, 11, 24, tzinfo=UTC),
    )  # fmt: skip


def in_state(status: str, *ahead: str, **more: Any) -> Deployed:
    cf = Deployed()
    cf.stacks[NAME] = FakeStack(status, list(ahead), **more)
    return cf


@pytest.mark.parametrize(
    ("status", "ahead", "calls", "left"),
    [
        ("ROLLBACK_COMPLETE", (), ["delete_stack"], None),
        ("CREATE_FAILED", (), ["delete_stack"], None),
        ("DELETE_FAILED", (), ["delete_stack"], None),
        ("ROLLBACK_FAILED", (), ["delete_stack"], None),
        ("UPDATE_ROLLBACK_FAILED", (), ["continue_update_rollback"], "UPDATE_ROLLBACK_COMPLETE"),
        ("UPDATE_FAILED", (), ["rollback_stack"], "UPDATE_ROLLBACK_COMPLETE"),
        ("UPDATE_ROLLBACK_COMPLETE", (), [], "UPDATE_ROLLBACK_COMPLETE"),
        ("UPDATE_COMPLETE", (), [], "UPDATE_COMPLETE"),
        ("REVIEW_IN_PROGRESS", (), ["delete_stack"], None),
        ("UPDATE_IN_PROGRESS", ("UPDATE_IN_PROGRESS", "UPDATE_COMPLETE"), [], "UPDATE_COMPLETE"),
        ("CREATE_IN_PROGRESS", ("ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE"), ["delete_stack"], None),
        ("DELETE_IN_PROGRESS", ("DELETE_COMPLETE",), [], None),
        ("UPDATE_ROLLBACK_IN_PROGRESS", ("UPDATE_ROLLBACK_FAILED",), ["continue_update_rollback"],
         "UPDATE_ROLLBACK_COMPLETE"),
    ],
)  # fmt: skip
def test_before_a_release_the_stack_is_brought_into_an_updatable_state(
    status: str, ahead: tuple[str, ...], calls: list[str], left: str | None
) -> None:
    cf = in_state(status, *ahead)
    service_stack(cf, FakeOsls()).settle()
    assert cf.calls == calls
    assert (cf.stacks[NAME].status if NAME in cf.stacks else None) == left


@pytest.mark.parametrize("tags", [{}, {"hitless:service": "clock", "hitless:stage": "prod"}])
@pytest.mark.parametrize("status", ["CREATE_COMPLETE", "ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED"])
def test_another_services_stack_is_refused_in_any_state_and_never_changed(status: str, tags: dict[str, str]) -> None:
    cf = in_state(status, tags=tags)
    with pytest.raises(ConflictError, match=r"clock-dev (is not this service's|was not made by hitless)"):
        service_stack(cf, FakeOsls()).settle()
    assert cf.calls == []


@pytest.mark.parametrize(
    "end", ["UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED", "UPDATE_FAILED", "ROLLBACK_COMPLETE", "DELETE_FAILED"]
)
def test_a_failed_update_reports_its_first_cause(end: str) -> None:
    cf = in_state("UPDATE_COMPLETE")

    def fail() -> None:
        cf.stacks[NAME].event("Topic", "CREATE_FAILED", "no more topics")
        cf.stacks[NAME].event("Alarm", "CREATE_FAILED", "Resource creation cancelled")
        cf.stacks[NAME].ahead = ["UPDATE_ROLLBACK_IN_PROGRESS", end]

    with pytest.raises(CloudError, match=r"the update of clock-dev failed: Topic: no more topics$") as failed:
        service_stack(cf, FakeOsls(fail, "osls gave up")).update(TEMPLATE, before={})
    assert failed.value.details["status"] == end


def test_if_osls_loses_its_connection_the_stacks_state_decides() -> None:
    cf = in_state("UPDATE_COMPLETE")

    def succeed() -> None:
        cf.template = TEMPLATE
        cf.stacks[NAME].event(NAME, "UPDATE_COMPLETE")

    service_stack(cf, FakeOsls(succeed, "connect ECONNRESET")).update(TEMPLATE, before={})

    def another() -> None:
        cf.template = {"Resources": {"Other": {"Type": "AWS::SNS::Topic"}}}
        cf.stacks[NAME].event(NAME, "UPDATE_COMPLETE")

    with pytest.raises(CloudError, match="connect ECONNRESET"):
        service_stack(cf, FakeOsls(another, "connect ECONNRESET")).update(TEMPLATE, before={})


def test_an_update_that_times_out_is_reported_as_still_running() -> None:
    cf = in_state("UPDATE_COMPLETE")

    def go_on() -> None:
        cf.stacks[NAME].ahead = ["UPDATE_IN_PROGRESS"] * 10_000

    osls = FakeOsls(go_on, "osls deploy took longer than 3600 s")
    with pytest.raises(StillAtWorkError, match="clock-dev is still being updated"):
        service_stack(cf, osls).update(TEMPLATE, before={})


def test_a_timeout_of_osls_is_not_a_failed_update(tmp_path: Path) -> None:
    class Late(Osls):
        def _run(self, arguments: list[str], folder: Path, timeout_s: float) -> Any:
            raise CloudError("osls deploy took longer than 3600 s", hint="repeat")

    provider = {"name": "aws", "region": "r", "stage": "dev", "deploymentBucket": "b"}
    state = {"service": {"service": "clock", "provider": provider}}
    assert Late((), {}).deploy(tmp_path, state) == "osls deploy took longer than 3600 s"


def test_a_concurrent_update_is_a_conflict_with_a_hint_to_repeat() -> None:
    cf = in_state("UPDATE_COMPLETE")
    words = "Stack:arn:…:stack/clock-dev/1 is in UPDATE_IN_PROGRESS state and can not be updated."
    with pytest.raises(ConflictError) as busy:
        service_stack(cf, FakeOsls(words=words)).update(TEMPLATE, before={})
    assert "repeat the command" in busy.value.hint


def test_an_update_whose_role_cloudformation_does_not_know_yet_is_repeated() -> None:
    cf, refusal = in_state("UPDATE_COMPLETE"), REFUSALS["cloudformation:UpdateStack"][2]
    osls = FakeOsls(words=refusal)

    def know_it() -> None:
        if len(osls.states) == 3:
            osls.words = None

    osls.act = know_it
    service_stack(cf, osls).update(TEMPLATE, before={})
    assert len(osls.states) == 3
    osls = FakeOsls(words=refusal)
    with pytest.raises(CloudError, match="is invalid or cannot be assumed"):
        service_stack(cf, osls).update(TEMPLATE, before={})
    assert len(osls.states) == ROLE_TRIES


def test_a_stack_deleted_during_its_update_is_an_error_without_a_traceback() -> None:
    cf = in_state("UPDATE_COMPLETE")
    with pytest.raises(HitlessError, match="the update of clock-dev failed"):
        service_stack(cf, FakeOsls(lambda: cf.stacks.clear(), "Stack does not exist")).update(TEMPLATE, before={})
