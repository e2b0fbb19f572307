"""A fake stage on AWS in memory: stack, aliases, CodeDeploy and bucket. Each call is a moment at which a test can let
something happen: the process dies, the network is cut, another process acts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from hitless.artifact.model import Artifact
from hitless.aws.api_stages import ApiStage
from hitless.aws.codedeploy import Deployment, Move, Shift
from hitless.aws.events import ReleaseEnded
from hitless.aws.lambdas import AliasState
from hitless.aws.osls import Packaged
from hitless.cloud.records.records import Records, Rollouts
from hitless.cloud.release.deploy import Deploy
from hitless.cloud.release.packaging import ServicePackage
from hitless.cloud.stage.core_outputs import CoreOutputs
from hitless.cloud.stage.permissions import StackPermissions
from hitless.cloud.stage.shield import Shield
from hitless.cloud.stage.stage import Cloud
from hitless.cloud.transform.desired import functions_of
from hitless.cloud.transform.model import ALIAS, Template, copied, references
from hitless.release.result import Result
from hitless.release.who import NOBODY
from hitless.service.event_sources import Route
from hitless.service.model import AlarmSettings, Function, Hooks, Service, SmokeRequest, StageSettings
from hitless.service.strategy import parse
from tests.unit.aws_fakes import FakeTime
from tests.unit.cloud_services import (
    FakeApiStages,
    FakeAutoscaling,
    FakeCodeDeploy,
    FakeDocuments,
    FakeLambdas,
    FakeStack,
    FakeTraffic,
)
from tests.unit.release_support import RememberedStack, packaged, sha256, with_provisioned

NAMES = ("convert", "meta")
CORE = CoreOutputs(("subnet-1",), "sg-1", "artifact-bucket")


class _Clock:
    def monotonic(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 24, tzinfo=UTC)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here waits")


@dataclass
class World:
    """Everything that outlives a process. `moments` are the calls so far; `at` is called before each one."""

    stack: RememberedStack = field(default_factory=RememberedStack)
    aliases: dict[str, AliasState] = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)
    deployments: dict[str, tuple[Move, Deployment]] = field(default_factory=dict)
    moments: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    at: Callable[[int, str], None] | None = None
    hooks: Hooks = field(default_factory=Hooks)
    variables: dict[str, str] = field(default_factory=dict)
    requests_an_hour: int = 10_000
    """Of each function."""

    permitted: set[tuple[str, str]] = field(default_factory=set)
    """(function, version) that the function's role may invoke."""

    status: str = "UPDATE_COMPLETE"
    """The stack's."""

    blocked: dict[str, str] = field(default_factory=dict)
    """What a roll-back of the stack is stuck at: logical id → reason."""

    served: str | None = None
    """The Deployment that the API's stage serves, where that is not the stack's."""

    mapping: ApiStage | None = None
    """Where the domain leads, where that is not the stack's stage."""

    closed: set[str] = field(default_factory=set)
    """Functions whose alias API Gateway may not invoke."""

    lost: set[str] = field(default_factory=set)
    """Digests whose artifact is not in the bucket."""

    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    ringing: set[str] = field(default_factory=set)
    composite: set[str] = field(default_factory=set)
    """Names of alarms."""

    provisioned: int = 0
    """How many environments of `meta` the service wants ready."""

    max_provisioned: int | None = None
    """Up to how many, where they are scaled."""

    scaled: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    """(function, version) → least, most and target in percent."""

    also: Mapping[str, Any] = field(default_factory=dict)
    """Resources of the service's own."""

    granted: StackPermissions | None = None
    """The policies of CloudFormation's role."""

    unrouted: frozenset[str] = frozenset()
    """Methods (logical ids) that the service does not have."""

    deleted: set[tuple[str, str]] = field(default_factory=set)
    """(function, version) that Lambda holds no more."""

    unreserved: int = 1000
    """What Lambda has left of the account's concurrency."""

    ready: dict[tuple[str, str], int] = field(default_factory=dict)
    """(function, version) → environments that are ready."""

    ignored: list[tuple[str, ...]] = field(default_factory=list)
    """Alarms that CodeDeploy is not to watch, of each deployment."""

    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """(function that shifts, its AppSpec's hooks), of each deployment."""

    busy: int = 0
    """How many environments of the live version were busy at once."""

    warmed: dict[tuple[str, str], int] = field(default_factory=dict)
    """(function, version) → environments that were warmed."""

    parted: set[str] = field(default_factory=set)
    """Functions whose versions have not one role: Lambda shares no traffic between those."""

    smoke: tuple[SmokeRequest, ...] = ()
    """Of the stage; `meta` has GET /version."""

    time_limit_s: float = math.inf
    """Of the build that runs the command."""

    sent: list[ReleaseEnded] = field(default_factory=list)
    """The events of releases that ended."""

    refused: Callable[[World, str], str | None] = lambda world, url: None
    """Why a request to the URL fails."""

    def ask(self, url: str, request: SmokeRequest) -> str | None:
        """Sends a request as a client does."""
        self.moment(f"ask {url}")
        return self.refused(self, url)

    def send(self, event: ReleaseEnded) -> None:
        """EventBridge's default bus."""
        self.moment("send an event")
        self.sent.append(event)

    def moment(self, name: str) -> None:
        self.moments.append(name)
        if self.at is not None:
            self.at(len(self.moments), name)

    @property
    def records(self) -> Records:
        return Records(FakeDocuments(World(documents=self.documents)), "prod")

    def cloud(self) -> Cloud:
        """One process's adapters for this world."""
        return Cloud(
            stack=cast(Any, FakeStack(self)),
            bucket=FakeDocuments(self),
            records=Records(FakeDocuments(self), "prod"),
            lambdas=FakeLambdas(self),
            shift=Shift(FakeCodeDeploy(self), FakeLambdas(self), alias=ALIAS, clock=FakeTime()),
            shield=Shield(FakeApiStages(self), FakeLambdas(self), lambda _: None, lambda _: None),
            autoscaling=FakeAutoscaling(self),
            api=FakeApiStages(self),
            traffic=FakeTraffic(self),
            rollouts=Rollouts(FakeDocuments(self), "prod", FakeTraffic(self), _Clock()),
            tell_ended=self.send,
            who=NOBODY,
            clock=_Clock(),
            say=self.said.append,
            permissions=self.granted,
            ask=self.ask,
            time_limit_s=self.time_limit_s,
        )

    def deploy(self, letter: str, strategy: str = "Canary10Percent5Minutes") -> Result:
        """Ships bytes of that letter as one process."""
        shipped = parse(strategy)
        made = package(
            letter, self.hooks, self.provisioned, self.alarms, self.max_provisioned, self.unrouted, self.smoke
        )
        if self.also:
            own = copied({**made.packaged.template["Resources"], **self.also})
            template = {**made.packaged.template, "Resources": own}
            made = replace(made, packaged=replace(made.packaged, template=template))
        return Deploy(self.cloud(), lambda digest: Path(digest)).run(
            made,
            strategy=shipped,
            commit=f"commit-{letter}",
            message=None,
        )

    def codedeploy_goes_on(self, *, rung: frozenset[str] = frozenset()) -> None:
        """CodeDeploy ends what is under way, though no command watches: well, or back if a function's alarm rang."""
        for identifier, (move, seen) in self.deployments.items():
            if not seen.ended:
                well = move.function not in rung
                self.aliases[move.function] = AliasState(move.target if well else move.current)
                ended = Deployment("Succeeded") if well else Deployment("Stopped", "alarm rings")
                self.deployments[identifier] = (move, ended)

    def serves(self) -> str:
        """The letters of the bytes that get all traffic, one for each function."""
        letters = set()
        for name in NAMES:
            state = self.aliases[f"worldclock-prod-{name}"]
            assert not state.others, f"{name} is still shared: {state}"
            letters.add(self.letter(f"worldclock-prod-{name}", state.version))
        return "".join(sorted(letters))

    def kept_versions(self, function: str) -> list[str]:
        """The numbers of the versions that Lambda holds of it."""
        ids = {name: ids for ids, name in functions_of(self.stack.live.template).items()}
        numbers = range(1, len(self.stack.published[ids[function].function]) + 1)
        return [str(one) for one in numbers if (function, str(one)) not in self.deleted]

    def letter(self, function: str, version: str) -> str:
        ids = {name: ids for ids, name in functions_of(self.stack.live.template).items()}
        content = self.stack.published[ids[function].function][int(version) - 1]
        return content.removeprefix("artifacts/")[0]


@functools.cache
def small() -> Packaged:
    """Worldclock with two of its functions, so that a release takes fewer calls."""
    whole = packaged()
    template = copied(whole.template)
    resources: dict[str, Any] = template["Resources"]
    gone = {name for name in resources if "Zones" in name or "Meetings" in name}
    for name in gone:
        del resources[name]
    for one in resources.values():
        if "DependsOn" in one:
            one["DependsOn"] = [name for name in one["DependsOn"] if name not in gone]
    template["Outputs"] = {name: one for name, one in template["Outputs"].items() if not gone & set(references(one))}
    names = {theirs: ours for theirs, ours in whole.function_names.items() if ours in NAMES}
    return replace(whole, template=template, function_names=names)


def _without(template: Template, gone: frozenset[str]) -> Template:
    made = copied(template)
    made["Resources"] = {name: one for name, one in made["Resources"].items() if name not in gone}
    for one in made["Resources"].values():
        if "DependsOn" in one:
            one["DependsOn"] = [name for name in one["DependsOn"] if name not in gone]
    return made


def package(
    letter: str,
    hooks: Hooks,
    provisioned: int = 0,
    alarms: AlarmSettings = AlarmSettings(),  # noqa: B008 - frozen
    most: int | None = None,
    unrouted: frozenset[str] = frozenset(),
    smoke: tuple[SmokeRequest, ...] = (),
) -> ServicePackage:
    """Worldclock; all functions have the bytes that the letter stands for."""
    compiled = small()
    if provisioned:
        compiled = replace(compiled, template=with_provisioned(compiled.template, "Meta", provisioned))
    if unrouted:
        compiled = replace(compiled, template=_without(compiled.template, unrouted))
    service = Service(
        name="worldclock",
        folder=Path("/service"),
        file=Path("/service/serverless.yml"),
        stage="prod",
        region="eu-central-1",
        stages=(StageSettings("prod", "prod", hooks=hooks, alarms=alarms, smoke=smoke),),
        functions=tuple(
            Function(
                name,
                "app.handler",
                max_provisioned=most if name == "meta" else None,
                routes=(Route("GET", "/version"), Route("POST", "/version")) if name == "meta" else (),
            )
            for name in NAMES
        ),
    )
    artifact = Artifact(f"sha256:{sha256(letter)}", 1000, 4000, False, "python3.11", "x86_64")
    return ServicePackage(service, compiled, dict.fromkeys(NAMES, artifact), CORE)
