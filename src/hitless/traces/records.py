"""Makes spans of rollouts and requests from the engine's records, after they have ended.

Attributes follow https://opentelemetry.io/docs/specs/semconv/registry/attributes/deployment/ and, for requests,
https://opentelemetry.io/docs/specs/semconv/http/http-spans/; others begin with `hitless.`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from hitless.engine.engine import Engine
from hitless.gateway.accesslog import AccessLine, lines_since, parse, size_of
from hitless.gateway.logfiles import ACCESS_LOG
from hitless.pipeline.rehearsal.recorded import Routes
from hitless.release.document import ReleaseDocument
from hitless.release.result import Outcome, Step
from hitless.rollout.record import RolloutState
from hitless.store.store import RolloutRow, Store
from hitless.traces.otlp import INTERNAL, SERVER, Recorded, Span, span

_TRACEPARENT = re.compile(
    r"(?!ff|00-.{53})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
"""https://www.w3.org/TR/trace-context/#traceparent-header-field-values; of version 00, nothing follows the flags."""


class Rollouts:
    """The rollouts that have not ended yet, and those to come."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending = {row.rollout for row in store.unfinished_rollouts()}
        self._last = max((row.rollout for row in store.rollouts(limit=1)), default=0)

    def ended(self) -> Iterator[Recorded]:
        """The spans of each rollout that has ended since the last call."""
        new = self._store.read("SELECT rollout FROM rollouts WHERE rollout > ?", (self._last,))
        self._pending |= {number for (number,) in new}
        self._last = max(self._last, *self._pending, 0)
        for number in sorted(self._pending):
            rows = [row for row in self._store.rollouts(before=number + 1, limit=1) if row.rollout == number]
            if not any(row.ended_at is None for row in rows):  # none: its stage was removed
                self._pending.discard(number)
                yield from (one for row in rows for one in self._spans(row))

    def _spans(self, row: RolloutRow) -> Iterator[Recorded]:
        release = self._store.release(row.stage, row.release)
        service, commit = (release.document["service"], release.commit) if release else (row.stage, None)
        row = replace(row, stage=row.stage.rpartition("_")[2])  # a shared engine's stages begin with the service's name
        spans = rollout_spans(row, self._store.steps(row.rollout), service, commit)
        return (((service, row.release, row.stage), one) for one in spans)


class Requests:
    """The requests in the access logs of the stages that trace them (`trace_requests`), from now on."""

    def __init__(self, engine: Engine, logs: Path) -> None:
        self._engine, self._logs, self._positions = engine, logs, dict[str, int]()
        self._described = lru_cache(32)(self._describe)  # of running releases; earlier ones are forgotten

    def logged(self) -> Iterator[Recorded]:
        """The spans of the requests since the last call."""
        for stage in self._engine.stages:
            entry, log = self._engine.pools.gateway_stage(stage), self._logs / stage / ACCESS_LOG
            since, self._positions[stage] = self._positions.get(stage), size_of(log)
            if since is None or entry.access is None or entry.access.traced is None:
                continue
            rotated = lines_since(log.with_name(f"{log.name}.1"), since)[0] if since > size_of(log) else []
            lines, self._positions[stage] = lines_since(log, since)
            known = self._engine.store.release_numbers(stage)
            for line in filter(None, map(parse, rotated + lines)):
                if line.release in known and (ids := request_ids(line, entry.access.traced)):
                    document, routes = self._described(stage, line.release)
                    scheme = "https" if document.settings.tls or entry.hsts_s is not None else "http"
                    about = document.service, line.release, stage.rpartition("_")[2]
                    yield about, request_span(line, ids, scheme, *routes.of(line.method, line.path))

    def _describe(self, stage: str, release: int) -> tuple[ReleaseDocument, Routes]:
        document = self._engine.release(stage, release).document
        return document, Routes(document)


def request_ids(line: AccessLine, traced: int) -> tuple[str, str, str] | None:
    """Ids of trace, span and parent (""); None if the request has no span. An invalid `traceparent` counts as none."""
    digits = line.request.replace("-", "")
    if not (digits and line.traceparent):
        return None
    if (found := _TRACEPARENT.fullmatch(line.traceparent)) is None:
        return (digits, digits[:16], "") if int(digits[20:], 16) >= traced else None
    trace, parent, flags, _ = found.groups()
    return (trace, digits[:16], "" if trace == digits else parent) if int(flags, 16) & 1 else None


def request_span(
    line: AccessLine, ids: tuple[str, str, str], scheme: str, function: str | None, route: str | None
) -> Span:
    """A span of kind SERVER. `route` is `GET /zones/{zone}`."""
    path = (route or "").partition(" ")[2]
    facts = {
        "http.request.method": line.method,
        "http.response.status_code": line.status if line.status > 0 else None,
        "http.route": path,
        "url.path": line.path,
        "url.scheme": scheme,
        "error.type": str(line.status) if line.status >= 500 else "cut_off" if line.cut_off else None,
        "hitless.function": function,
        "hitless.request_id": line.request,
        "hitless.shielded": str(line.shielded).lower(),
    }
    end_ns = _ns(line.at)
    return span(ids, f"{line.method} {path}".strip(), SERVER, (end_ns - line.duration_ms * 1_000_000, end_ns), facts)


def rollout_spans(row: RolloutRow, steps: Sequence[Step], service: str, commit: str | None) -> Iterator[Span]:
    """The root span of an ended rollout, and one for each step; the step before a withdrawal is the one that failed."""
    outcome, end_ns = Outcome(row.outcome or Outcome.ABORTED), _ns(row.ended_at or row.started_at)
    error = {"error.type": outcome.value, "hitless.reason": row.reason} if outcome is Outcome.ROLLED_BACK else {}
    facts = {
        "deployment.id": str(row.rollout),
        "deployment.name": f"{row.verb} {service}",
        "deployment.status": {Outcome.LIVE: "succeeded", Outcome.ROLLED_BACK: "failed"}.get(outcome, outcome.value),
        "vcs.ref.head.revision": commit,
        "hitless.reason": row.reason,
        "hitless.strategy": row.strategy,
        "hitless.previous_release": row.previous_release,
    }
    digest = hashlib.sha256(f"{service} {row.stage} {row.rollout} {row.started_at}".encode()).hexdigest()
    trace, root = digest[:32], digest[32:48]
    times_ns = _ns(row.started_at), end_ns
    yield span((trace, root, ""), f"{row.verb} {row.stage}", INTERNAL, times_ns, {**facts, **error})
    wrong = max((n for n, step in enumerate(steps) if step.state != RolloutState.WITHDRAWING), default=0)
    ends_ns = [*(_ns(step.at) for step in steps[1:]), end_ns]
    for number, (step, until_ns) in enumerate(zip(steps, ends_ns, strict=False)):
        ids = trace, hashlib.sha256(f"{digest} {number}".encode()).hexdigest()[:16], root
        noted = {"hitless.weight_percent": f"{step.weight_percent:g}", "hitless.note": step.note}
        yield span(ids, step.state, INTERNAL, (_ns(step.at), until_ns), {**noted, **(error if number == wrong else {})})


def _ns(at: str) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1000) * 1_000_000
