"""What is wrong with a stage, and the step that fixes it. Pure: decided from what was seen.

A trouble has no step if only a person can fix it. Steps are taken in this order: traffic, routes to it, provisioned
concurrency, the stack, records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

import msgspec

from hitless.aws.lambdas import AliasState
from hitless.cloud.records.records import Record
from hitless.cloud.repair.facts import Facts, Mapped, Served, at_rest, in_progress
from hitless.cloud.transform.functions import Ready
from hitless.cloud.transform.model import FunctionIds
from hitless.service.strategy import parse, weights


class RepairStep(msgspec.Struct, frozen=True):
    """A step that reads as its `sentence`. The classes below are in the order in which steps are taken."""

    sentence: ClassVar[str]

    def __str__(self) -> str:
        return self.sentence.format(**msgspec.structs.asdict(self))


class StopShifts(RepairStep, frozen=True):
    """Stop CodeDeploy's deployments of these groups. It moves their aliases back."""

    groups: tuple[str, ...]

    def __str__(self) -> str:
        return f"stop the deployments of {', '.join(self.groups)}, which moves their traffic back"


class Point(RepairStep, frozen=True):
    function: str
    version: str
    sentence = "point all traffic of {function} at version {version}"


class FinishRollback(RepairStep, frozen=True):
    release: int
    sentence = "finish the rollback to release {release}"


class Serve(RepairStep, frozen=True):
    served: Served
    sentence = "have stage {served.stage.name} serve Deployment {served.belongs}"


class Map(RepairStep, frozen=True):
    mapped: Mapped
    sentence = "map {mapped.domain} to stage {mapped.belongs.name} of API {mapped.belongs.api}"


class Provision(RepairStep, frozen=True):
    """Provision that many environments of a version; 0 removes them."""

    function: str
    version: str
    environments: int

    def __str__(self) -> str:
        if not self.environments:
            return f"remove the provisioned concurrency of {self.function} version {self.version}"
        return f"provision {self.environments} environments of {self.function} version {self.version}"


class DropShield(RepairStep, frozen=True):
    """Remove stage variables and permissions of a shield that no shift needs."""

    sentence = "take the shield down"


class ContinueRollback(RepairStep, frozen=True):
    stack: str
    sentence = "continue the roll-back of {stack}"


class SettleStack(RepairStep, frozen=True):
    stack: str
    sentence = "bring {stack} to a state in which it can be updated"


class Upload(RepairStep, frozen=True):
    """Upload an artifact again, from this machine or from Lambda."""

    function: str
    version: str
    sha256: str
    sentence = "upload the artifact {sha256:.12}… of {function} again"


class End(RepairStep, frozen=True):
    """Record how a release ended whose machine died."""

    release: int
    live: bool

    def __str__(self) -> str:
        return f"record release {self.release} as {'live' if self.live else 'rolled back'}"


_ORDER = RepairStep.__subclasses__()


def rank(step: RepairStep | None) -> int:
    """The place of the step in the order; troubles without a step come last."""
    return len(_ORDER) if step is None else _ORDER.index(type(step))


REPAIR = "`hitless aws repair`"
HOOKS_LIMIT = timedelta(hours=2)
"""CodeDeploy gives each of the two hooks an hour."""
SPARE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong. `fix` tells a person what to do; `step` is None if repair cannot fix it."""

    what: str
    where: str
    fix: str = REPAIR
    step: RepairStep | None = None

    def to_json(self) -> dict[str, str]:
        return {"what": self.what, "where": self.where, "mends": self.fix}


def troubles(facts: Facts, *, taking_over: bool = False) -> list[Trouble]:
    """Everything that is wrong, in the order in which it is fixed.

    A release whose process may still live is no trouble while AWS is working on it; with `taking_over` it is ended,
    too.
    """
    if facts.status is None:
        return [*_record(facts)]
    found = [*_shifts(facts, taking_over=taking_over), *_stack(facts), *_artifacts(facts)]
    if not in_progress(facts.status):
        found += [*_aliases(facts), *_rollback(facts), *_api(facts), *_ready(facts, taking_over=taking_over)]
        shifts = facts.deployments and not any(isinstance(one.step, StopShifts) for one in found)
        if facts.shielding and not shifts:
            found.append(_shield(facts))
        if taking_over or not shifts:
            found += _record(facts)
    return sorted(found, key=lambda one: rank(one.step))


def home(facts: Facts) -> dict[FunctionIds, str]:
    """Function → the version to which its traffic belongs.

    It is that of the live release's record, or of the release to which a rollback was going. For a function that this
    release does not have, it is the stack's.
    """
    observed, record = facts.observed, facts.left_for or facts.live
    versions = record.at if record else {}
    found = {}
    for ids, name in observed.functions.items():
        said = observed.live.resources[ids.alias]["Properties"]["FunctionVersion"]
        if name in versions:
            found[ids] = versions[name]
        elif isinstance(said, str):
            found[ids] = said
    return found


def _shifts(facts: Facts, *, taking_over: bool) -> Iterator[Trouble]:
    unfinished, stuck = facts.unfinished, dict[str, str]()
    for identifier, (_, seen) in facts.deployments.items():
        if unfinished is None:
            stuck[identifier] = "is in progress, and no release is under way"
        elif seen.began is not None and facts.now - seen.began > _longest(unfinished):
            stuck[identifier] = f"is in progress since {seen.began:%Y-%m-%d %H:%M} UTC, longer than a release can take"
        elif taking_over:
            stuck[identifier] = f"shifts traffic to release {unfinished.release}"
    step = StopShifts(tuple(dict.fromkeys(facts.deployments[one][0].base for one in stuck)))
    for identifier, why in stuck.items():
        group = f"CodeDeploy group {facts.stack}/{facts.deployments[identifier][0].base}"
        yield Trouble(f"deployment {identifier} {why}", group, step=step)


def _longest(record: Record) -> timedelta:
    """The longest time that a deployment of the release can take."""
    return timedelta(seconds=sum(bake_s for _, bake_s in weights(parse(record.strategy)))) + HOOKS_LIMIT + SPARE


def _aliases(facts: Facts) -> Iterator[Trouble]:
    shifting = {ids for ids, _ in facts.deployments.values()}
    observed, record = facts.observed, facts.left_for or facts.live
    whose = f"release {record.release}" if record is not None else "the stack"
    for ids, version in home(facts).items():
        name, state = observed.functions[ids], observed.aliases.get(ids)
        if state is None:
            yield Trouble(
                "the alias live was deleted: every request fails", f"function {name}",
                f"`aws lambda create-alias --function-name {name} --name live --function-version {version}`, and "
                "then the permissions that the stack lists for it",
            )  # fmt: skip
        elif state != AliasState(version) and ids not in shifting:
            shares = ", ".join(f"version {at} {percent} %" for at, percent in sorted(state.weights_percent().items()))
            what = f"the alias live sends its traffic to {shares}: {whose} has version {version}"
            if state.version == version:
                what = f"the alias live has weights ({shares}), and no shift is under way"
            yield Trouble(what, f"function {name}", step=Point(name, version))


def _rollback(facts: Facts) -> Iterator[Trouble]:
    if facts.left_for is not None and facts.live is not None:
        number = facts.left_for.release
        what = f"the rollback from release {facts.live.release} to {number} did not finish"
        yield Trouble(what, f"stack {facts.stack}", step=FinishRollback(number))


def _api(facts: Facts) -> Iterator[Trouble]:
    """Troubles of the API. Not judged while CloudFormation may show another template than the live release's."""
    served = facts.served
    if served is None or facts.live is None or facts.left_for is not None:
        return
    if not at_rest(facts.status or "") and facts.observed.live.output("HitlessRelease") != str(facts.live.release):
        return
    where = f"stage {served.stage.name} of API {served.stage.api}"
    deploy = "`hitless aws deploy --force` if the stack can create it again; see its events"
    if served.at is None:
        yield Trouble("the stage was deleted: every request fails", where, deploy)
        return
    if served.at != served.belongs:
        what = f"it serves Deployment {served.at} instead of the stack's {served.belongs or '(deleted)'}"
        yield Trouble(what, where, *((REPAIR, Serve(served)) if served.belongs else (deploy, None)))
    for ids in facts.closed:
        name = facts.observed.functions[ids]
        yield Trouble(
            "API Gateway may not invoke the alias live: every request to it gets a 500", f"function {name}",
            f"`aws lambda add-permission --function-name {name} --qualifier live --statement-id api-gateway --action "
            "lambda:InvokeFunction --principal apigateway.amazonaws.com --source-arn "
            f"arn:aws:execute-api:REGION:ACCOUNT:{served.stage.api}/*/*`",
        )  # fmt: skip
    for one in facts.mapped:
        if one.at != one.belongs:
            leads = f"leads to stage {one.at.name or 'none'} of API {one.at.api}" if one.at else "leads nowhere"
            path = "" if one.path == "(none)" else f"/{one.path}"
            yield Trouble(f"{one.domain}{path} {leads}", f"domain {one.domain}", step=Map(one))


def _ready(facts: Facts, *, taking_over: bool) -> Iterator[Trouble]:
    versions, names = home(facts), facts.observed.functions
    unfinished = facts.unfinished
    coming = unfinished.at if unfinished is not None else {}
    wanted = {(ids, versions[ids]): one for ids, one in facts.wanted.items() if ids in versions}
    for ids, version in sorted({*wanted, *facts.ready}, key=str):
        number = facts.ready.get((ids, version), 0)
        belongs = wanted.get((ids, version), Ready(0)).nearest(number)
        if number == belongs or (coming.get(names[ids]) == version and not taking_over):
            continue
        what = f"{number} environments of version {version} are provisioned instead of {belongs}"
        yield Trouble(what, f"function {names[ids]}", step=Provision(names[ids], version, belongs))


def _shield(facts: Facts) -> Trouble:
    where = facts.served.stage.name if facts.served is not None else facts.stack
    return Trouble("a shield is up, and no shift is under way", f"stage {where}", step=DropShield())


_NEVER_CAME_UP = "it never came up: nothing uses it, and CloudFormation only allows its deletion"
_STATES: Mapping[str, str] = {
    "UPDATE_FAILED": "an update failed, and its roll-back is turned off",
    "CREATE_FAILED": _NEVER_CAME_UP,
    "ROLLBACK_COMPLETE": _NEVER_CAME_UP,
    "ROLLBACK_FAILED": _NEVER_CAME_UP,
    "DELETE_FAILED": "its deletion began and did not finish",
    "REVIEW_IN_PROGRESS": "it is the empty shell of a change set that was never executed",
}


def _stack(facts: Facts) -> Iterator[Trouble]:
    where = f"stack {facts.stack}"
    if facts.status == "UPDATE_ROLLBACK_FAILED":
        at = "; ".join(f"{name}: {reason}" for name, reason in sorted(facts.failures.items()))
        what = f"UPDATE_ROLLBACK_FAILED: the roll-back of an update got stuck at {at or 'a resource'}"
        yield Trouble(what, where, step=ContinueRollback(facts.stack))
    elif said := _STATES.get(facts.status or ""):
        yield Trouble(f"{facts.status}: {said}", where, step=SettleStack(facts.stack))


def _artifacts(facts: Facts) -> Iterator[Trouble]:
    for record, function, sha256 in facts.missing:
        where = f"release {record.release}"
        if not sha256:
            yield Trouble(
                "its template is not in the artifact bucket: no rollback can go to it", where,
                "restore the object from the bucket's older versions (30 days), or deploy its commit again",
            )  # fmt: skip
            continue
        what = f"the artifact of {function} ({sha256[:12]}…) is not in the bucket: an update that goes there would fail"
        name, version = record.functions.get(function, function), record.versions.get(function, "")
        yield Trouble(what, where, step=Upload(name, version, sha256))


def _record(facts: Facts) -> Iterator[Trouble]:
    record = facts.unfinished
    if record is None:
        return
    arrived = facts.live is not None and facts.live.release == record.release
    what = f"it has not ended since {record.created_at}: " + (
        "it is live, but its record does not say so" if arrived else "its deploy was cut off, unless it still runs"
    )
    yield Trouble(what, f"release {record.release}", step=End(record.release, arrived))
