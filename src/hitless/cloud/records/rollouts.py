"""The rollouts of each release, with their receipts: `releases/STAGE/NUMBER.rollouts.json` in the artifact bucket.

A receipt is made when a rollout ends, and made anew by whoever asks once CloudWatch has all of it; then it is kept as
it is. Nobody waits for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Protocol

from botocore.exceptions import ClientError

from hitless.aws.session import is_denied
from hitless.aws.traffic import Alarm, Answers, Minute
from hitless.clock import Clock, timestamp
from hitless.cloud.records.receipt import SETTLES_AFTER, Rollout, receipt_of
from hitless.cloud.records.records import Documents
from hitless.cloud.transform.model import ALIAS
from hitless.cloud.transform.updates import HELD
from hitless.errors import ConflictError
from hitless.service.model import AlarmSettings

ROLLOUTS_KEPT = 50
SUMS = ("requests", "failed", "shielded")


class Counter(Protocol):
    """Counts requests: aws.traffic.Traffic."""

    def series(
        self, versions: Any, aliases: Sequence[str], *, since: datetime, until: datetime
    ) -> Mapping[tuple[str, str], Mapping[datetime, Minute]]: ...
    def answers(self, api: str, stage: str, *, since: datetime, until: datetime) -> Answers: ...
    def ringing(self, alarms: Collection[str]) -> list[str]: ...
    def alarms(self, names: Collection[str]) -> list[Alarm]: ...
    def most_at_once(self, function: str, alias: str, *, until: datetime) -> int: ...


class Rollouts:
    """Of one stage."""

    def __init__(self, documents: Documents, stage: str, counter: Counter, clock: Clock) -> None:
        self._documents, self._counter, self._clock = documents, counter, clock
        self._prefix = f"releases/{stage}/"

    def add(
        self, release: int, told: Mapping[str, Any], rollout: Rollout, api: tuple[str, str] | None, *, keep: bool = True
    ) -> dict[str, Any]:
        """Keep a rollout that has ended, with what is counted of it by now, and return it.

        `told`: verb, strategy, outcome, reason, previous release, duration, steps. `api`: the REST API's name and its
        stage. Without `keep` it is another process's to keep.
        """
        kept, etag = self._read(release)
        entry = {
            "rollout": len(kept) + 1,
            "state": "ended",
            "taken_back": None,
            "was_live": told["outcome"] == "live",
            "started_at": timestamp(rollout.began),
            "ended_at": timestamp(rollout.ended),
            **told,
            "counting": {**_to_json(rollout), "api": list(api) if api else None},
        }
        self._count(entry)
        if keep:
            with contextlib.suppress(ConflictError):  # another process has just told of the same release
                self._write(release, [entry, *kept][:ROLLOUTS_KEPT], etag)
        return entry

    def of(self, release: int) -> list[dict[str, Any]]:
        """The release's rollouts, newest first; each receipt as whole as CloudWatch can make it now."""
        kept, etag = self._read(release)
        late = [entry for entry in kept if self._is_early(entry)]
        for entry in late:
            self._count(entry)
        if late:
            try:
                self._write(release, kept, etag)
            except (ClientError, ConflictError) as error:
                if not is_denied(error) and not isinstance(error, ConflictError):
                    raise  # who may only read gets an answer too
        return [{key: value for key, value in entry.items() if key != "counting"} for entry in kept]

    def _is_early(self, entry: Mapping[str, Any]) -> bool:
        """Whether the receipt was made before CloudWatch had all of it."""
        return datetime.fromisoformat(entry["counted_at"]) < datetime.fromisoformat(entry["ended_at"]) + SETTLES_AFTER

    def _count(self, entry: dict[str, Any]) -> None:
        rollout, now = _from_json(entry), self._clock.now()
        api = entry["counting"]["api"]
        series = self._counter.series(rollout.versions(), (ALIAS, HELD), since=rollout.began, until=rollout.ended)
        clients = self._counter.answers(*api, since=rollout.began, until=rollout.ended) if api else None
        receipt = receipt_of(rollout, series, clients, now)
        sides = {name: {key: receipt[name][key] for key in SUMS} for name in ("candidate", "live") if receipt[name]}
        entry |= {"candidate": sides["candidate"], "live": sides.get("live")}
        entry |= {"receipt": receipt, "counted_at": timestamp(now)}

    def _read(self, release: int) -> tuple[list[dict[str, Any]], str]:
        found = self._documents.get_json(f"{self._prefix}{release}.rollouts.json")
        return (list(found[0]["rollouts"]), found[1]) if found is not None else ([], "")

    def _write(self, release: int, rollouts: list[dict[str, Any]], etag: str) -> None:
        key = f"{self._prefix}{release}.rollouts.json"
        self._documents.put_json(key, {"rollouts": rollouts}, new=not etag, over=etag)


def _to_json(rollout: Rollout) -> dict[str, Any]:
    """All but its beginning and end, which the entry has."""
    made = asdict(rollout)
    del made["began"], made["ended"]
    return {**made, "weights": [[timestamp(at), percent] for at, percent in rollout.weights]}


def _from_json(entry: Mapping[str, Any]) -> Rollout:
    given = entry["counting"]
    return Rollout(
        began=datetime.fromisoformat(entry["started_at"]),
        ended=datetime.fromisoformat(entry["ended_at"]),
        names=given["names"],
        candidate=given["candidate"],
        live=given["live"],
        weights=[(datetime.fromisoformat(at), percent) for at, percent in given["weights"]],
        alarms=AlarmSettings(**{**given["alarms"], "also": tuple(given["alarms"]["also"])}),
        hooks=given["hooks"],
        facts=given["facts"],
        unwrapped=given["unwrapped"],
    )
