"""Reads the state of a stage on AWS for `troubles`, without changing anything.

Aliases, the Stage's Deployment and mappings are read directly. CloudFormation's drift detection would take minutes and
knows no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from hitless.aws.api_stages import NO_PATH, ApiStage
from hitless.aws.codedeploy import Deployment
from hitless.aws.follow import resting
from hitless.cloud.records.records import Record
from hitless.cloud.release.executor import known_versions
from hitless.cloud.stage.stage import Cloud, Observed, live_number
from hitless.cloud.transform.functions import Ready, kept_ready
from hitless.cloud.transform.model import (
    ALIAS,
    PREVIOUS_OUTPUT,
    SHIELD_PREFIX,
    STAGE_ID,
    FunctionIds,
    LiveState,
    Template,
    of_type,
    references,
)
from hitless.release.result import Outcome

LAYER = "the wrapper's layer"
"""The name of an artifact that is no function's."""


@dataclass(frozen=True, slots=True)
class Served:
    """The API's stage. `at`: the Deployment (id) that it serves, None if there is no stage. `belongs`: the stack's."""

    stage: ApiStage
    at: str | None
    belongs: str


@dataclass(frozen=True, slots=True)
class Mapped:
    """A domain's base path. `at`: where it leads, None without a mapping. `belongs`: where the stack maps it."""

    domain: str
    path: str
    at: ApiStage | None
    belongs: ApiStage


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of a stage. Functions are by their ids; versions are Lambda's numbers."""

    now: datetime
    stack: str
    status: str | None
    """CloudFormation's; None if there is no stack."""
    observed: Observed = field(default_factory=lambda: Observed(LiveState(), {}, {}))
    failures: Mapping[str, str] = field(default_factory=dict)
    """Resources that could not be rolled back: logical id → reason."""
    live: Record | None = None
    """The release that the stack records as live."""
    unfinished: Record | None = None
    left_for: Record | None = None
    """The target of a rollback that did not finish."""
    before: Record | None = None
    """The release that was live before `live`: the target of a rollback and of a failed update."""
    wanted: Mapping[FunctionIds, Ready] = field(default_factory=dict)
    """Function → the provisioned concurrency that the serving release wants."""
    ready: Mapping[tuple[FunctionIds, str], int] = field(default_factory=dict)
    """(function, version) → provisioned environments, if there are any."""
    deployments: Mapping[str, tuple[FunctionIds, Deployment]] = field(default_factory=dict)
    """CodeDeploy's id → a deployment under way."""
    closed: tuple[FunctionIds, ...] = ()
    """Functions with routes whose alias API Gateway may not invoke."""
    served: Served | None = None
    mapped: tuple[Mapped, ...] = ()
    shielding: tuple[str, ...] = ()
    """Stage variables of a shield."""
    missing: tuple[tuple[Record, str, str], ...] = ()
    """(release, function, digest in hex) of artifacts missing in the bucket; a template if the last two are empty."""


def look(cloud: Cloud) -> Facts:
    """Read everything. Changes nothing."""
    stack, observed = cloud.stack.find(), cloud.stack.observe()
    status = stack.status if stack else None
    unfinished = cloud.records.unfinished()
    live = _live(cloud, observed, status, unfinished)
    left_for = cloud.records.get(live.left_for) if live and live.left_for is not None else None
    facts = Facts(
        cloud.clock.now(), cloud.stack.name, status, observed, live=live, unfinished=unfinished, left_for=left_for
    )
    if not observed.exists:
        return facts
    serving = left_for or live
    before = _before(cloud, observed, live)
    served, shielding = _served(cloud, observed)
    return replace(
        facts, before=before,
        failures=cloud.stack.failures() if status in ("UPDATE_ROLLBACK_FAILED", "DELETE_FAILED") else {},
        wanted=_wanted(cloud, serving), ready=_ready(cloud, observed, before, unfinished),
        deployments={
            each: (ids, seen) for ids in observed.functions for each, seen in cloud.shift.under_way(ids.base).items()
        },
        closed=_closed(cloud, observed), served=served, mapped=_mapped(cloud, observed), shielding=shielding,
        missing=_missing(cloud, [one for one in (live, before) if one is not None]),
    )  # fmt: skip


def _live(cloud: Cloud, observed: Observed, status: str | None, unfinished: Record | None) -> Record | None:
    """The live release. While a roll-back is stuck, CloudFormation may show the failed release's template: then the
    release before it is live.
    """
    number = live_number(observed)
    if unfinished is not None and unfinished.release == number and status is not None and not at_rest(status):
        previous = observed.live.output(PREVIOUS_OUTPUT)
        number = int(previous) if previous is not None else None
    return cloud.records.get(number) if number is not None else None


def at_rest(status: str) -> bool:
    """Whether the stack matches one of its templates, and is not between two of them."""
    return status.endswith("_COMPLETE") and status not in ("ROLLBACK_COMPLETE", "DELETE_COMPLETE")


def in_progress(status: str | None) -> bool:
    """Whether CloudFormation is working on the stack."""
    return status is not None and not resting(status)


def _before(cloud: Cloud, observed: Observed, live: Record | None) -> Record | None:
    previous = observed.live.output(PREVIOUS_OUTPUT)
    if previous is None or (live is not None and live.release == int(previous)):
        return None
    record = cloud.records.get(int(previous))
    return record if record is not None and record.outcome == Outcome.LIVE else None


def _served(cloud: Cloud, observed: Observed) -> tuple[Served | None, tuple[str, ...]]:
    if observed.stage is None:
        return None, ()
    at = cloud.api.deployment(observed.stage)
    wanted = observed.live.resources[STAGE_ID]["Properties"]["DeploymentId"]
    belongs = cloud.stack.held().get(wanted.get("Ref", ""), "")
    standing = cloud.api.variables(observed.stage) if at is not None else {}
    shielding = tuple(sorted(name for name in standing if name.startswith(SHIELD_PREFIX)))
    return Served(observed.stage, at, belongs), shielding


def _closed(cloud: Cloud, observed: Observed) -> tuple[FunctionIds, ...]:
    methods = of_type(observed.live.resources, "AWS::ApiGateway::Method").values()
    called = {name for one in methods for name in references(one)}
    return tuple(
        ids
        for ids in observed.aliases
        if ids.alias in called
        and not cloud.lambdas.may_be_invoked_by("apigateway.amazonaws.com", observed.functions[ids], ALIAS)
    )


def _mapped(cloud: Cloud, observed: Observed) -> tuple[Mapped, ...]:
    """The mappings of the template that lead to its own API."""
    if observed.stage is None:
        return ()
    found = []
    for one in of_type(observed.live.resources, "AWS::ApiGateway::BasePathMapping").values():
        properties: dict[str, Any] = one["Properties"]
        if properties.get("Stage") != {"Ref": STAGE_ID} or not isinstance(properties["DomainName"], str):
            continue
        domain, path = properties["DomainName"], str(properties.get("BasePath") or NO_PATH)
        found.append(Mapped(domain, path, cloud.api.mapping(domain, path), observed.stage))
    return tuple(found)


def _wanted(cloud: Cloud, serving: Record | None) -> dict[FunctionIds, Ready]:
    template = cloud.records.template(serving.release) if serving is not None else None
    return kept_ready(template or {})


def _ready(cloud: Cloud, observed: Observed, *records: Record | None) -> dict[tuple[FunctionIds, str], int]:
    """(function, version) → provisioned environments, of versions that the stack holds, that serve, or that these
    releases had.
    """
    asked = known_versions(observed, *records) | {(ids, state.version) for ids, state in observed.aliases.items()}
    found = {one: cloud.lambdas.provisioned(observed.functions[one[0]], one[1]) for one in sorted(asked, key=str)}
    return {one: number for one, number in found.items() if number}


def _missing(cloud: Cloud, records: list[Record]) -> tuple[tuple[Record, str, str], ...]:
    found, asked = [], dict[str, bool]()
    for record in records:
        template = cloud.records.template(record.release)
        if template is None:
            found.append((record, "", ""))
        needed = [(name, digest.removeprefix("sha256:")) for name, digest in sorted(record.artifacts.items())]
        needed += [(LAYER, digest) for digest in _layers(template or {})]
        for name, sha256 in needed:
            if sha256 not in asked:
                asked[sha256] = cloud.bucket.holds(sha256)
            if not asked[sha256]:
                found.append((record, name, sha256))
    return tuple(found)


def _layers(template: Template) -> list[str]:
    """The digests of the layers that the template takes from the bucket."""
    layers = of_type(template.get("Resources", {}), "AWS::Lambda::LayerVersion").values()
    keys = [str(one["Properties"]["Content"]["S3Key"]) for one in layers]
    return [key.removeprefix("artifacts/").removesuffix(".zip") for key in keys]
