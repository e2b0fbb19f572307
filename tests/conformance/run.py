"""Runs the table: each different request once, each engine once, and says of each case what became of it."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import msgspec

from tests.conformance import engine
from tests.conformance.client import Target, send
from tests.conformance.matching import Observed, Places, differences
from tests.conformance.table import Case, Deviation, Kind

_INVOCATIONS_AT_ONCE = 2
_SERVICES_AT_ONCE = 2


class Result(StrEnum):
    """What became of a case."""

    PASSED = "passed"
    DEVIATES = "deviation"
    FAILED = "failed"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A case's result; `differences` say what is not as expected."""

    case: Case
    result: Result
    differences: tuple[str, ...] = ()

    @property
    def deviation(self) -> Deviation | None:
        return self.case.deviation if self.result is Result.DEVIATES else None


def judge(case: Case, observed: Observed, places: Places) -> Verdict:
    """A listed deviation that does not deviate is a failure: the list must stay true."""
    found = tuple(differences(case.expect, observed, places))
    if case.deviation is None:
        return Verdict(case, Result.FAILED if found else Result.PASSED, found)
    if found:
        return Verdict(case, Result.DEVIATES, found)
    return Verdict(case, Result.FAILED, (f"listed as a deviation ({case.deviation.reason}), but it passes",))


def run_on_engine(cases: Iterable[Case], into: Path) -> list[Verdict]:
    """All cases on engines of their own in that folder. Those of features that do not exist are not run."""
    verdicts: dict[str, Verdict] = {}
    services: dict[str, list[Case]] = {}
    invoked: list[Case] = []
    ordered = list(cases)
    for case in ordered:
        if case.deviation and case.deviation.kind is Kind.NOT_IMPLEMENTED:
            verdicts[case.id] = Verdict(case, Result.DEVIATES)
        elif case.invoked:
            invoked.append(case)
        else:
            services.setdefault(case.service, []).append(case)
    with (
        concurrent.futures.ThreadPoolExecutor(_INVOCATIONS_AT_ONCE) as pool,
        concurrent.futures.ThreadPoolExecutor(_SERVICES_AT_ONCE) as services_at_once,
    ):
        distinct = {_key(case): case for case in invoked}
        invocations = {key: pool.submit(_invoke, case, into) for key, case in distinct.items()}
        runs = [services_at_once.submit(_run_service, name, its, into) for name, its in _slow_first(services)]
        for run in runs:
            verdicts |= {verdict.case.id: verdict for verdict in run.result()}
        for case in invoked:
            verdicts[case.id] = judge(case, invocations[_key(case)].result(), Places())
    return [verdicts[case.id] for case in ordered]


def _slow_first(services: Mapping[str, list[Case]]) -> list[tuple[str, list[Case]]]:
    """Those that wait half a minute for a time-out wait together."""
    return sorted(services.items(), key=lambda service: not any(case.slow for case in service[1]))


def _run_service(name: str, cases: Sequence[Case], into: Path) -> list[Verdict]:
    with engine.running(name, into) as up:
        observed = _send_all(up.target, cases)
        logs = up.logs() if any(map(_reads_log, cases)) else {}
        return [judge(case, _with_log(observed[_key(case)], logs), up.target.places) for case in cases]


def run_on_target(cases: Iterable[Case], service: str, url: str) -> list[Verdict]:
    """The service's cases against a URL. What needs the log, an invocation or another service is left out.

    Deviations are those of hitless's engine, so that a case which is listed as one may pass here.
    """
    target = Target.of(url)
    ordered = list(cases)
    mine = [case for case in ordered if case.service == service and not case.invoked and not _reads_log(case)]
    observed = _send_all(target, mine)
    verdicts = {}
    for case in mine:
        verdict = judge(msgspec.structs.replace(case, deviation=None), observed[_key(case)], target.places)
        if verdict.result is Result.FAILED and case.deviation:
            verdict = Verdict(case, Result.DEVIATES, verdict.differences)
        verdicts[case.id] = replace(verdict, case=case)
    return [verdicts.get(case.id) or Verdict(case, Result.LEFT_OUT) for case in ordered]


def _reads_log(case: Case) -> bool:
    return bool(case.expect.log or case.expect.no_log)


def _send_all(target: Target, cases: Sequence[Case]) -> dict[bytes, Observed]:
    """Each different request once; the slow ones meanwhile."""
    distinct = {_key(case): case for case in cases}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = {key: pool.submit(_send, target, case) for key, case in distinct.items() if case.slow}
        found = {key: _send(target, case) for key, case in distinct.items() if not case.slow}
        return found | {key: future.result() for key, future in waiting.items()}


def _send(target: Target, case: Case) -> Observed:
    assert case.request is not None
    return send(target, case.request)


def _key(case: Case) -> bytes:
    """The same for cases that send the same request, or invoke the same function with the same event."""
    event = "unset" if case.event is msgspec.UNSET else case.event
    return msgspec.json.encode([case.service, case.function, case.request, event])


def _with_log(observed: Observed, logs: dict[str, tuple[str, ...]]) -> Observed:
    request_id = (observed.values("x-amzn-requestid") or [""])[0]
    return replace(observed, log=logs.get(request_id, ()))


def _invoke(case: Case, into: Path) -> Observed:
    return engine.invoke(case.service, case.function, case.event, into / "invocations" / case.id)
