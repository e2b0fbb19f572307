"""Whose release is under way on AWS: from its record's first mark to its end, one process at a time holds it.

The mark stands in the record, in the stage's bucket. Who takes over (a newer deploy, `abort`, `repair`) writes there
first; the one that had it looks before each step, and whoever lost touches nothing more.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace

from hitless.clock import timestamp
from hitless.cloud.records.records import Record
from hitless.cloud.release.packaging import Package
from hitless.cloud.stage.service_stack import Observed
from hitless.cloud.stage.settling import Cloud
from hitless.cloud.transform.desired import fingerprint, functions_of
from hitless.cloud.transform.model import Template
from hitless.errors import ConflictError
from hitless.release.result import Outcome
from hitless.service.strategy import Strategy


class Superseded(Exception):
    """A newer release was begun, or another process has ended this one or carries it on. `last`: nobody comes after
    us who takes away what we still put there.
    """

    def __init__(self, outcome: Outcome, reason: str, *, last: bool = False) -> None:
        super().__init__(reason)
        self.outcome, self.reason, self.last = outcome, reason, last


class Tenure:
    """One process's hold of the release that it ships. `holder` is its mark."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self.holder = cloud, secrets.token_hex(8)

    def next_record(
        self, package: Package, wanted: Template, commit: str | None, message: str | None, strategy: Strategy
    ) -> tuple[Record, Record | None]:
        """The record for this release, and that of the release whose deploy was cut off, if there is one. They are the
        same if the content is. Writes nothing.
        """
        records, name_of = self._cloud.records, package.packaged.function_names
        mark = fingerprint(wanted)
        cut_off = records.unfinished()
        if cut_off is not None and cut_off.fingerprint == mark:
            self._cloud.say(f"release {cut_off.release} was cut off; it is continued")
            return cut_off, cut_off
        record = Record(
            release=records.next_number(),
            service=package.service.name,
            stage=package.service.stage,
            created_at=timestamp(self._cloud.clock.now()),
            fingerprint=mark,
            strategy=str(strategy),
            commit=commit,
            message=message,
            artifacts={name: artifact.digest for name, artifact in package.artifacts.items()},
            functions={name_of[lambda_name]: lambda_name for lambda_name in functions_of(wanted).values()},
            holder=self.holder,
        )
        return record, cut_off

    def begin(self, record: Record, wanted: Template, cut_off: Record | None) -> None:
        """Take the release's number and keep its template. Another release that was cut off ends as superseded."""
        records, goes_on = self._cloud.records, cut_off is not None and cut_off.release == record.release
        if cut_off is not None and not goes_on:
            reason = "another release was begun before it ended"
            records.save(replace(cut_off, outcome=str(Outcome.SUPERSEDED), reason=reason))
        records.begin(record, wanted, new=not goes_on)

    def check(self, record: Record, home: Mapping[str, str]) -> None:
        """Raises Superseded where the release is another's by now. Where it was taken from us to end it, traffic goes
        to `home` (Lambda's name → version) once more.
        """
        records = self._cloud.records
        if records.is_overtaken(record.release):
            raise Superseded(Outcome.SUPERSEDED, f"release {record.release + 1} was begun meanwhile")
        stored = records.get(record.release)
        if stored is None:
            return
        if stored.outcome is not None:
            last = stored.outcome in (Outcome.ABORTED, Outcome.ROLLED_BACK)  # by `abort`, by `repair`
            if last:  # it may have come between our last look and CodeDeploy's start
                self._cloud.shift.point(home)
            ends = Outcome.SUPERSEDED if stored.outcome == Outcome.ROLLED_BACK else Outcome(stored.outcome)
            raise Superseded(ends, stored.reason or "another process has ended it", last=last)
        if stored.holder != record.holder:
            raise Superseded(Outcome.SUPERSEDED, "another deploy carries it on")

    def end(self, record: Record) -> bool:
        """Unless another process has written how it ended, or carries it on: then nothing is written any more."""
        stored = self._cloud.records.get(record.release)
        if stored is None or stored.holder != record.holder:
            return False
        try:
            self._cloud.records.save(record)
        except ConflictError:
            return False
        return True


def home_of(cloud: Cloud, before: Observed, live: int | None) -> dict[str, str]:
    """Where the live release's traffic belongs. An alias elsewhere was left by a deploy that was cut off, or by a
    rollback, whose stack did not follow yet: then it stands at a version that was live, and stays.
    """
    if live is None:
        return {}
    at = {before.functions[ids]: state.version for ids, state in before.aliases.items()}
    recorded = _versions(cloud.records.get(live))
    strays = {name for name, version in at.items() if recorded.get(name, version) != version}
    were_live = [_versions(record) for record in cloud.records.many(cloud.records.numbers())] if strays else []
    for name in strays:
        if not any(versions.get(name) == at[name] for versions in were_live):
            at[name] = recorded[name]
    return at


def _versions(record: Record | None) -> dict[str, str]:
    """Lambda's name → version, of a release that went live; empty for any other."""
    if record is None or record.outcome != Outcome.LIVE:
        return {}
    return {record.functions[name]: version for name, version in record.versions.items()}
