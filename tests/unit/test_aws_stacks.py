"""Stacks by change sets: the steps for each state of a stack, refusals, and messages."""

from __future__ import annotations

import pytest

from hitless.aws.stacks import Stacks, StackSpec
from hitless.errors import CloudError, ConflictError
from tests.unit.aws_fakes import OURS, FakeCloudFormation, FakeStack, FakeTime

pytestmark = pytest.mark.unit

REPLACED_VPC = {
    "Action": "Modify",
    "LogicalResourceId": "Vpc",
    "ResourceType": "AWS::EC2::VPC",
    "Replacement": "True",
    "Details": [{"Target": {"Attribute": "Properties", "Name": "CidrBlock"}}],
}


def spec(**changed: object) -> StackSpec:
    settings = {"name": "core", "template": "{}", "tags": OURS, **changed}
    return StackSpec(**settings)  # type: ignore[arg-type]


def stacks(fake: FakeCloudFormation, said: list[str] | None = None, clock: FakeTime | None = None) -> Stacks:
    said = [] if said is None else said
    return Stacks(fake, say=said.append, clock=clock or FakeTime(), timeout_s=600)


def test_a_new_stacks_policy_is_set_after_its_creation() -> None:
    fake = FakeCloudFormation()
    made = stacks(fake).deploy(spec(policy={"Statement": []}, protected=True))
    assert made.status == "CREATE_COMPLETE"
    assert fake.told["ChangeSetType"] == "CREATE"
    assert fake.calls == ["create_change_set", "execute_change_set", "set_stack_policy", "protect True"]


def test_an_existing_stacks_policy_is_set_before_its_update() -> None:
    fake = FakeCloudFormation(core=FakeStack())
    stacks(fake).deploy(spec(policy={"Statement": []}))
    assert fake.calls == ["create_change_set", "set_stack_policy", "execute_change_set"]


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information to create a change set.",
        "No updates are to be performed.",
    ],
)
def test_an_unchanged_stack_is_not_updated(reason: str) -> None:
    fake = FakeCloudFormation(core=FakeStack())
    fake.refusal = reason
    said: list[str] = []
    stacks(fake, said).deploy(spec())
    assert fake.calls == ["create_change_set", "delete_change_set"]
    assert said == ["core: nothing to change"]


def test_a_failed_first_change_set_is_an_error_and_leaves_no_empty_stack() -> None:
    fake = FakeCloudFormation()
    fake.refusal = "Template error: instance of Fn::GetAtt references undefined resource"
    with pytest.raises(CloudError, match="undefined resource"):
        stacks(fake).deploy(spec())
    assert fake.calls[-1] == "delete_stack"


def test_replacing_a_serving_resource_is_refused_and_the_change_set_is_deleted() -> None:
    fake = FakeCloudFormation(core=FakeStack())
    fake.changes = [REPLACED_VPC]
    said: list[str] = []
    with pytest.raises(ConflictError, match=r"Vpc REPLACED \(CidrBlock\)") as refused:
        stacks(fake, said).deploy(spec())
    assert fake.calls == ["create_change_set", "delete_change_set"]
    assert "  Vpc REPLACED (CidrBlock)" in said
    assert "--force" in refused.value.hint


def test_a_forced_replacement_is_carried_out() -> None:
    fake = FakeCloudFormation(core=FakeStack())
    fake.changes = [REPLACED_VPC]
    stacks(fake).deploy(spec(), force=True)
    assert "execute_change_set" in fake.calls


@pytest.mark.parametrize("tags", [{}, {"hitless:service": "clock", "hitless:stage": "prod"}])
def test_another_services_stack_with_the_same_name_is_never_changed(tags: dict[str, str]) -> None:
    fake = FakeCloudFormation(core=FakeStack(tags=tags, status="ROLLBACK_COMPLETE"))
    with pytest.raises(ConflictError, match="not this service's"):
        stacks(fake).deploy(spec())
    with pytest.raises(ConflictError, match="not this service's"):
        stacks(fake).delete("core", tags=OURS)
    assert fake.calls == []


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"])
def test_a_stack_whose_creation_failed_is_created_again(status: str) -> None:
    fake = FakeCloudFormation(core=FakeStack(status))
    assert stacks(fake).deploy(spec()).status == "CREATE_COMPLETE"
    assert fake.calls == ["delete_stack", "create_change_set", "execute_change_set"]


def test_a_stuck_stack_rollback_is_continued_before_the_update() -> None:
    fake = FakeCloudFormation(core=FakeStack("UPDATE_ROLLBACK_FAILED"))
    stacks(fake).deploy(spec())
    assert fake.calls == ["continue_update_rollback", "create_change_set", "execute_change_set"]


def test_an_update_that_failed_without_rolling_back_is_rolled_back_first() -> None:
    fake = FakeCloudFormation(core=FakeStack("UPDATE_FAILED"))
    stacks(fake).deploy(spec())
    assert fake.calls == ["rollback_stack", "create_change_set", "execute_change_set"]


def test_a_running_update_is_awaited_before_the_next() -> None:
    fake = FakeCloudFormation(
        core=FakeStack("UPDATE_IN_PROGRESS", ahead=["UPDATE_IN_PROGRESS"] * 4 + ["UPDATE_COMPLETE"])
    )
    said: list[str] = []
    stacks(fake, said).deploy(spec())
    assert said[0] == "core is being changed (UPDATE_IN_PROGRESS): waiting until that has ended"
    assert fake.told["ChangeSetType"] == "UPDATE"


def test_the_empty_stack_of_an_interrupted_run_is_reused() -> None:
    fake = FakeCloudFormation(core=FakeStack("REVIEW_IN_PROGRESS"))
    assert stacks(fake).deploy(spec()).status == "CREATE_COMPLETE"
    assert fake.told["ChangeSetType"] == "CREATE"


def test_a_stack_that_never_becomes_stable_is_an_error() -> None:
    class Stuck(FakeCloudFormation):
        def continue_update_rollback(self, StackName: str) -> None:  # noqa: N803
            self.calls.append("continue_update_rollback")
            self.stacks[StackName].event("Vpc", "UPDATE_FAILED", "still in use")

    with pytest.raises(CloudError, match="did not reach a stable state"):
        stacks(Stuck(core=FakeStack("UPDATE_ROLLBACK_FAILED"))).deploy(spec())


def test_a_stack_failure_reports_only_its_first_cause() -> None:
    fake = FakeCloudFormation()
    fake.end = "ROLLBACK_COMPLETE"
    fake.failures = [
        {"resource": "NatGatewayA", "reason": "no more addresses"},
        {"resource": "Vpc", "reason": "Resource creation cancelled"},
    ]
    with pytest.raises(CloudError, match="core ended as ROLLBACK_COMPLETE: NatGatewayA: no more addresses") as failed:
        stacks(fake).deploy(spec())
    assert failed.value.details == {"causes": ["NatGatewayA: no more addresses"]}


def test_an_update_that_begins_late_is_not_mistaken_for_a_finished_one() -> None:
    fake = FakeCloudFormation(core=FakeStack())
    follower = stacks(fake)
    seen = follower.last_event("core")
    fake.stacks["core"].ahead = ["UPDATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"]
    with pytest.raises(CloudError, match="UPDATE_ROLLBACK_COMPLETE"):
        follower.follow("core", since=seen)


def test_following_a_stack_without_a_new_event_ends_with_its_current_state() -> None:
    fake = FakeCloudFormation(core=FakeStack())
    assert stacks(fake).follow("core", since=None).status == "CREATE_COMPLETE"


def test_waiting_for_a_stack_survives_lost_connections() -> None:
    fake = FakeCloudFormation(core=FakeStack("UPDATE_IN_PROGRESS", ahead=["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE"]))
    fake.cuts = 3
    said: list[str] = []
    stack, _ = stacks(fake, said).rest("core", since="e0")
    assert stack is not None
    assert stack.status == "UPDATE_COMPLETE"
    assert sum("trying again" in line for line in said) == 3


def test_waiting_for_a_stack_has_a_time_limit() -> None:
    fake = FakeCloudFormation(core=FakeStack("UPDATE_IN_PROGRESS"))
    clock = FakeTime()
    with pytest.raises(CloudError, match="after 600 s"):
        stacks(fake, clock=clock).rest("core", since=None)
    assert clock.now < 700


def test_deleting_a_stack_lifts_its_protection_and_tolerates_a_missing_stack() -> None:
    fake = FakeCloudFormation(core=FakeStack(protected=True))
    assert stacks(fake).delete("core", tags=OURS)
    assert fake.calls == ["protect False", "delete_stack"]
    assert not stacks(fake).delete("core", tags=OURS)


def test_a_parameter_of_none_keeps_the_stacks_value_or_the_default() -> None:
    fake = FakeCloudFormation(core=FakeStack(parameters={"Kept": "1"}))
    stacks(fake).deploy(spec(parameters={"Kept": None, "New": None, "Told": "x"}))
    assert fake.told["Parameters"] == [
        {"ParameterKey": "Kept", "UsePreviousValue": True},
        {"ParameterKey": "Told", "ParameterValue": "x"},
    ]
