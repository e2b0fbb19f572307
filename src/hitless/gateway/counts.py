"""The gateway's own counts, summed over restarts of HAProxy. Pure.

HAProxy counts from its own start. `GatewayTally` keeps the last reading of each earlier process and adds the current
one. Whatever a killed HAProxy counted after its last reading is lost, so read often. A pool's backend is reused by
later releases and its counts continue: take the difference between two readings.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from hitless.documents import decode
from hitless.errors import EngineError
from hitless.gateway.logfiles import LIVE_SERVER
from hitless.gateway.observe import is_pool, parse_info, parse_stats
from hitless.gateway.state import shield_of, trial_of

CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "other")
_COLUMNS = {"requests": "stot", "retries": "wretr", **{name: f"hrsp_{name}" for name in CLASSES}}

HANDED_OVER = "handed_over_"

STAGE_PREFIX = "stage_"
_EVERYTHING = "show info;show table stages;show stat"
_ASKED_APART = 24
"""For more pools than this, one command for everything is shorter."""


Counts = Mapping[str, int]
"""One pool's (or stage's) counts by name: `requests`, responses by class (`2xx` …, the gateway's own 502, 503 and 504
too), and `retries`, requests that were sent a second time. `restarts`: of HAProxy; whatever it counted after its last
reading is lost. Missing ones are 0.

`handed_over_requests`, `handed_over_2xx` …: requests that went to the live release after this pool failed them, and its
responses; they also count for the live release's pool. `tried_5xx`: the pool's 5xx responses that went to its shield
and not to a client; `shield_5xx`: the shield's own 5xx to clients.
"""

Numbers = dict[str, dict[str, int]]
"""Proxy (pool or `stage_…`) → name in _COLUMNS → number."""


@dataclass(frozen=True, slots=True)
class CountSample:
    """One reading of one HAProxy process."""

    pid: int
    numbers: Numbers


class GatewayTally(msgspec.Struct, frozen=True):
    """Sum of earlier HAProxy processes (`gone`), and the last reading of the current one. Kept in `counts.json`."""

    gone: Numbers = {}
    pid: int = 0
    last: Numbers = {}
    restarts: int = 0

    def after(self, sample: CountSample) -> GatewayTally:
        """The tally with one more reading, maybe of some proxies only. A new pid, or numbers that decreased, mean a
        restart in between.
        """
        restarted = sample.pid != self.pid or any(
            numbers["requests"] < self.last.get(proxy, {}).get("requests", 0)
            for proxy, numbers in sample.numbers.items()
        )
        if not restarted:
            return GatewayTally(self.gone, sample.pid, {**self.last, **sample.numbers}, self.restarts)
        again = 1 if self.pid else 0  # the very first reading is not a restart
        return GatewayTally(_added(self.gone, self.last), sample.pid, sample.numbers, self.restarts + again)

    def totals(self) -> dict[str, Counts]:
        """Proxy → counts since the gateway's first start."""
        total = _added(self.gone, self.last)
        return {proxy: {**numbers, "restarts": self.restarts} for proxy, numbers in total.items()}


def read_tally(text: bytes | str) -> GatewayTally:
    """The tally in `counts.json`. An unreadable one is replaced by zeros: that is no reason to refuse a start."""
    try:
        return decode(text, GatewayTally, "counts.json")
    except EngineError:
        return GatewayTally()


def question(pools: Collection[str] | None) -> str:
    """HAProxy's command for the counts of these pools (None: of all, and of the stages). All proxies of 67 pools are
    two hundred times the rows of one pool.
    """
    if pools is None or len(pools) > _ASKED_APART:
        return _EVERYTHING
    asked = (f"{pool} 2 -1;show stat {shield_of(pool)} 6 -1;show stat {trial_of(pool)} 1 -1" for pool in pools)
    return ";show stat ".join(("show info", *asked))


def parse_counts(info_and_stat: str) -> CountSample:
    """The counts in HAProxy's output for `question`. KeyError if it has no pid."""
    info, _, _ = info_and_stat.partition("# pxname")
    numbers: Numbers = {}
    for stage, requests, gpc in re.findall(r"(?m)^0x.*? key=(\S+) .* http_req_cnt=(\d+) .*?(gpc0=.*)$", info):
        by_class = zip(CLASSES, re.findall(r"=(\d+)", gpc), strict=True)
        numbers[STAGE_PREFIX + stage] = {"requests": int(requests), **{name: int(n) for name, n in by_class}}
    for row in parse_stats(info_and_stat):
        name, kind = row["pxname"], row["svname"]
        if kind == "BACKEND" and is_pool(name):
            numbers.setdefault(name, {}).update(_read(row, requests="stot"))
        elif name.startswith((shield_of(""), trial_of(""))):
            numbers.setdefault(name.partition("_")[2], {}).update(_read_shield(row))
        elif kind == "FRONTEND" and name.startswith(STAGE_PREFIX):
            numbers[name] = _read(row, requests="req_tot")
    return CountSample(int(parse_info(info)["Pid"]), numbers)


def _read(row: Mapping[str, str], requests: str) -> dict[str, int]:
    columns = {**_COLUMNS, "requests": requests}
    return {name: int(row.get(column) or 0) for name, column in columns.items()}


def _read_shield(row: Mapping[str, str]) -> dict[str, int]:
    """A row of a shield (its backend's responses go to clients) or of the frontend before the pool."""
    match row["svname"]:
        case "FRONTEND":
            return {"tried_5xx": int(row["hrsp_5xx"] or 0)}
        case "BACKEND":
            return {"shield_5xx": int(row["hrsp_5xx"] or 0)}
        case str(name) if name == LIVE_SERVER:
            columns = {"requests": "stot", **{name: _COLUMNS[name] for name in CLASSES}}
            return {HANDED_OVER + name: int(row[column] or 0) for name, column in columns.items()}
    return {}


def _added(one: Numbers, other: Numbers) -> Numbers:
    result = {proxy: dict(numbers) for proxy, numbers in one.items()}
    for proxy, numbers in other.items():
        mine = result.setdefault(proxy, {})
        for name, value in numbers.items():
            mine[name] = mine.get(name, 0) + value
    return result
