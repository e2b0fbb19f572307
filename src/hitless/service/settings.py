"""`custom.hitless`: workers and stages, read strictly, for a misspelt setting here would ship something untested."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from hitless.service.listen import DEFAULT_HOST, FIRST_PORT, format_listen, parse_listen
from hitless.service.model import (
    DEFAULT_WORKERS,
    AlarmSettings,
    Approval,
    Home,
    Nat,
    SmokeRequest,
    StageSettings,
)
from hitless.service.notices import Notices
from hitless.service.routes import METHODS
from hitless.service.strategy import EXAMPLES, AllAtOnce, Strategy, parse
from hitless.service.value import Value, did_you_mean

_Word = TypeVar("_Word", bound=StrEnum)

MAX_WORKERS = 1000

KEYS = ("workers", "stages")
WORKERS_KEYS = ("min", "max")
STAGE_KEYS = (
    "branch", "home", "listen", "strategy", "approval", "rehearsal", "shield", "nat", "domain", "smoke", "alarms",
    "release_header", "ready_timeout_s",
)  # fmt: skip
SMOKE_KEYS = ("method", "path", "headers", "body", "status")
ALARM_KEYS = ("error_rate_percent", "minimum_requests")

_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"/[!-~]*")
_DOMAIN = re.compile(r"(?=.{1,253}$)(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))+")
_BRANCH = re.compile(r"(?!-)(?!.*(?:\.\.|//|@\{|\.lock$|/$|\.$))[^\x00-\x20~^:?*\[\\\x7f]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `custom.hitless` says; without it, its defaults."""

    workers: int
    stages: tuple[StageSettings, ...]


def read_settings(root: Value, stage: str, notices: Notices) -> Settings:
    """The settings, if `stage` is one of the stages; ServiceFileError otherwise. Notices are of that stage alone."""
    hitless = _section(root)
    if hitless is None:
        check_stage(root, ("dev",), stage)
        return Settings(DEFAULT_WORKERS, (StageSettings("dev", "dev"),))
    _only(hitless, KEYS)
    stages_at = hitless.get("stages")
    named = stages_at.mapping() if stages_at is not None else {}
    check_stage(stages_at or hitless, tuple(named) or ("dev",), stage)
    stages = tuple(_stage(name, entry, index) for index, (name, entry) in enumerate(named.items()))
    stages = stages or (StageSettings("dev", "dev"),)
    _check_listeners(stages, named)
    if (entry := named.get(stage)) is not None:
        _notice_what_waits(entry, notices)
    return Settings(_workers(hitless.get("workers"), notices), stages)


def check_stage(at: Value, names: Iterable[str], stage: str) -> None:
    """ServiceFileError that lists the stages, if `stage` is none of them."""
    known = list(names)
    if stage not in known:
        hint = did_you_mean(stage, known) or f"use --stage with one of them, or add {stage} to custom.hitless.stages"
        raise at.fault(f"there is no stage {stage}; stages are {', '.join(known)}", hint)


def check_stage_early(root: Value, stage: str) -> None:
    """`check_stage` before variables are resolved, else a stage that is not there shows as one without parameters."""
    at = root
    for key in ("custom", "hitless", "stages"):
        if not isinstance(at.data, Mapping) or (child := at.get(key)) is None:
            return
        at = child
    if isinstance(at.data, Mapping):
        check_stage(at, tuple(at.data) or ("dev",), stage)


def _section(root: Value) -> Value | None:
    custom = root.get("custom")
    if custom is None:
        return None
    for name, entry in custom.mapping().items():
        if name.lower().replace("-", "") != "hitless" and did_you_mean(name, ["hitless"]):
            raise entry.fault("is not read by anything", "did you mean custom.hitless?")
    return custom.get("hitless")


def _only(value: Value, known: tuple[str, ...]) -> None:
    for name, entry in value.mapping().items():
        if name not in known:
            hint = did_you_mean(name, known) or f"known here: {', '.join(known)}"
            raise entry.fault("is not a setting", hint)


def _workers(value: Value | None, notices: Notices) -> int:
    if value is None:
        return DEFAULT_WORKERS
    if not isinstance(value.data, Mapping):
        return value.integer(1, MAX_WORKERS)
    _only(value, WORKERS_KEYS)
    low, high = value.get("min"), value.get("max")
    if low is None:
        raise value.fault("has no min", "write workers: {min: 2, max: 8}")
    least = low.integer(1, MAX_WORKERS)
    if high is not None:
        high.integer(least, MAX_WORKERS)
        notices.add("workers", value, "the number of workers does not follow the load yet: min is what runs")
    return least


def _stage(name: str, entry: Value, index: int) -> StageSettings:
    if not _STAGE_NAME.fullmatch(name):
        raise entry.fault("a stage's name is letters, digits and -, at most 32 of them")
    _only(entry, STAGE_KEYS)
    default = StageSettings(name, name, nat=Nat.PER_AZ if name == "prod" else Nat.SINGLE)
    ready = entry.get("ready_timeout_s")
    host, port = _listen(entry.get("listen"), FIRST_PORT + index)
    return StageSettings(
        name=name,
        branch=_matched(entry.get("branch"), _BRANCH, "the name of a git branch") or name,
        home=_choice(entry.get("home"), Home, default.home),
        host=host,
        port=port,
        strategy=_strategy(entry.get("strategy")),
        approval=_choice(entry.get("approval"), Approval, default.approval),
        rehearsal=_flag(entry.get("rehearsal"), default.rehearsal),
        shield=_flag(entry.get("shield"), default.shield),
        nat=_choice(entry.get("nat"), Nat, default.nat),
        domain=_matched(entry.get("domain"), _DOMAIN, "a domain name in lower case"),
        smoke=_smoke(entry.get("smoke")),
        alarms=_alarms(entry.get("alarms")),
        release_header=_flag(entry.get("release_header"), default.release_header),
        ready_timeout_s=ready.integer(1, 900) if ready is not None else default.ready_timeout_s,
    )


def _flag(value: Value | None, default: bool) -> bool:
    return default if value is None else value.flag()


def _choice(value: Value | None, words: type[_Word], default: _Word) -> _Word:
    return default if value is None else words(value.choice(list(words)))


def _matched(value: Value | None, pattern: re.Pattern[str], wanted: str) -> str | None:
    if value is None:
        return None
    text = value.text()
    if not pattern.fullmatch(text):
        raise value.fault(f"{value.shown()} is not {wanted}")
    return text


def _listen(value: Value | None, port: int) -> tuple[str, int]:
    if value is None:
        return DEFAULT_HOST, port
    try:
        return parse_listen(value.text())
    except ValueError as error:
        message = str(error) if value.origin is None else "the value is not HOST:PORT"
        raise value.fault(message, "write HOST:PORT, such as 127.0.0.1:8080, [::1]:8080 or :8080") from error


def _strategy(value: Value | None) -> Strategy:
    if value is None:
        return AllAtOnce()
    try:
        return parse(value.text())
    except ValueError as error:
        message = str(error) if value.origin is None else "the value is not a strategy"
        raise value.fault(message, f"write one such as {EXAMPLES}") from error


def _alarms(value: Value | None) -> AlarmSettings:
    if value is None:
        return AlarmSettings()
    _only(value, ALARM_KEYS)
    default = AlarmSettings()
    rate, requests = value.get("error_rate_percent"), value.get("minimum_requests")
    return AlarmSettings(
        error_rate_percent=rate.number(0, 100) if rate is not None else default.error_rate_percent,
        minimum_requests=requests.integer(1, 1_000_000) if requests is not None else default.minimum_requests,
    )


def _smoke(value: Value | None) -> tuple[SmokeRequest, ...]:
    return tuple(_smoke_request(item) for item in value.items()) if value is not None else ()


def _smoke_request(item: Value) -> SmokeRequest:
    if isinstance(item.data, str):
        method, _, path = item.data.strip().partition(" ")
        return SmokeRequest(_method(item, method), _target(item, path.strip()))
    _only(item, SMOKE_KEYS)
    path_at = item.get("path")
    if path_at is None:
        raise item.fault("has no path", "write GET /path, or a map with method and path")
    method_at, status = item.get("method"), item.get("status")
    body, headers = _body(item.get("body"), _headers(item.get("headers")))
    return SmokeRequest(
        method=_method(method_at, method_at.text()) if method_at is not None else "GET",
        path=_target(path_at, path_at.text()),
        headers=headers,
        body=body,
        status=status.integer(100, 599) if status is not None else 200,
    )


def _method(at: Value, method: str) -> str:
    if method.upper() not in METHODS:
        raise at.fault(f"{at.shown()} has an unknown method; known are {', '.join(METHODS)}", "write GET /path")
    return method.upper()


def _target(at: Value, path: str) -> str:
    if not _TARGET.fullmatch(path):
        raise at.fault("has no path that begins with a slash and has no blanks", "write GET /path?query=value")
    return path


def _headers(value: Value | None) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for name, entry in value.mapping().items() if value is not None else ():
        text = entry.text()
        if not _HEADER_NAME.fullmatch(name) or not text.isprintable():
            raise entry.fault("is not a header: a name of letters, digits and -, and a value in one line")
        pairs.append((name, text))
    return tuple(pairs)


def _body(value: Value | None, headers: tuple[tuple[str, str], ...]) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """The body as sent; maps and lists as JSON, which the headers then say unless they name a type."""
    if value is None or not isinstance(value.data, Mapping | tuple):
        return (None if value is None else value.text()), headers
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers = (*headers, ("content-type", "application/json"))
    return json.dumps(value.plain(), ensure_ascii=False, separators=(",", ":")), headers


def _check_listeners(stages: tuple[StageSettings, ...], named: Mapping[str, Value]) -> None:
    taken: dict[tuple[str, int], str] = {}
    for stage in stages:
        other = taken.setdefault((stage.host, stage.port), stage.name)
        if other != stage.name and stage.port:
            address = format_listen(stage.host, stage.port)
            raise named[stage.name].fault(f"listens on {address}, as {other} does", "give each stage its own listen")


def _notice_what_waits(entry: Value, notices: Notices) -> None:
    """Settings that do less here than they say are accepted, and said so."""
    for key, idle, effect in (
        ("home", Home.ENGINE, "`hitless aws …` serves this home; the other verbs work on this machine's engine"),
        ("approval", Approval.NONE, "asked by the pipeline on AWS; a deploy by hand is approved by who types it"),
        ("rehearsal", False, "is not acted on by this version"),
    ):
        value = entry.get(key)
        if value is not None and value.data != idle:
            notices.add(f"setting {key}", value, effect)
