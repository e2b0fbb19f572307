"""What the stage's artifact bucket keeps of each release: its record, its template, its document, and its rollouts.

`releases/STAGE/NUMBER.json` is written when a release begins, and again when it ends. Nothing else remembers releases,
so any machine can finish, list or roll back to one. A record is only saved over the version that was read last.

`releases/STAGE/NUMBER.rollouts.json` has the receipts. A receipt is made when a rollout ends. CloudWatch is minutes
late, so the receipt is made again when somebody reads it after CloudWatch has all minutes, and is kept then. No command
waits for that.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from botocore.exceptions import ClientError
from msgspec import UNSET, UnsetType

from hitless.aws.buckets import Bucket
from hitless.aws.session import is_denied
from hitless.aws.traffic import Traffic
from hitless.clock import Clock, timestamp
from hitless.cloud.records.receipt import SETTLES_AFTER, CountedRollout, receipt_of
from hitless.cloud.transform.desired import functions_of
from hitless.cloud.transform.functions import is_wrapped
from hitless.cloud.transform.holding import HELD
from hitless.cloud.transform.model import ALIAS, API_ID, STAGE_ID, Template, of_type, references
from hitless.documents import convert, to_plain
from hitless.errors import ConflictError, UsageError
from hitless.release.document import PromotedFrom, ReleaseDocument
from hitless.release.history import RolloutDocument
from hitless.release.receipt import HookEnd, ReceiptFacts, ReleaseCounts
from hitless.release.result import Outcome, SideCounts, Step
from hitless.release.who import Who
from hitless.service.model import AlarmSettings

LOOKED_AT = 200
"""The live release is searched for among this many of the newest releases."""
READ_AT_ONCE = 8
"""A stage that ships many times a day has thousands of records within a year, and each takes a call."""


@dataclass(frozen=True, slots=True)
class Record:
    """One release.

    `versions` and `artifacts` are by the function's name in serverless.yml; `functions` gives Lambda's names. `outcome`
    is None while the release is under way, and if its deploy was cut off.
    """

    release: int
    service: str
    stage: str
    created_at: str
    fingerprint: str
    strategy: str
    commit: str | None = None
    message: str | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str | None = None
    ended_at: str | None = None
    steps: tuple[Step, ...] = ()
    promoted_from: PromotedFrom | None = None
    """The release that it was promoted from; None if it was built."""
    left_for: int | None = None
    """The release for which a rollback is leaving this one. Written before the rollback moves traffic."""
    holder: str = ""
    """The mark of the process that carries the release on. Another mark means that another process has taken over."""

    @property
    def at(self) -> dict[str, str]:
        """Lambda's name → the version of this release."""
        return {self.functions[name]: version for name, version in self.versions.items()}


class Records:
    """The releases of one stage."""

    def __init__(self, bucket: Bucket, stage: str) -> None:
        self._bucket = bucket
        self._prefix = f"releases/{stage}/"
        self._seen: dict[int, str] = {}

    def numbers(self) -> list[int]:
        """The numbers of all releases, newest first."""
        found = (
            re.fullmatch(r"(\d+)\.json", key.removeprefix(self._prefix)) for key in self._bucket.keys(self._prefix)
        )
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def get(self, number: int) -> Record | None:
        """The release of that number, or None."""
        key = f"{self._prefix}{number}.json"
        found = self._bucket.get_json(key)
        if found is None:
            return None
        document, self._seen[number] = found
        return convert(document, Record, key)

    def many(self, numbers: Iterable[int]) -> list[Record]:
        """The releases with those numbers, in their order; missing ones are left out."""
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            return [record for record in pool.map(self.get, numbers) if record is not None]

    def is_overtaken(self, number: int) -> bool:
        """Whether a newer release was begun. Numbers have no gaps, so one call for the next number is enough."""
        following = f"{self._prefix}{number + 1}.json"
        return following in self._bucket.keys(following)

    def require(self, number: int) -> Record:
        """The release of that number. UsageError if there is none."""
        if (record := self.get(number)) is None:
            raise UsageError(f"there is no release {number}", hint="`hitless aws releases` lists them")
        return record

    def template(self, number: int) -> Template | None:
        """The template that the release wanted."""
        found = self._bucket.get_json(f"{self._prefix}{number}.template.json")
        return dict(found[0]) if found is not None else None

    def keep_document(self, number: int, document: ReleaseDocument) -> None:
        """Keep the release's document beside its record, so that an engine can start the same release."""
        self._bucket.put_json(f"{self._prefix}{number}.release.json", document.to_json())

    def document(self, number: int) -> ReleaseDocument | None:
        """The release's document; None if an earlier version of hitless shipped the release.

        It is looked for by a list, because a caller who may not list the bucket is denied a missing key.
        """
        key = f"{self._prefix}{number}.release.json"
        found = self._bucket.get_json(key) if key in self._bucket.keys(key) else None
        return ReleaseDocument.from_json(found[0]) if found is not None else None

    def live(self) -> Record | None:
        """The release that went live last, by the records alone: a caller may be allowed to read the bucket and no
        stack.

        A rollback saves its target's record again, so the latest end counts, not the number.
        """
        return next(iter(self.recently_live(1)), None)

    def recently_live(self, count: int, *, of: int = LOOKED_AT) -> list[Record]:
        """The releases that were live last, the latest first, among the `of` newest ones."""
        were_live = [one for one in self.many(self.numbers()[:of]) if one.outcome == Outcome.LIVE]
        return sorted(were_live, key=lambda record: (record.ended_at or "", record.release), reverse=True)[:count]

    def begin(self, record: Record, template: Template, *, new: bool) -> None:
        """Take the number if it is `new`, and keep the template. Raises ConflictError if another process was faster."""
        if new:
            key = f"{self._prefix}{record.release}.json"
            self._seen[record.release] = self._bucket.put_json(key, to_plain(record), new=True)
        self._bucket.put_json(f"{self._prefix}{record.release}.template.json", template)

    def save(self, record: Record) -> None:
        """Save the record. Raises ConflictError if another process has saved it since it was read."""
        over, key = self._seen.get(record.release, ""), f"{self._prefix}{record.release}.json"
        self._seen[record.release] = self._bucket.put_json(key, to_plain(record), over=over)

    def next_number(self) -> int:
        """The number after the newest."""
        return max(self.numbers(), default=0) + 1

    def unfinished(self) -> Record | None:
        """The newest release if its deploy has not ended."""
        newest = next(iter(self.numbers()), None)
        record = self.get(newest) if newest is not None else None
        return record if record is not None and record.outcome is None else None


ROLLOUTS_KEPT = 50


class ReleaseSteps:
    """The steps of a release. Each is reported when it begins; one that repeats the last one is left out."""

    def __init__(self, clock: Clock, say: Any) -> None:
        self._clock, self._say = clock, say
        self._began, self.began_at = clock.monotonic(), clock.now()
        self.steps: list[Step] = []

    def add(self, state: str, weight_percent: float, note: str = "") -> None:
        """Record that the release is now there."""
        if self.steps and (self.steps[-1].state, self.steps[-1].weight_percent) == (state, weight_percent):
            return
        self.steps.append(Step(timestamp(self._clock.now()), state, weight_percent))
        self._say(f"{state} at {weight_percent} %{': ' + note if note else ''}")

    def weights(self) -> list[tuple[datetime, float]]:
        """The instants at which the candidate's share changed, and the shares. The last step, the end, has none."""
        found: list[tuple[datetime, float]] = []
        for step in self.steps:
            if step.state != "ended" and (not found or found[-1][1] != step.weight_percent):
                found.append((datetime.fromisoformat(step.at), step.weight_percent))
        return found

    @property
    def duration_s(self) -> float:
        return round(self._clock.monotonic() - self._began, 3)


class KeptRollout(RolloutDocument, frozen=True, kw_only=True):
    """A rollout as the bucket keeps it. `counting` is the `CountedRollout` that its receipt is made of, `counted_at`
    when that was. A shown one has no `counting`.
    """

    outcome: Outcome
    ended_at: str
    duration_s: float
    counting: dict[str, Any] | UnsetType = UNSET
    counted_at: str = ""

    @property
    def is_early(self) -> bool:
        """Whether the receipt was made before CloudWatch had all of it."""
        return datetime.fromisoformat(self.counted_at) < datetime.fromisoformat(self.ended_at) + SETTLES_AFTER


class _File(msgspec.Struct, frozen=True):
    rollouts: tuple[KeptRollout, ...] = ()


class Rollouts:
    """The rollouts of one stage."""

    def __init__(self, bucket: Bucket, stage: str, traffic: Traffic, clock: Clock) -> None:
        self._bucket, self._traffic, self._clock = bucket, traffic, clock
        self._prefix = f"releases/{stage}/"

    def add(
        self, record: Record, rollout: CountedRollout, *, verb: str, previous: int | None, duration_s: float,
        keep: bool = True,
    ) -> KeptRollout:  # fmt: skip
        """Keep a rollout that ended as the record says, with what is counted of it by now, and return it.

        Without `keep` it is only returned: another process keeps it.
        """
        assert record.outcome is not None
        kept, etag = self._read(record.release)
        entry = self._counted(
            KeptRollout(
                verb=verb,
                strategy=record.strategy,
                outcome=record.outcome,
                reason=record.reason,
                previous_release=previous,
                duration_s=duration_s,
                steps=record.steps,
                rollout=len(kept) + 1,
                was_live=record.outcome is Outcome.LIVE,
                started_at=timestamp(rollout.began),
                ended_at=timestamp(rollout.ended),
                counting=to_plain(rollout),
            )
        )
        if keep:
            with contextlib.suppress(ConflictError):  # another process has just written a rollout of this release
                self._write(record.release, (entry, *kept)[:ROLLOUTS_KEPT], etag)
        return entry

    def of(self, release: int) -> list[KeptRollout]:
        """The release's rollouts, newest first. Each receipt is as complete as CloudWatch can make it now."""
        kept, etag = self._read(release)
        if any(one.is_early for one in kept):
            kept = tuple(self._counted(one) if one.is_early else one for one in kept)
            try:
                self._write(release, kept, etag)
            except (ClientError, ConflictError) as error:
                if not is_denied(error) and not isinstance(error, ConflictError):
                    raise  # a reader without the right to write gets the receipt, too
        return [msgspec.structs.replace(one, counting=UNSET) for one in kept]

    def _counted(self, entry: KeptRollout) -> KeptRollout:
        """The entry with a receipt of what CloudWatch has now."""
        rollout, now = convert(entry.counting, CountedRollout, "counting"), self._clock.now()
        series = self._traffic.series(rollout.versions(), (ALIAS, HELD), since=rollout.began, until=rollout.ended)
        clients = self._traffic.answers(*rollout.api, since=rollout.began, until=rollout.ended) if rollout.api else None
        receipt = receipt_of(rollout, series, clients, now)
        return msgspec.structs.replace(
            entry,
            candidate=_sums(receipt.candidate),
            live=_sums(receipt.live) if receipt.live else None,
            receipt=receipt,
            counted_at=timestamp(now),
        )

    def _read(self, release: int) -> tuple[tuple[KeptRollout, ...], str]:
        key = f"{self._prefix}{release}.rollouts.json"
        found = self._bucket.get_json(key)
        return (convert(found[0], _File, key).rollouts, found[1]) if found is not None else ((), "")

    def _write(self, release: int, rollouts: tuple[KeptRollout, ...], etag: str) -> None:
        key = f"{self._prefix}{release}.rollouts.json"
        self._bucket.put_json(key, to_plain(_File(rollouts)), new=not etag, over=etag)


def _sums(counts: ReleaseCounts) -> SideCounts:
    return SideCounts(counts.requests, counts.failed, counts.shielded)


def rollout_of(
    record: Record, wanted: Template, steps: ReleaseSteps, home: Mapping[str, str], *, ended: datetime,
    who: Who, why: str | None = None, alarms: AlarmSettings | None = None,
    hooks: Sequence[HookEnd] = (),
) -> CountedRollout:  # fmt: skip
    """What the receipt of a rollout is about. `home`: Lambda's name → the version that was live before.

    The candidate's versions are those that are new to the traffic. An unchanged function is the live release's.
    """
    return CountedRollout(
        began=steps.began_at,
        ended=ended,
        names=record.functions,
        candidate={name: v for name, v in record.versions.items() if home.get(record.functions[name]) != v},
        live={name: home[theirs] for name, theirs in record.functions.items() if theirs in home},
        weights=steps.weights(),
        alarms=alarms or AlarmSettings(),
        hooks=hooks,
        facts=ReceiptFacts(
            release=record.release,
            stage=record.stage,
            who=who,
            why=why or record.message,
            commit=record.commit,
            artifacts=record.artifacts,
            promoted_from=record.promoted_from,
        ),
        unwrapped=unwrapped(wanted, record),
        api=_api(wanted),
    )


def unwrapped(wanted: Template, record: Record) -> list[str]:
    """Functions with routes whose responses the wrapper does not see."""
    names = {theirs: ours for ours, theirs in record.functions.items()}
    resources = wanted["Resources"]
    called = {name for one in of_type(resources, "AWS::ApiGateway::Method").values() for name in references(one)}
    return sorted(
        names[theirs]
        for ids, theirs in functions_of(wanted).items()
        if ids.alias in called and theirs in names and not is_wrapped(resources[ids.function])
    )


def _api(wanted: Template) -> tuple[str, str] | None:
    """The name and the stage by which API Gateway counts."""
    api, stage = wanted["Resources"].get(API_ID), wanted["Resources"].get(STAGE_ID)
    if api is None or stage is None:
        return None
    return str(api["Properties"]["Name"]), str(stage["Properties"]["StageName"])
