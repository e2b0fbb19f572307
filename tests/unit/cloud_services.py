"""The services of a stage in memory (`cloud_fakes.World`): each call is a moment of the world."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hitless.aws.api_stages import ApiStage, ApiStages
from hitless.aws.buckets import Bucket
from hitless.aws.codedeploy import CodeDeploy, Deployment, Move
from hitless.aws.follow import Stack
from hitless.aws.lambdas import AliasState, Autoscaling, Invocation, Lambdas
from hitless.aws.traffic import Alarm, Traffic
from hitless.cloud.stage.stage import Observed
from hitless.cloud.transform.desired import functions_of
from hitless.cloud.transform.model import STAGE_ID, LiveState, Template, copied
from hitless.errors import ConflictError
from hitless.release.receipt import ClientCounts
from tests.unit.release_support import sha256

if TYPE_CHECKING:
    from tests.unit.cloud_fakes import World


class FakeStack:
    """ServiceStack in memory; an update sets the aliases that it names, as CloudFormation does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.name = "worldclock-prod"

    def settle(self) -> None:
        self._world.moment("settle the stack")

    def find(self) -> Stack | None:
        self._world.moment("find the stack")
        if not self._world.stack.live.template:
            return None
        return Stack(self.name, self.name, self._world.status, "", {}, {}, {}, protected=False)

    def rest(self) -> Stack | None:
        self._world.moment("await the stack")
        return self.find()

    def held(self) -> dict[str, str]:
        self._world.moment("list the stack")
        return {name: name for name in self._world.stack.live.resources}

    def failures(self) -> dict[str, str]:
        self._world.moment("read the stack's events")
        return dict(self._world.blocked)

    def continue_rollback(self, skip: Collection[str]) -> list[str]:
        self._world.moment("continue the roll-back")
        left = {name: why for name, why in self._world.blocked.items() if name not in skip}
        self._world.blocked = left
        self._world.status = "UPDATE_ROLLBACK_FAILED" if left else "UPDATE_ROLLBACK_COMPLETE"
        return [f"{name}: {why}" for name, why in left.items()]

    def observe(self) -> Observed:
        self._world.moment("observe the stack")
        live, aliases = self._world.stack.live, self._world.aliases
        functions = functions_of(live.template)
        states = {ids: aliases[name] for ids, name in functions.items() if name in aliases}
        at = {ids.alias: state.version for ids, state in states.items()}
        served = ApiStage("api", "prod") if STAGE_ID in live.template.get("Resources", {}) else None
        return Observed(LiveState(copied(live.template), at, live.versions), functions, states, served)

    def update(self, template: Template, *, before: Template) -> None:
        self._world.moment("update the stack")
        was = self._world.stack.live.resources
        self._world.stack.update(copied(template))
        if was.get(STAGE_ID) != template["Resources"].get(STAGE_ID):
            self._world.served = None
        for ids, name in functions_of(template).items():
            if was.get(ids.alias) != template["Resources"][ids.alias]:
                self._world.aliases[name] = AliasState(self._world.stack.live.aliases[ids.alias])
        self._world.moment("the stack is updated")


class FakeDocuments(Bucket):
    """The bucket."""

    name = "artifact-bucket"

    def __init__(self, world: World) -> None:
        self._world = world

    def holds(self, sha256: str) -> bool:
        self._world.moment("look for an artifact")
        return sha256 not in self._world.lost

    def url_of(self, key: str) -> str:
        return f"https://s3/{key}"

    def put_artifact(self, sha256: str, zipped: Path) -> str:
        self._world.moment("upload")
        self._world.lost.discard(sha256)
        return sha256

    def get_json(self, key: str) -> tuple[Any, str] | None:
        self._world.moment(f"read {key}")
        found = self._world.documents.get(key)
        return None if found is None else (json.loads(found), str(hash(found)))

    def put_json(self, key: str, document: Mapping[str, Any], *, new: bool = False, over: str = "") -> str:
        self._world.moment(f"write {key}")
        found = self._world.documents.get(key)
        if (new and found is not None) or (over and over != str(hash(found))):
            raise ConflictError(f"another process has just written {key}", hint="repeat the command")
        self._world.documents[key] = json.dumps(document)
        return str(hash(self._world.documents[key]))

    def keys(self, prefix: str) -> list[str]:
        self._world.moment("list")
        return [key for key in self._world.documents if key.startswith(prefix)]


class FakeLambdas(Lambdas):
    """Lambda: aliases, and versions that are always active."""

    def __init__(self, world: World) -> None:
        self._world = world

    def alias(self, function: str, name: str) -> AliasState | None:
        self._world.moment("read an alias")
        return self._world.aliases.get(function)

    def point(self, function: str, name: str, version: str) -> None:
        self._world.moment("point an alias")
        self._world.aliases[function] = AliasState(version)

    def may_share(self, function: str, one: str, other: str) -> bool:
        self._world.moment("read two versions")
        return function not in self._world.parted

    def code_sha256(self, function: str, version: str) -> str:
        self._world.moment("read a version")
        return sha256(self._world.letter(function, version))

    def wake(self, function: str, version: str) -> None:
        self._world.moment("wake a version")

    def allow_invoke(self, function: str, version: str, *, role_of: str) -> None:
        self._world.moment("let a version be invoked")
        self._world.permitted.add((function, version))

    def revoke_invoke(self, function: str, version: str) -> None:
        self._world.moment("let a version be invoked no more")
        self._world.permitted.discard((function, version))

    def provision(self, function: str, version: str, environments: int) -> None:
        self._world.moment("provision a version")
        self._world.ready[function, version] = environments

    def await_provisioned(self, function: str, version: str) -> None:
        self._world.moment("await a provisioned version")

    def concurrency(self) -> tuple[int, int]:
        self._world.moment("read the account's concurrency")
        return 1000, self._world.unreserved

    def versions(self, function: str) -> list[str]:
        self._world.moment("list versions")
        return self._world.kept_versions(function)

    def delete_version(self, function: str, version: str) -> None:
        self._world.moment("delete a version")
        self._world.deleted.add((function, version))

    def may_be_invoked_by(self, service: str, function: str, qualifier: str) -> bool:
        self._world.moment("read a policy")
        return function not in self._world.closed

    def provisioned(self, function: str, version: str) -> int:
        self._world.moment("read what is provisioned")
        return self._world.ready.get((function, version), 0)

    def remove_provisioned(self, function: str, version: str) -> None:
        self._world.moment("provision no more")
        self._world.ready.pop((function, version), None)

    def warm(self, function: str, version: str, environments: int) -> Invocation:
        self._world.moment("warm a version")
        self._world.warmed[function, version] = environments
        return Invocation(None)

    def invoke(self, function: str, version: str, event: Mapping[str, Any]) -> Invocation:
        self._world.moment("invoke")
        return Invocation({"statusCode": 200})


class FakeAutoscaling(Autoscaling):
    """Application Auto Scaling: the world has its limits; a version below its minimum is raised to it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def scale(self, function: str, version: str, *, least: int, most: int, target_percent: int) -> None:
        self._world.moment("scale a version")
        assert (function, version) in self._world.ready, "what has no provisioned concurrency cannot be scaled"
        self._world.scaled[function, version] = (least, most, target_percent)
        self._world.ready[function, version] = max(least, self._world.ready[function, version])

    def stop_scaling(self, function: str, version: str) -> None:
        self._world.moment("scale no more")
        self._world.scaled.pop((function, version), None)


class FakeApiStages(ApiStages):
    """API Gateway: the variables of the one stage, and the mapping of the one domain."""

    def __init__(self, world: World) -> None:
        self._world = world

    def url(self, stage: ApiStage) -> str:
        return "https://api.execute-api.eu-central-1.amazonaws.com/prod"

    def variables(self, stage: ApiStage) -> dict[str, str]:
        self._world.moment("read the stage")
        return dict(self._world.variables)

    def deployment(self, stage: ApiStage) -> str | None:
        self._world.moment("read the stage")
        mine = self._world.stack.live.resources[STAGE_ID]["Properties"]["DeploymentId"]["Ref"]
        return self._world.served or str(mine)

    def serve(self, stage: ApiStage, deployment: str) -> None:
        self._world.moment("move the stage")
        mine = self._world.stack.live.resources[STAGE_ID]["Properties"]["DeploymentId"]["Ref"]
        self._world.served = deployment if deployment != mine else None

    def set(self, stage: ApiStage, variables: Mapping[str, str]) -> None:
        self._world.moment("set stage variables")
        self._world.variables.update(variables)

    def drop(self, stage: ApiStage, names: Iterable[str]) -> None:
        self._world.moment("drop stage variables")
        for name in names:
            self._world.variables.pop(name, None)

    def mapping(self, domain: str, path: str) -> ApiStage | None:
        self._world.moment("read the mapping")
        return self._world.mapping

    def map(self, domain: str, path: str, stage: ApiStage, *, there: bool) -> None:
        self._world.moment("map the domain")
        self._world.mapping = stage


class FakeCodeDeploy(CodeDeploy):
    """CodeDeploy: a deployment bakes until its second look-up, and fails if its alias is not at the expected
    version.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def start(
        self,
        move: Move,
        *,
        configuration: str,
        description: str,
        hooks: Mapping[str, str],
        ignoring: Collection[str] = (),
    ) -> str:
        self._world.moment("start a deployment")
        self._world.asked.append((move.function, dict(hooks)))
        self._world.ignored.append(tuple(ignoring))
        if self._active(move.group):
            raise ConflictError(f"{move.function}: another deployment is under way")
        identifier = f"d-{len(self._world.deployments)}"
        if self._world.aliases[move.function].version != move.current:
            self._world.deployments[identifier] = (move, Deployment("Failed", "the alias is elsewhere"))
            return identifier
        if move.at_once:
            self._world.aliases[move.function] = AliasState(move.target)
            self._world.deployments[identifier] = (move, Deployment("Succeeded"))
            return identifier
        if move.function in self._world.parted:
            why = "Specified versions must be associated with the same execution role"
            self._world.deployments[identifier] = (move, Deployment("Failed", why))
            return identifier
        self._world.aliases[move.function] = AliasState(move.current, {move.target: 0.1})
        self._world.deployments[identifier] = (move, Deployment("InProgress"))
        return identifier

    def look(self, deployment: str) -> Deployment:
        self._world.moment("look at a deployment")
        move, seen = self._world.deployments[deployment]
        if seen.status == "InProgress":
            self._world.deployments[deployment] = (move, Deployment("Ready"))
        elif seen.status == "Ready":
            self._world.aliases[move.function] = AliasState(move.target)
            self._world.deployments[deployment] = (move, Deployment("Succeeded"))
        return self._world.deployments[deployment][1]

    def stop(self, deployment: str) -> None:
        self._world.moment("stop a deployment")
        move, seen = self._world.deployments[deployment]
        if not seen.ended:
            self._world.aliases[move.function] = AliasState(move.current)
            self._world.deployments[deployment] = (move, Deployment("Stopped", "stopped", by_hand=True))

    def hooks(self, deployment: str, move: Move) -> dict[str, str]:
        self._world.moment("read hooks")
        return dict.fromkeys(("BeforeAllowTraffic",), "Succeeded")

    def under_way(self, group: str) -> list[str]:
        self._world.moment("list deployments")
        return self._active(group)

    def _active(self, group: str) -> list[str]:
        return [
            name for name, (move, seen) in self._world.deployments.items() if move.group == group and not seen.ended
        ]


class FakeTraffic(Traffic):
    """CloudWatch without any counts; the world has the alarms and those that are active."""

    def __init__(self, world: World) -> None:
        self._world = world

    def ringing(self, alarms: Collection[str]) -> list[str]:
        if alarms:
            self._world.moment("look at alarms")
        return [name for name in alarms if name in self._world.ringing]

    def alarms(self, names: Collection[str]) -> list[Alarm]:
        return [Alarm(name, name in self._world.ringing, name in self._world.composite) for name in names]

    def peak_concurrency(self, function: str, alias: str, *, until: Any) -> int:
        return self._world.busy

    def requests(self, functions: Sequence[str], alias: str, *, until: Any) -> dict[str, int]:
        return dict.fromkeys(functions, self._world.requests_an_hour)

    def series(self, versions: Any, aliases: Any, *, since: Any, until: Any) -> dict[Any, Any]:
        return {}

    def answers(self, api: str, stage: str, *, since: Any, until: Any) -> ClientCounts:
        return ClientCounts(0, 0, {})
