"""An adoption interrupted at any call, or met by another try, is finished by the next one, and releases can follow."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

from hitless.aws.api_stages import ApiStage, ApiStages
from hitless.aws.lambdas import LATEST, Invocation, Running
from hitless.cloud.adoption.adoption import Adoption, steps_of
from hitless.cloud.adoption.templates import AdoptionPhase, deployment_in, phase
from hitless.cloud.release.rollback import rollback
from hitless.cloud.transform.model import BUCKET_ID, STAGE_ID, LiveState, Template, changes, of_type
from hitless.errors import CandidateFailedError, CloudError, ConflictError, ServiceFileError, UsageError
from hitless.release.result import Outcome, Result
from hitless.service.event_sources import Route
from hitless.service.model import Hooks, SmokeRequest
from tests.unit.cloud_fakes import World, package, small
from tests.unit.cloud_services import FakeLambdas
from tests.unit.release_support import sha256

pytestmark = pytest.mark.unit

OLD = "a"


class Killed(BaseException):
    """SIGKILL: nothing more of the process runs."""


def plain_world() -> World:
    """Worldclock as a plain `osls deploy` leaves it."""
    world = World()
    template = copy.deepcopy(small().template)
    template["Resources"].setdefault(BUCKET_ID, {"Type": "AWS::S3::Bucket", "Properties": {}})
    world.stack.update(template)
    world.stack.log.clear()
    return world


@dataclass
class FakeCode(FakeLambdas):
    world: World

    def __post_init__(self) -> None:
        super().__init__(self.world)

    def running(self, function: str, *, alias: str) -> Running:
        self.world.moment("read what runs")
        return Running(function, sha256(OLD), 1000, "1", has_live_alias=function in self.world.aliases)

    def download(self, function: str, sha256: str, to: Path, *, version: str = LATEST) -> None:
        self.world.moment("download")
        to.write_bytes(b"zip")


@dataclass
class FakeServed(ApiStages):
    world: World

    def read(self, stage: ApiStage) -> dict[str, Any]:
        self.world.moment("read the stage")
        resources = self.world.stack.live.resources
        found = deployment_in(self.world.stack.live.template)
        assert found is not None
        one = resources.get(STAGE_ID, {"Properties": {"DeploymentId": {"Ref": found[0]}}})
        return {"stageName": stage.name, "deploymentId": one["Properties"]["DeploymentId"]["Ref"]}

    def mappings(self, stage: ApiStage) -> list[tuple[str, str]]:
        return []


@dataclass
class FakeImports:
    world: World

    def importers(self, export: str) -> tuple[str, ...]:
        return ()

    def take_in(
        self, stack: str, template: Template, resource: str, identifier: Mapping[str, str], *, url: str
    ) -> None:
        self.world.moment("import")
        live = self.world.stack.live
        assert [one.resource for one in changes(live.template, template)] == [resource]
        assert template["Resources"][resource]["DeletionPolicy"] == "Retain"
        assert template["Outputs"] == live.template["Outputs"]
        assert identifier == {"RestApiId": "ApiGatewayRestApi", "StageName": "prod"}
        self.world.stack.live = LiveState(copy.deepcopy(template), live.aliases, live.versions)
        self.world.moment("imported")


def adoption(world: World, said: io.StringIO | None = None) -> Adoption:
    cloud = replace(
        world.cloud(), say=lambda line: print(line, file=said), lambdas=FakeCode(world),
        api=FakeServed(world),
    )  # fmt: skip
    compiled = package("a", Hooks())
    return Adoption(
        cloud, compiled.service,
        imports=cast(Any, FakeImports(world)), package=lambda artifacts: replace(compiled, artifacts=artifacts),
    )  # fmt: skip


def adopt(world: World) -> Result:
    one = adoption(world)
    seen = one.observe()
    return one.run(seen, one.decide(seen))


def check_adopted(world: World) -> None:
    """Checks that it is release 1 and that further releases succeed."""
    live = world.stack.live
    assert phase(live.template) is AdoptionPhase.ADOPTED
    for function in of_type(live.resources, "AWS::Lambda::Function").values():
        assert function["Properties"]["Code"]["S3Key"].startswith("serverless/"), "no function is touched"
    assert [(world.records.require(number).outcome) for number in world.records.numbers()] == ["live"]
    record = world.records.require(1)
    assert record.versions == {"convert": "1", "meta": "1"}
    assert record.artifacts == dict.fromkeys(("convert", "meta"), f"sha256:{sha256(OLD)}")
    assert world.deploy("b").release == 2
    assert world.serves() == "b"
    assert rollback(world.cloud(), None).release == 1
    assert {name: state.version for name, state in world.aliases.items()} == dict.fromkeys(world.aliases, "1")


def test_adoption_makes_the_running_code_release_1() -> None:
    world = plain_world()
    result = adopt(world)
    assert (result.outcome, result.release) == (Outcome.LIVE, 1)
    assert world.moments.count("download") == world.moments.count("upload") == 1, "both functions run one artifact"
    assert [step.state for step in result.steps] == [
        "preparing", "importing", "expanding", "testing", "moving", "ended",
    ]  # fmt: skip
    check_adopted(world)


def test_the_adoption_plan_has_a_template_for_each_remaining_step() -> None:
    world = plain_world()
    one = adoption(world)
    plan = one.decide(one.observe())
    assert list(plan.templates) == ["import", "expand", "contract"]
    assert [step["step"] for step in steps_of(plan)] == ["import", "expand", "contract"]
    one.run(one.observe(), plan)
    assert world.stack.live.template == plan.templates["contract"], "it is what was shown"
    again = one.decide(one.observe())
    assert (again.phase, steps_of(again)) == (AdoptionPhase.ADOPTED, [])


def moments() -> list[str]:
    world = plain_world()
    adopt(world)
    return world.moments


@pytest.mark.parametrize("moment", range(1, len(moments()) + 1))
def test_an_adoption_interrupted_at_any_call_is_finished_by_the_next_try(moment: int) -> None:
    world = plain_world()

    def at(number: int, name: str) -> None:
        if number == moment:
            raise Killed

    world.at = at
    with pytest.raises(Killed):
        adopt(world)
    world.at = None
    assert adopt(world).outcome in (Outcome.LIVE, Outcome.UNCHANGED)
    if world.records.unfinished() is None:
        check_adopted(world)
    else:  # cut off between the last update and the record's end: the next release writes it
        assert world.deploy("b").release == 2
        assert world.records.require(1).outcome == "live"


def test_an_adoption_refused_by_aws_at_any_write_is_finished_by_the_next_try() -> None:
    calls = moments()
    writes = [at for at, name in enumerate(calls, 1) if name.startswith(("import", "upload", "update", "write "))]
    assert len(writes) >= 9
    for moment in writes:
        world = plain_world()

        def at(number: int, name: str, moment: int = moment) -> None:
            if number == moment:
                raise CloudError("AWS refuses it", hint="fix the cause, then repeat")

        world.at = at
        with pytest.raises(CloudError):
            adopt(world)
        world.at = None
        assert adopt(world).outcome in (Outcome.LIVE, Outcome.UNCHANGED), f"refused at {calls[moment - 1]}"
        if world.records.unfinished() is None:
            check_adopted(world)


def test_repeating_a_finished_adoption_changes_nothing() -> None:
    world = plain_world()
    adopt(world)
    before = len(world.stack.log)
    again = adopt(world)
    assert (again.outcome, again.release) == (Outcome.UNCHANGED, 1)
    assert len(world.stack.log) == before


def test_a_plain_osls_deploy_during_an_interrupted_adoption_leads_to_a_new_plan() -> None:
    world = plain_world()

    def at(number: int, name: str) -> None:
        if name == "imported":
            raise Killed

    world.at = at
    with pytest.raises(Killed):
        adopt(world)
    world.at = None
    live = world.stack.live
    template = copy.deepcopy(small().template)  # it knows of no Stage, and retains it
    for one in template["Resources"].values():
        if one["Type"] == "AWS::Lambda::Function":
            one["Properties"]["MemorySize"] = 256
    world.stack.live = LiveState(template, live.aliases, live.versions)
    adopt(world)
    kept = world.records.template(1)
    assert kept is not None
    assert kept["Resources"]["MetaLambdaFunction"]["Properties"]["MemorySize"] == 256
    check_adopted(world)


def test_an_adoption_continues_even_if_another_command_ended_its_record() -> None:
    world = plain_world()

    def at(number: int, name: str) -> None:
        if name == "wake a version":
            raise Killed

    world.at = at
    with pytest.raises(Killed):
        adopt(world)
    world.at = None
    record = world.records.require(1)
    records = world.records
    records.get(1)
    records.save(replace(record, outcome=Outcome.ROLLED_BACK, reason="its machine died"))
    assert adopt(world).release == 1
    check_adopted(world)


def test_adoption_changes_nothing_if_a_check_fails() -> None:
    world = plain_world()
    world.stack.live.template["Resources"]["Own"] = {"Type": "Custom::Thing", "Properties": {"ServiceToken": "arn"}}
    world.status = "UPDATE_ROLLBACK_FAILED"
    before = copy.deepcopy(world.stack.live.template)
    one = adoption(world)
    seen = one.observe()
    plan = one.decide(seen)
    with pytest.raises(ConflictError, match=r"UPDATE_ROLLBACK_FAILED \(and 1 more\)") as caught:
        one.run(seen, plan)
    assert [each["what"].split()[0] for each in caught.value.details["refused"]] == ["the", "Own"]
    assert steps_of(plan) == []
    assert (world.stack.live.template, world.documents) == (before, {})


def test_adoption_checks_serverless_yml_too() -> None:
    world = plain_world()
    one = adoption(world)

    def refuse(_: object) -> Any:
        raise ServiceFileError("provider.stackName: other", hint="take it out")

    one._package = refuse
    plan = one.decide(one.observe())
    assert [(each.what, each.way) for each in plan.refused] == [("provider.stackName: other", "take it out")]


def test_a_rollback_to_the_adopted_release_is_refused_after_its_role_was_deleted() -> None:
    world = plain_world()
    adopt(world)
    for letter in "bc":
        world.deploy(letter)
    assert "IamRoleLambdaExecution" not in world.stack.live.resources
    with pytest.raises(ConflictError, match="release 1 ran under a role that was deleted"):
        rollback(world.cloud(), 1)
    assert world.serves() == "c"


def test_adopting_a_missing_stack_is_an_error() -> None:
    with pytest.raises(UsageError, match="there is no stack worldclock-prod"):
        adoption(World()).observe()


@dataclass
class FailingLambdas(FakeCode):
    """Requests to these versions get a 500."""

    at: tuple[str, ...]

    def invoke(self, function: str, version: str, event: Mapping[str, Any]) -> Invocation:
        return Invocation({"statusCode": 500 if version in self.at else 200})


def smoked(world: World, *failing: str, said: io.StringIO | None = None) -> Adoption:
    one = adoption(world, said)
    one._cloud = replace(one._cloud, lambdas=FailingLambdas(world, failing))
    settings = structs.replace(one._service.settings, smoke=(SmokeRequest("GET", "/health"),))
    health = (Route("GET", "/health"),)
    functions = tuple(
        structs.replace(each, routes=health if each.name == "meta" else ()) for each in one._service.functions
    )
    one._service = replace(one._service, stages=(settings,), functions=functions)
    return one


def test_traffic_does_not_move_if_only_the_new_version_fails_a_smoke_request() -> None:
    world = plain_world()
    one = smoked(world, "1")
    seen = one.observe()
    with pytest.raises(CandidateFailedError):
        one.run(seen, one.decide(seen))
    assert phase(world.stack.live.template) is AdoptionPhase.EXPANDED


def test_a_smoke_request_that_fails_without_hitless_too_is_only_reported() -> None:
    world, said = plain_world(), io.StringIO()
    one = smoked(world, "1", LATEST, said=said)
    seen = one.observe()
    assert one.run(seen, one.decide(seen)).outcome is Outcome.LIVE
    assert "the code fails it without hitless, too" in said.getvalue()
