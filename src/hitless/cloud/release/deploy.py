"""A release on AWS: expand → prove → shift → contract, in one readable method.

Every step can be repeated: what is live is read from the stack, from Lambda and from the stage's bucket, never from a
file here. A deploy that was cut off is finished by the next one: its shift is stopped first, what had arrived stays
where it is, and the rest follows. One release at a time; the newest wins, and whoever lost touches nothing more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hitless.aws.codedeploy import Move
from hitless.clock import timestamp
from hitless.cloud.records.records import Record, ended
from hitless.cloud.records.result import Counts, Outcome, Result, Steps
from hitless.cloud.release.packaging import Package
from hitless.cloud.release.proving import prove
from hitless.cloud.release.provisioning import bound, check_headroom, provision, withdraw
from hitless.cloud.release.telling import Told, tell
from hitless.cloud.release.tenure import Superseded, Tenure, home_of
from hitless.cloud.release.watching import Watch, alarms_of, guard_seconds
from hitless.cloud.release.wrapper_layer import layer_code, write_layer
from hitless.cloud.stage.service_stack import Observed
from hitless.cloud.stage.settling import Cloud, is_live, live_number, settle, take_shield_down
from hitless.cloud.stage.shift import Failure
from hitless.cloud.transform.desired import functions_of, version_ids
from hitless.cloud.transform.guard import whole_minutes
from hitless.cloud.transform.holding import held, hold
from hitless.cloud.transform.model import ALIAS, PREVIOUS_OUTPUT, URL_OUTPUT, FunctionIds, Template
from hitless.cloud.transform.orders import check_transition, notes
from hitless.cloud.transform.provisioned import provisioned
from hitless.cloud.transform.steps import clear, contract, expand
from hitless.cloud.transform.wrapper import is_shielded
from hitless.errors import CandidateFailedError, CloudError, ConflictError
from hitless.service.model import AlarmSettings
from hitless.service.strategy import AllAtOnce, Strategy


@dataclass(frozen=True, slots=True)
class _Run:
    """One release under way."""

    record: Record
    wanted: Template
    before: Observed
    targets: Mapping[FunctionIds, str]
    home: Mapping[str, str]
    """Lambda's name → the version that the live release has: where traffic goes back to."""
    hooks: Mapping[str, str]
    """CodeDeploy's lifecycle event → Lambda's name of the function that is asked. No traffic is shifted to those."""
    previous: int | None
    alarms: AlarmSettings


class Deploy:
    """Ships a package. `zip_of` gives the path of an artifact's zip by its digest."""

    def __init__(self, cloud: Cloud, zip_of: Callable[[str], Path]) -> None:
        self._cloud, self._zip_of = cloud, zip_of
        self._steps = Steps(cloud.clock, cloud.say)
        self._began = cloud.clock.now()
        self._hooks: list[dict[str, Any]] = []
        self._tenure = Tenure(cloud)

    def run(
        self, package: Package, *, strategy: Strategy, commit: str | None, message: str | None, force: bool = False,
        promoted_from: Mapping[str, Any] | None = None,
    ) -> Result:  # fmt: skip
        """Ship it and return how it ended. Raises HitlessError where nothing could be begun."""
        shipped = self._whole_minutes(strategy)
        before = settle(self._cloud, holder=self._tenure.holder)
        live = live_number(before)
        wanted = package.wanted(number=0, previous=live, commit=commit, strategy=shipped)
        if not force and is_live(before, wanted):
            self._finish(before, wanted, live)
            return Result(package.service.stage, live or 0, Outcome.UNCHANGED, str(shipped), url=self._url())
        check_transition(before.live, wanted)
        for note in notes(before.live, wanted):
            self._cloud.say(f"note: {note}")
        self._cloud.traffic.alarms(package.service.settings.alarms.also)  # says now where one is not there
        check_headroom(self._cloud, wanted, before)
        record, is_new = self._tenure.begin(package, wanted, commit, message, shipped)
        record = replace(record, promoted_from=promoted_from)
        previous = live if live != record.release else None
        wanted = package.wanted(number=record.release, previous=previous, commit=commit, strategy=shipped)
        self._cloud.records.begin(record, wanted, new=is_new)
        self._cloud.records.keep_document(record.release, package.document(commit=commit, message=message))
        self._steps.add("preparing", 0, f"release {record.release}")
        alarms = package.service.settings.alarms
        run = _Run(record, wanted, before, {}, home_of(self._cloud, before, live), package.hooks, previous, alarms)
        try:
            self._upload(package)
            run = self._expand(run)
            self._steps.add("testing", 0)
            prove(self._cloud, package, run.wanted, run.record, run.targets)
            provision(self._cloud, run.wanted, run.targets, run.home)
            self._shift(run, shipped)
            self._contract(run)
            kept = {ids: version for ids, version in run.targets.items() if ids in provisioned(run.wanted)}
            bound(self._cloud, run.wanted, kept, before.live.template)
            withdraw(self._cloud, run.wanted, live, keep=kept)
        except Superseded as newer:
            if newer.last:
                self._withdraw(run)
            return self._end(run, newer.outcome, newer.reason)
        except (CandidateFailedError, CloudError, ConflictError) as error:
            return self._go_back(run, error)
        return self._end(run, Outcome.LIVE, None)

    def _finish(self, before: Observed, wanted: Template, live: int | None) -> None:
        """What a deploy that was cut off behind its last update left undone: `settle` made us its holder."""
        record = self._cloud.records.get(live) if live is not None else None
        if record is None or record.holder != self._tenure.holder:
            return
        kept = {ids: state.version for ids, state in before.aliases.items() if ids in provisioned(wanted)}
        bound(self._cloud, wanted, kept, before.live.template)
        previous = before.live.output(PREVIOUS_OUTPUT)
        withdraw(self._cloud, wanted, int(previous) if previous is not None else None, keep=kept)

    def _go_back(self, run: _Run, error: CandidateFailedError | CloudError | ConflictError) -> Result:
        """All traffic to the live release; but where another process has taken over, the aliases are that one's."""
        try:
            self._tenure.check(run.record, run.home)
        except Superseded as newer:
            return self._end(run, newer.outcome, newer.reason)
        if isinstance(error, ConflictError):
            raise error
        self._cloud.shift.point(run.home)
        self._withdraw(run)
        return self._end(run, Outcome.ROLLED_BACK, error.message)

    def _withdraw(self, run: _Run) -> None:
        """Nothing is kept ready of a candidate that did not go live."""
        serve = {ids: run.home[name] for ids, name in run.before.functions.items() if name in run.home}
        withdraw(self._cloud, run.wanted, run.previous, keep=serve)

    def _whole_minutes(self, strategy: Strategy) -> Strategy:
        shipped = whole_minutes(strategy)
        if shipped != strategy:
            self._cloud.say(f"{strategy} is shipped as {shipped}: CodeDeploy knows whole minutes")
        return shipped

    def _upload(self, package: Package) -> None:
        with tempfile.TemporaryDirectory(prefix="hitless-layer-") as place:
            write_layer(layer := Path(place) / "layer.zip")
            self._cloud.bucket.put_artifact(layer_code().sha256, layer)
        for digest in {artifact.digest for artifact in package.artifacts.values()}:
            self._cloud.bucket.put_artifact(digest.removeprefix("sha256:"), self._zip_of(digest))

    def _expand(self, run: _Run) -> _Run:
        """First update: new versions beside the live ones. Its end tells the new versions' numbers."""
        if self._cloud.stack.observe() != run.before:
            raise Superseded(Outcome.SUPERSEDED, "another release went live before it began: repeat the command")
        before, holding = run.before.live.template, hold(run.wanted, run.before.live)
        live = held(run.before.live, holding)
        template = expand(run.wanted, live)
        for update in filter(None, (holding, clear(template, live), template)):
            self._cloud.stack.update(update, before=before)
            before = update
        run = replace(run, before=replace(run.before, live=live))
        seen = self._cloud.stack.observe()
        targets = {ids: str(seen.live.versions[version]) for ids, version in version_ids(run.wanted).items()}
        name_of = {lambda_name: name for name, lambda_name in run.record.functions.items()}
        versions = {name_of[seen.functions[ids]]: version for ids, version in targets.items()}
        record = replace(run.record, versions=versions)
        self._tenure.check(run.record, run.home)
        self._cloud.records.save(record)
        return replace(run, record=record, targets=targets)

    def _shift(self, run: _Run, strategy: Strategy) -> None:
        """CodeDeploy, one deployment for each function that changed; nothing where no client is served yet."""
        self._tenure.check(run.record, run.home)
        moves = [
            Move(run.before.functions[ids], ids.base, ALIAS, run.before.aliases[ids].version, target)
            for ids, target in run.targets.items()
            if run.home and ids in run.before.aliases and run.before.aliases[ids].version != target
            and run.before.functions[ids] not in run.hooks.values()
        ]  # fmt: skip
        if not moves:
            self._cloud.shift.point({functions_of(run.wanted)[ids]: target for ids, target in run.targets.items()})
            return
        self._steps.add("shifting", 0, f"{len(moves)} function{'s' if len(moves) > 1 else ''} by {strategy}")
        self._shield(run, moves, strategy)
        watch = Watch.begin(self._cloud, run.alarms.also)
        failure = self._cloud.shift.run(
            moves,
            configuration=_configuration(run.wanted, moves),
            description=f"release {run.record.release}",
            hooks=run.hooks,
            ignoring=watch.not_for_codedeploy,
            ringing=watch.beside_codedeploy,
            on_hook=self._hook_ended,
            on_weight=lambda weight: self._steps.add("baking" if 0 < weight < 100 else "shifting", weight),
        )
        self._tenure.check(run.record, run.home)  # who took over has settled: what stands then is that one's
        take_shield_down(self._cloud, run.before)
        if failure is None and isinstance(strategy, AllAtOnce):
            failure = self._guard(run, moves, watch)
        if failure is None:
            return
        if failure.by_hand:
            self._cloud.shift.point(run.home)
            raise Superseded(Outcome.ABORTED, f"the shift was stopped by hand ({failure.reason})", last=True)
        raise CandidateFailedError(failure.reason)

    def _guard(self, run: _Run, moves: list[Move], watch: Watch) -> Failure | None:
        """AllAtOnce has no bake: the alarms are watched once it has all traffic, before the API follows."""
        seconds = guard_seconds(run.alarms.guard_s)
        if not seconds:
            return None
        self._steps.add("guard", 100, f"the alarms are watched for {seconds} s")
        held = self._cloud.stack.held()
        candidates = [held[name] for name in alarms_of(run.wanted, moves)]

        def ringing() -> list[str]:
            self._tenure.check(run.record, run.home)
            return watch.after(candidates)

        return self._cloud.shift.guard(seconds, ringing)

    def _hook_ended(self, hook: str, status: str) -> None:
        self._hooks.append({"at": timestamp(self._cloud.clock.now()), "hook": hook, "status": status})

    def _shield(self, run: _Run, moves: list[Move], strategy: Strategy) -> None:
        """Raise it where there is a bake, for the functions whose release wants it."""
        if run.before.stage is None or isinstance(strategy, AllAtOnce):
            return
        shielded = {ids.base: ids for ids in run.targets if is_shielded(run.wanted["Resources"][ids.function])}
        self._cloud.shield.up(run.before.stage, {shielded[one.group]: one for one in moves if one.group in shielded})

    def _contract(self, run: _Run) -> None:
        """Second update: the stack records where the aliases are, and the API moves to its new Deployment."""
        self._steps.add("draining", 100)
        versions = {ids.alias: version for ids, version in run.targets.items()}
        now = self._cloud.stack.observe().live.template
        self._tenure.check(run.record, run.home)
        self._cloud.stack.update(contract(run.wanted, run.before.live, versions), before=now)

    def _end(self, run: _Run, outcome: Outcome, reason: str | None) -> Result:
        now = self._cloud.clock.now()
        self._steps.add("ended", 100 if outcome is Outcome.LIVE else 0, reason or "")
        record = ended(
            run.record, outcome=str(outcome), reason=reason, at=timestamp(now), steps=tuple(self._steps.steps)
        )
        told = tell(
            self._cloud, record, run.wanted,
            Told("promote" if record.promoted_from else "deploy", outcome, reason, record.strategy, run.previous,
                 self._began, self._steps, run.home, run.alarms, self._hooks),
            keep=self._tenure.end(record),
        )  # fmt: skip
        return Result(
            stage=run.record.stage,
            release=run.record.release,
            outcome=outcome,
            strategy=run.record.strategy,
            reason=reason,
            duration_s=self._steps.duration_s,
            steps=tuple(self._steps.steps),
            candidate=Counts(**told["candidate"]),
            live=Counts(**told["live"]) if told["live"] else None,
            url=self._url(),
        )

    def _url(self) -> str | None:
        stack = self._cloud.stack.find()
        return stack.outputs.get(URL_OUTPUT) if stack is not None else None


def _configuration(wanted: Template, moves: list[Move]) -> str:
    """The name of CodeDeploy's configuration that the groups of a wanted template have."""
    group = wanted["Resources"][f"{moves[0].group}DeploymentGroup"]["Properties"]["DeploymentConfigName"]
    if isinstance(group, str):
        return group
    return str(wanted["Resources"][group["Ref"]]["Properties"]["DeploymentConfigName"])
