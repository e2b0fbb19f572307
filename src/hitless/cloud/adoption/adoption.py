"""Takes over a stack that Serverless Framework made: observe → decide → import the Stage → expand → contract.

A person runs it with that person's credentials: core's roles may neither import nor change osls' own bucket. The stack
itself says how far it is taken over. If the command is cut off, the stack serves as before or as after, and the same
command continues.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hitless.artifact.model import Artifact
from hitless.aws.api_stages import ApiStage
from hitless.aws.buckets import artifact_key
from hitless.aws.lambdas import LATEST
from hitless.aws.stacks import Imports
from hitless.clock import timestamp
from hitless.cloud.adoption.checks import later, lost_exports, reasons, remarks
from hitless.cloud.adoption.templates import (
    AdoptionPhase,
    PlainStack,
    adopted,
    begun,
    contracted,
    deployment_in,
    expanded,
    functions_in,
    phase,
    rollback_template,
    with_stage,
)
from hitless.cloud.records.records import Record, ReleaseSteps
from hitless.cloud.release.executor import TransitionExecutor
from hitless.cloud.release.packaging import ServicePackage
from hitless.cloud.release.proving import smoke_versions
from hitless.cloud.stage.stage import Cloud, live_number, url_of
from hitless.cloud.transform.desired import fingerprint
from hitless.cloud.transform.model import ALIAS, API_ID, STAGE_ID, Code, LiveState, Template
from hitless.cloud.transform.refusals import Refusal
from hitless.cloud.transition import Transition, refuse
from hitless.errors import CandidateFailedError, ConflictError, ServiceFileError, UsageError
from hitless.release.result import Outcome, Result
from hitless.service.model import Function, Service, SmokeRequest

STRATEGY = "Adopted"
"""The strategy in the record of an adopted release: nothing was shifted."""


@dataclass(frozen=True, slots=True)
class AdoptionPlan:
    """What `run` will do. `templates`: step → the stack's template after it, in order."""

    phase: AdoptionPhase
    wanted: Template = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    """Lambda's name of a function → the name in serverless.yml."""


class Adoption:
    """Takes over one stage's stack. `package` compiles the service for given artifacts, whose bytes are not needed."""

    def __init__(
        self, cloud: Cloud, service: Service, *, imports: Imports,
        package: Callable[[Mapping[str, Artifact]], ServicePackage],
    ) -> None:  # fmt: skip
        self._cloud, self._service, self._imports, self._package = cloud, service, imports, package
        self._steps = ReleaseSteps(cloud.clock, cloud.say)

    def observe(self) -> PlainStack:
        """Read the stack, once it is stable, and the code that it runs. Raises UsageError if there is none."""
        stack = self._cloud.stack.rest()
        live = self._cloud.stack.observe().live
        template = live.template
        if stack is None or not template:
            raise UsageError(
                f"there is no stack {self._cloud.stack.name} to adopt",
                hint=f"`hitless aws deploy --stage {self._service.stage}` creates it; a stack of another name "
                "(provider.stackName) cannot be adopted",
            )
        physical = self._cloud.stack.held()
        made_by, served, mappings = deployment_in(template), None, list[tuple[str, str]]()
        if made_by is not None and API_ID in physical:
            stage = ApiStage(physical[API_ID], made_by[1])
            served, mappings = self._cloud.api.read(stage), self._cloud.api.mappings(stage)
        running = {
            ids: self._cloud.lambdas.running(lambda_name, alias=ALIAS)
            for ids, lambda_name in functions_in(template).items()
        }
        exports = lost_exports(template).values()
        importers = {export: found for export in exports if (found := self._imports.importers(export))}
        return PlainStack(
            stack, template, physical, served, {ids: one for ids, one in running.items() if one is not None},
            live.versions, importers, tuple(mappings),
        )  # fmt: skip

    def decide(self, seen: PlainStack) -> AdoptionPlan:
        """The remaining steps, or each reason against taking the stack over."""
        now = phase(seen.template)
        if now is AdoptionPhase.ADOPTED:
            return AdoptionPlan(now)
        number = begun(seen.template) or self._number()
        refused = list(reasons(seen, service=self._service.name, stage=self._service.stage))
        package = None
        try:
            package = self._package(self._artifacts(seen, {}))
            names = package.packaged.function_names
            package = replace(package, artifacts=self._artifacts(seen, names))
        except ServiceFileError as error:
            refused.append(Refusal(error.message, error.hint))
        said = list(remarks(seen, domain=package.core.domain if package else ""))
        refused += [one for one in said if isinstance(one, Refusal)]
        notes = tuple(one for one in said if isinstance(one, str))
        if refused or package is None:
            return AdoptionPlan(now, refused=tuple(refused), notes=notes)
        if now is AdoptionPhase.EXPANDED:
            wanted = self._cloud.records.template(number) or {}
            live = self._cloud.stack.observe().live
            if not wanted:
                lost = Refusal(
                    f"the adoption began with release {number}, whose template is missing from the artifact bucket",
                    "restore the core stack and its bucket as they were when the adoption began",
                )
                return AdoptionPlan(now, refused=(lost,), notes=notes)
            return AdoptionPlan(now, wanted, {"contract": contracted(wanted, live)}, notes=notes)
        imported, steps = seen.template, {}
        if now is AdoptionPhase.PLAIN and seen.stage is not None:
            imported = steps["import"] = with_stage(seen.template, seen.stage)
        wanted = adopted(imported, seen, number=number)
        first = package.wanted(
            number=number + 1, previous=number, commit=None, strategy=self._service.settings.strategy
        )
        steps["expand"] = expanded(wanted, imported, seen)
        numbers = {ids.alias: one.version for ids, one in seen.running.items() if one.version is not None}
        # without the numbers of the versions that `expand` publishes: `run` has them
        steps["contract"] = contracted(wanted, LiveState(steps["expand"], numbers, seen.versions))
        return AdoptionPlan(now, wanted, steps, tuple(later(wanted, imported, first)), notes, names)

    def run(self, seen: PlainStack, plan: AdoptionPlan) -> Result:
        """Carry the plan out. Raises ConflictError with every reason if the plan is refused."""
        refuse(plan.refused, ConflictError)
        stage = self._service.stage
        if plan.phase is AdoptionPhase.ADOPTED:
            live = live_number(self._cloud.stack.observe()) or 0
            return Result(stage, live, Outcome.UNCHANGED, STRATEGY, url=url_of(self._cloud))
        record, expand = self._begin(seen, plan), plan.templates.get("expand")
        if expand is not None:
            self._copy_code(seen)
            self._import(seen, plan)
            self._steps.add(
                "expanding", 0, "adding versions of the running code, aliases and permissions; no client uses them yet"
            )
        before = self._cloud.stack.observe()
        transition = Transition(before.live.template, before.live, plan.wanted, expand=expand)
        executor = TransitionExecutor(self._cloud, transition, before)
        executor.update(transition.updates)
        record = self._prove(record)
        self._steps.add("moving", 0, "the Stage moves to the Deployment that calls the aliases")
        wanted = self._cloud.records.template(record.release) or plan.wanted
        executor.apply(contracted(wanted, self._cloud.stack.observe().live))
        self._steps.add("ended", 100)
        now = timestamp(self._cloud.clock.now())
        steps = tuple(self._steps.steps)
        self._cloud.records.save(replace(record, outcome=Outcome.LIVE, reason=None, ended_at=now, steps=steps))
        return Result(
            stage, record.release, Outcome.LIVE, STRATEGY, duration_s=self._steps.duration_s, steps=steps,
            url=url_of(self._cloud),
        )  # fmt: skip

    def _number(self) -> int:
        cut_off = self._cloud.records.unfinished()
        if cut_off is not None and cut_off.strategy == STRATEGY:
            return cut_off.release
        return self._cloud.records.next_number()

    def _artifacts(self, seen: PlainStack, names: Mapping[str, str]) -> dict[str, Artifact]:
        """The running code as artifacts, by the names in serverless.yml. A new function of the file gets a digest of
        zeros. `names`: Lambda's name of a function → the file's.
        """
        held = {names[one.name]: one for one in seen.running.values() if one.name in names}
        found = {}
        for function in self._service.functions:
            running = held.get(function.name)
            digest = f"sha256:{running.sha256 if running else '0' * 64}"
            size = running.zip_bytes if running else 0
            found[function.name] = Artifact(digest, size, size, False, function.runtime, function.architecture)
        return found

    def _begin(self, seen: PlainStack, plan: AdoptionPlan) -> Record:
        """The record of this release: that of the adoption that was cut off, else a new one."""
        records, mark = self._cloud.records, secrets.token_hex(8)
        if (number := begun(seen.template)) is not None:
            cut_off = records.require(number)
            self._cloud.say(f"the adoption of {self._cloud.stack.name} was cut off; it is continued")
            carried = replace(cut_off, holder=mark, outcome=None, reason=None, ended_at=None)
            records.save(carried)
            return carried
        prefix = f"{self._service.name}-{self._service.stage}-"
        lambda_names = functions_in(seen.template).values()
        short = {plan.names.get(name, name.removeprefix(prefix)): name for name in lambda_names}
        held = {one.name: one for one in seen.running.values()}
        record = Record(
            release=self._number(),
            service=self._service.name,
            stage=self._service.stage,
            created_at=timestamp(self._cloud.clock.now()),
            fingerprint=fingerprint(plan.wanted),
            strategy=STRATEGY,
            message="adopted as it ran",
            artifacts={name: f"sha256:{held[theirs].sha256}" for name, theirs in short.items()},
            functions=short,
            holder=mark,
        )
        code = {name: Code(one.sha256, artifact_key(one.sha256)) for name, one in held.items()}
        cut_off_here = records.get(record.release)  # of this number there is one only if it was cut off
        records.begin(record, rollback_template(plan.wanted, code, self._cloud.bucket.name), new=cut_off_here is None)
        if cut_off_here is not None:
            records.save(record)
        return record

    def _copy_code(self, seen: PlainStack) -> None:
        """Copy the running code to the artifact bucket, as every release's: a roll-back to this release needs it."""
        self._steps.add("preparing", 0, "the running code is copied to the artifact bucket")
        with tempfile.TemporaryDirectory(prefix="hitless-adopt-") as place:
            for sha256, name in {one.sha256: one.name for one in seen.running.values()}.items():
                self._cloud.lambdas.download(name, sha256, zipped := Path(place) / "code.zip")
                self._cloud.bucket.put_artifact(sha256, zipped)

    def _import(self, seen: PlainStack, plan: AdoptionPlan) -> None:
        if "import" not in plan.templates:
            return
        template, bucket = plan.templates["import"], self._cloud.bucket
        self._steps.add("importing", 0, "the Stage is imported into the stack unchanged")
        key = f"releases/{self._service.stage}/adoption.import.json"
        bucket.put_json(key, template)
        stage_name = template["Resources"][STAGE_ID]["Properties"]["StageName"]
        identifier = {"RestApiId": seen.physical[API_ID], "StageName": stage_name}
        self._imports.take_in(self._cloud.stack.name, template, STAGE_ID, identifier, url=bucket.url_of(key))

    def _prove(self, record: Record) -> Record:
        """Test the new versions directly, before any client reaches them."""
        observed = self._cloud.stack.observe()
        versions = {name: observed.at[lambda_name] for name, lambda_name in record.functions.items()}
        record = replace(record, versions=versions)
        self._cloud.records.save(record)
        self._steps.add("testing", 0)
        for name, version in versions.items():
            self._cloud.lambdas.wake(record.functions[name], version)
        self._smoke({name: (record.functions[name], version) for name, version in versions.items()})
        return record

    def _smoke(self, reached: Mapping[str, tuple[str, str]]) -> None:
        """Send the stage's smoke requests to the new versions. A request that `$LATEST` fails too is only reported: the
        file may be newer than the code that runs.
        """
        functions = [one for one in self._service.functions if one.name in reached]
        latest = {name: (lambda_name, LATEST) for name, (lambda_name, _) in reached.items()}
        for request in self._service.settings.smoke:
            failed = self._smoked(request, functions, reached)
            if failed is not None and self._smoked(request, functions, latest) is None:
                raise failed
            if failed is not None:
                self._cloud.say(f"note: {failed.message}; the code fails it without hitless, too")

    def _smoked(
        self, request: SmokeRequest, functions: Sequence[Function], at: Mapping[str, tuple[str, str]]
    ) -> CandidateFailedError | None:
        try:
            smoke_versions([request], functions, at, self._cloud.lambdas, stage=self._service.stage)
        except CandidateFailedError as error:
            return error
        return None


def steps_of(plan: AdoptionPlan) -> list[dict[str, Any]]:
    """The plan in words, for a dry run."""
    said = {
        "import": "the Stage is imported into the stack unchanged: no other resource changes",
        "expand": "versions of the running code, aliases and permissions are added; no client uses them yet",
        "contract": "the Stage moves to a Deployment that calls the aliases; this is release "
        f"{plan.wanted.get('Outputs', {}).get('HitlessRelease', {}).get('Value', '')}",
    }
    return [{"step": name, "does": said[name]} for name in said if name in plan.templates and not plan.refused]
