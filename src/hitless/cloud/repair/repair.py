"""Brings a stage on AWS back to its live release: look, decide (`troubles`), fix, look again.

Every step can be repeated, and none stops a version that serves. A release under way is taken over as by a deploy:
repair writes its own mark into the release's record, and the process that was shipping the release sees it and ends as
superseded. Another command can stop a repair in the same way.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from hitless.aws.session import explain, is_denied
from hitless.clock import timestamp
from hitless.cloud.release.packaging import layer_code, write_layer
from hitless.cloud.release.rollback import rollback
from hitless.cloud.repair.facts import Facts, in_progress, look
from hitless.cloud.repair.troubles import (
    ContinueRollback,
    DropShield,
    End,
    FinishRollback,
    Map,
    Point,
    Provision,
    RepairStep,
    Serve,
    SettleStack,
    StopShifts,
    Trouble,
    Upload,
    troubles,
)
from hitless.cloud.stage.stage import Cloud, lower_shield
from hitless.errors import CloudError, ConflictError, HitlessError, UsageError
from hitless.release.result import Outcome

PASSES = 6
"""How often repair looks at the stage at most: fixing one trouble may reveal another."""
TIMES = 2
"""How often one step is taken at most: a continued roll-back may undo the fix of an alias before it."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was fixed and what is left. For a dry run, `left` is everything that was found; `steps` are sentences."""

    stage: str
    fixed: tuple[Trouble, ...] = ()
    left: tuple[Trouble, ...] = ()
    steps: tuple[str, ...] = ()
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "dry_run": self.dry_run,
            "steps": list(self.steps),
            "mended": [one.to_json() for one in self.fixed],
            "left": [one.to_json() for one in self.left],
        }


class Repair:
    """Repairs one stage.

    `zip_of`: an artifact's digest in hex → the path of its zip on this machine, which may be missing: then it is
    downloaded from Lambda. `skip`: logical ids that a stuck roll-back leaves as they are.
    """

    def __init__(self, cloud: Cloud, zip_of: Callable[[str], Path], *, skip: Collection[str] = ()) -> None:
        self._cloud, self._zip_of, self._skip = cloud, zip_of, tuple(skip)
        self._holder = secrets.token_hex(8)
        self._steps: list[str] = []
        self._failed: dict[RepairStep, HitlessError] = {}
        self._newest: tuple[int, str] = (0, "")

    def plan(self, stage: str) -> Repaired:
        """The steps that `run` would take, as far as they are known before the first one."""
        facts = look(self._cloud)
        self._check_skipped(facts)
        found = troubles(facts, taking_over=True)
        sentences = dict.fromkeys(str(one.step) for one in found if one.step is not None)
        return Repaired(stage, left=tuple(found), steps=tuple(sentences), dry_run=True)

    def run(self, stage: str) -> Repaired:
        """Fix everything that can be fixed. Raises UsageError for a resource that cannot be skipped, before anything is
        changed; ConflictError if another command has taken over.
        """
        facts = look(self._cloud)
        self._check_skipped(facts)
        self._take_over(facts)
        if in_progress(facts.status):
            self._cloud.stack.rest()
            facts = look(self._cloud)
        fixed: dict[Trouble, None] = {}
        for _ in range(PASSES):
            found = troubles(facts, taking_over=True)
            if not self._fix(found, facts, fixed):
                break
            facts = look(self._cloud)
        left = [self._explained(one) for one in troubles(facts, taking_over=True)]
        return Repaired(stage, tuple(one for one in fixed if one not in left), tuple(left), tuple(self._steps))

    def _fix(self, found: list[Trouble], facts: Facts, fixed: dict[Trouble, None]) -> bool:
        """Take the steps, and stop after one that may change other troubles too. Returns whether any was taken."""
        taken = False
        for step in dict.fromkeys(one.step for one in found if one.step is not None):
            if step in self._failed or self._steps.count(str(step)) >= TIMES:
                continue
            if isinstance(step, End) and self._failed:
                continue
            self._check_still_ours()
            self._cloud.say(str(step))
            self._steps.append(str(step))
            taken = True
            try:
                self._take(step, facts)
            except ConflictError:
                raise
            except HitlessError as error:
                self._failed[step] = error
            except ClientError as error:
                self._failed[step] = explain(error)
            else:
                fixed.update(dict.fromkeys(one for one in found if one.step == step))
            if isinstance(step, StopShifts | FinishRollback | ContinueRollback | SettleStack):
                break
        return taken

    def _take(self, step: RepairStep, facts: Facts) -> None:
        cloud = self._cloud
        match step:
            case StopShifts(groups):
                cloud.shift.stop_groups(groups)
            case Point(function, version):
                cloud.lambdas.wake(function, version)
                cloud.shift.point({function: version})
            case FinishRollback(release):
                rollback(cloud, release)
                self._remember()
            case Serve(served):
                cloud.api.serve(served.stage, served.belongs)
            case Map(one):
                cloud.api.map(one.domain, one.path, one.belongs, there=one.at is not None)
            case Provision(function, version, 0):
                self._remove_provisioned(function, version)
            case Provision(function, version, environments):
                cloud.lambdas.provision(function, version, environments)
            case DropShield():
                lower_shield(cloud, facts.observed)
            case ContinueRollback():
                if causes := cloud.stack.continue_rollback(self._skip):
                    raise CloudError(causes[0], hint="fix the cause, and repeat")
            case SettleStack():
                cloud.stack.settle()
            case Upload(function, version, sha256):
                self._upload(function, version, sha256)
            case End(release, live):
                self._end(release, live=live)

    def _remove_provisioned(self, function: str, version: str) -> None:
        try:
            self._cloud.autoscaling.stop_scaling(function, version)  # first, or autoscaling would provision them again
        except ClientError as error:
            if not is_denied(error):  # an older core stack grants no such permission, and scales nothing
                raise
        self._cloud.lambdas.remove_provisioned(function, version)

    def _upload(self, function: str, version: str, sha256: str) -> None:
        with tempfile.TemporaryDirectory(prefix="hitless-artifact-") as place:
            here = self._zip_of(sha256)
            if sha256 == layer_code().sha256:
                write_layer(here := Path(place) / "layer.zip")
            elif not version:
                raise CloudError(
                    f"{function} was built by another version of hitless",
                    hint="deploy again with that version of hitless",
                )
            elif not here.is_file():
                here = Path(place) / "artifact.zip"
                try:
                    self._cloud.lambdas.download(function, sha256, here, version=version)
                except OSError as error:
                    raise CloudError(f"Lambda's copy cannot be fetched: {error}", hint="repeat the command") from error
            self._cloud.bucket.put_artifact(sha256, here)

    def _end(self, release: int, *, live: bool) -> None:
        record = self._cloud.records.get(release)
        if record is None or record.outcome is not None:
            return
        reason = None if live else "it was cut off; `hitless aws repair` rolled it back"
        outcome = Outcome.LIVE if live else Outcome.ROLLED_BACK
        now = timestamp(self._cloud.clock.now())
        self._cloud.records.save(replace(record, holder=self._holder, outcome=outcome, reason=reason, ended_at=now))
        self._remember()

    def _take_over(self, facts: Facts) -> None:
        if facts.unfinished is not None:
            self._cloud.records.save(replace(facts.unfinished, holder=self._holder))
        self._remember()

    def _remember(self) -> None:
        self._newest = self._read_newest()

    def _read_newest(self) -> tuple[int, str]:
        newest = max(self._cloud.records.numbers(), default=0)
        record = self._cloud.records.get(newest) if newest else None
        return newest, record.holder if record is not None else ""

    def _check_still_ours(self) -> None:
        if self._read_newest() != self._newest:
            raise ConflictError(
                "another command has taken over; this one stops here",
                hint="`hitless aws status` shows what is left after it has ended",
            )

    def _check_skipped(self, facts: Facts) -> None:
        unknown = sorted(set(self._skip) - facts.failures.keys()) if self._skip else []
        if unknown or (self._skip and facts.status != "UPDATE_ROLLBACK_FAILED"):
            blocked = ", ".join(sorted(facts.failures)) or "no resource"
            raise UsageError(
                f"--skip-resource: no roll-back is stuck at {', '.join(unknown or self._skip)}",
                hint=f"stuck at: {blocked}",
            )

    def _explained(self, trouble: Trouble) -> Trouble:
        """The trouble, with the reason if its step failed."""
        error = self._failed.get(trouble.step) if trouble.step is not None else None
        if error is None:
            return trouble
        way = f"{error.message}; {error.hint}"
        if isinstance(trouble.step, ContinueRollback):
            way += ", or skip it with `hitless aws repair --skip-resource LOGICAL_ID`"
        return replace(trouble, fix=way)


def describe(found: Mapping[str, str]) -> str:
    """A trouble as one line of text."""
    return f"{found['where']}: {found['what']}; {found['mends']}"
