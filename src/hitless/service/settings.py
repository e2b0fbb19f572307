"""Reads `custom.hitless` strictly, because a misspelt setting could ship something untested."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count

import msgspec

from hitless.service.authorizers import read_jwks
from hitless.service.event_sources import Route
from hitless.service.listen import DEFAULT_HOST, FIRST_PORT, format_listen, parse_listen
from hitless.service.model import (
    DEFAULT_PREVIEW_PORT,
    DEFAULT_TARGET_PERCENT,
    DEFAULT_WORKERS,
    LETS_ENCRYPT,
    AccessLog,
    AcmeSettings,
    Approval,
    BuildSettings,
    Home,
    Nat,
    Network,
    PreviewSettings,
    StageSettings,
    Throttle,
    TlsSettings,
)
from hitless.service.reader import (
    FLAG,
    TEXT,
    Reader,
    Readers,
    Schema,
    any_map,
    list_of,
    map_of,
    matching,
    number,
    parsed,
    reads,
    struct,
    whole,
    word,
)
from hitless.service.rollouts import (
    read_alarms,
    read_hooks,
    read_notify,
    read_rehearsal,
    read_routes,
    read_smoke,
    read_steps,
    read_sticky,
    with_steps,
)
from hitless.service.strategy import EXAMPLES, PATTERN, parse
from hitless.service.value import Value, check_known, did_you_mean

MAX_WORKERS = 1000

MAX_PREVIEWS = 50
MAX_PREVIEW_DOMAIN = 180
MAX_PREVIEW_HOURS = 24 * 365

LONGEST_BUILD_MINUTES = 2160
"""CodeBuild's limit."""
WORKERS: Readers = {"min": whole(0, MAX_WORKERS), "max": whole(1, MAX_WORKERS), "target_percent": whole(10, 100)}
PROVISIONED: Readers = {"max": whole(1, 100_000), "target_percent": whole(10, 90)}

_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}")
_DOMAIN = re.compile(r"(?=.{1,253}$)(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))+")
_BRANCH = re.compile(r"(?!-)(?!.*(?:\.\.|//|@\{|\.lock$|/$|\.$))[^\x00-\x20~^:?*\[\\\x7f]+")


class Workers(msgspec.Struct, frozen=True):
    """How many processes a function has: `least`, and up to `most` under load; a fixed number if that is None."""

    least: int = DEFAULT_WORKERS
    most: int | None = None
    target_percent: int = DEFAULT_TARGET_PERCENT


@dataclass(frozen=True, slots=True)
class Provisioned:
    """How far AWS scales a function's provisioned concurrency. `at` is its place in the file."""

    most: int
    target_percent: int
    at: Value = field(compare=False)


class ServiceSettings(msgspec.Struct, frozen=True):
    """The settings in `custom.hitless`, or the defaults."""

    workers: Workers
    stages: tuple[StageSettings, ...]
    memory_mb: int | None = None
    total_workers: int | None = None
    cpu_weight: int | None = None
    previews: PreviewSettings | None = None
    provisioned: Mapping[str, Provisioned] = msgspec.field(default_factory=dict)
    """The settings by function."""
    builds: BuildSettings = msgspec.field(default_factory=BuildSettings)
    import_per_worker: bool = False
    jwks: Mapping[str, str] = msgspec.field(default_factory=dict)
    exact_runtime: bool = False


def read_settings(root: Value, stage: str) -> ServiceSettings:
    """Read the settings. A `stage` that is not listed gets the defaults. ServiceFileError for a mistake."""
    hitless = root.get("custom", "hitless")
    if hitless is None:
        return ServiceSettings(Workers(), (_unlisted_stage(stage, (), (), root),))
    check_known(hitless, tuple(SETTINGS))
    stages_at = hitless.get("stages")
    named = stages_at.mapping() if stages_at is not None else {}
    check_stage(stages_at or hitless, named, stage)
    idempotent = hitless.optional("idempotent", read_routes, ())
    stages = tuple(_stage(name, entry, index, idempotent) for index, (name, entry) in enumerate(named.items()))
    _check_listeners(stages, named)
    if stage not in named:
        stages += (_unlisted_stage(stage, stages, idempotent, stages_at or hitless),)
    return ServiceSettings(
        hitless.optional("workers", _workers, Workers()),
        stages,
        hitless.optional("memory_mb", _MEMORY, None),
        hitless.optional("total_workers", _TOTAL, None),
        hitless.optional("cpu_weight", _WEIGHT, None),
        hitless.optional("previews", lambda value: _previews(value, stages), None),
        hitless.optional("provisioned", _provisioned, {}),
        hitless.optional("builds", _builds, BuildSettings()),
        hitless.optional("import", _import, "shared") == "per-worker",
        hitless.optional("jwks", read_jwks, {}),
        hitless.optional("exact_runtime", FLAG, False),
    )


def check_stage(at: Value, names: Iterable[str], stage: str) -> None:
    """ServiceFileError that lists the stages, if `stage` is none of them and looks like a misspelt one."""
    known = list(names)
    if stage not in known and (hint := did_you_mean(stage, known, likeness=0.75)):
        raise at.fault(f"there is no stage {stage}; stages are {', '.join(known)}", hint)


@reads({"anyOf": [whole(1, MAX_WORKERS).schema, map_of(WORKERS, "min")]})
def _workers(value: Value) -> Workers:
    if not isinstance(value.data, Mapping):
        return Workers(value.integer(1, MAX_WORKERS))
    check_known(value, tuple(WORKERS))
    low, high = value.get("min"), value.get("max")
    if low is None:
        raise value.fault("has no min", "write workers: {min: 2, max: 8}")
    least = low.integer(0 if high is not None else 1, MAX_WORKERS)
    most = high.integer(max(least, 1), MAX_WORKERS) if high is not None else None
    return Workers(least, most, value.optional("target_percent", WORKERS["target_percent"], DEFAULT_TARGET_PERCENT))


@reads(any_map(map_of(PROVISIONED, "max")))
def _provisioned(value: Value) -> dict[str, Provisioned]:
    found: dict[str, Provisioned] = {}
    for name, entry in value.mapping().items():
        read = entry.fields(PROVISIONED)
        if "max" not in read:
            raise entry.fault("has no max", f"write provisioned: {{{name}: {{max: 20}}}}")
        found[name] = Provisioned(read["max"], read.get("target_percent", DEFAULT_TARGET_PERCENT), entry)
    return found


def _stage(name: str, entry: Value, index: int, idempotent: tuple[Route, ...]) -> StageSettings:
    if not _STAGE_NAME.fullmatch(name):
        raise entry.fault("a stage's name is letters, digits and -, at most 32 of them")
    read = with_steps(entry, entry.fields(STAGE))
    if "nat" in read and not read.get("network", Network()).own:
        raise entry.fault("nat applies to the stage's own network only, and network names another one", "remove nat")
    if "basePath" in read:
        if "domain" not in read:
            raise entry.fault("basePath needs the stage's domain", "add domain: api.example.org")
        read["base_path"] = f"/{read.pop('basePath')}"
    if (tls := read.get("tls")) and tls.acme and "domain" not in read:
        raise entry.fault("tls.acme needs the stage's domain", "add domain: api.example.org")
    host, port = read.pop("listen", (DEFAULT_HOST, FIRST_PORT + index))
    defaults = {"branch": name, "nat": _default_nat(name)}
    return StageSettings(name=name, host=host, port=port, idempotent=idempotent, **(defaults | read))


def _unlisted_stage(
    name: str, listed: tuple[StageSettings, ...], idempotent: tuple[Route, ...], at: Value
) -> StageSettings:
    """A stage with the defaults, at the first port that no listed stage has."""
    if not _STAGE_NAME.fullmatch(name):
        raise at.fault(f"{name!r} is not a stage's name: letters, digits and -, at most 32 of them")
    taken = {stage.port for stage in listed}
    port = next(port for port in count(FIRST_PORT + len(listed)) if port not in taken)
    return StageSettings(name, name, port=port, nat=_default_nat(name), idempotent=idempotent)


def _default_nat(stage: str) -> Nat:
    return Nat.PER_AZ if stage == "prod" else Nat.SINGLE


def _previews(value: Value, stages: tuple[StageSettings, ...]) -> PreviewSettings:
    """Previews run code of any branch, so they cannot use the configuration of prod or of a stage with approval."""
    read = value.fields(PREVIEWS)
    fit = [s.name for s in stages if s.home is Home.ENGINE and s.name != "prod" and s.approval is Approval.NONE]
    named = value.get("from_stage")
    if named is None and not fit:
        raise value.fault("no stage can be the base of previews", "add one that is not prod")
    if named is not None and named.text() not in fit:
        message = f"{named.shown()} is not a stage whose configuration any branch's code may have"
        raise named.fault(message, f"name one of: {', '.join(fit)}" if fit else "add a stage that is not prod")
    host, port = read.pop("listen", (DEFAULT_HOST, DEFAULT_PREVIEW_PORT))
    for stage in stages:
        if (stage.host, stage.port) == (host, port) and port:
            raise value.fault(f"previews listen on {format_listen(host, port)}, as {stage.name} does", "change one")
    if len(read.get("domain", "")) > MAX_PREVIEW_DOMAIN:
        raise value.fault(f"the domain has more than {MAX_PREVIEW_DOMAIN} characters", "shorten it")
    if "max" in read:
        read["most"] = read.pop("max")
    return PreviewSettings(host=host, port=port, **({"from_stage": fit[0]} | read))


def _matching(pattern: re.Pattern[str], wanted: str) -> Reader[str]:
    def read(value: Value) -> str:
        text = value.text()
        if not pattern.fullmatch(text):
            raise value.fault(f"{value.shown()} is not {wanted}")
        return text

    return Reader(read, matching(pattern.pattern))


def _check_listeners(stages: tuple[StageSettings, ...], named: Mapping[str, Value]) -> None:
    taken: dict[tuple[str, int], str] = {}
    for stage in stages:
        redirect = stage.tls.redirect if stage.tls else None
        if redirect and not (stage.port and redirect[1] and redirect != (stage.host, stage.port)):
            raise named[stage.name].fault("redirect and listen need different, fixed ports", "write redirect: ':80'")
        for host, port in filter(None, ((stage.host, stage.port), redirect)):
            if (other := taken.setdefault((host, port), stage.name)) != stage.name and port:
                sentence = f"listens on {format_listen(host, port)}, as {other} does"
                raise named[stage.name].fault(sentence, "give each stage its own listen")


_LISTEN = parsed(parse_listen, "HOST:PORT", "write HOST:PORT, such as 127.0.0.1:8080, [::1]:8080 or :8080", ".*:[0-9]+")
_subnet = _matching(re.compile(r"subnet-[0-9a-f]{8,17}"), "a subnet's id")
NETWORK: Readers = {
    "stack": _matching(re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}"), "a stack's name"),
    "vpc": _matching(re.compile(r"vpc-[0-9a-f]{8,17}"), "a VPC's id"),
    "subnets": Reader(lambda value: tuple(dict.fromkeys(map(_subnet, value.items()))), list_of(_subnet.schema)),
}


@reads({"anyOf": [{"enum": ["own", "none"]}, map_of(NETWORK)]})
def _network(value: Value) -> Network:
    if not isinstance(value.data, Mapping):
        return Network(value.choice(("own", "none")))
    read = value.fields(NETWORK)
    if set(read) not in ({"stack"}, {"vpc", "subnets"}) or read.get("subnets") == ():
        raise value.fault("names no network", "write {stack: SERVICE-core-STAGE} or {vpc: vpc-…, subnets: [subnet-…]}")
    return Network(next(iter(read)), **read)


_MEMORY = whole(64, 1 << 24)
_TOTAL = whole(1, 100_000)
_WEIGHT = whole(1, 10_000)
_BASE_PATH = _matching(re.compile(r"[A-Za-z0-9$_.+!*'()-]{1,128}"), "a base path: letters, digits and $-_.+!*'()")
_FILE = _matching(re.compile(r"/.+"), "the absolute path of a file; keys do not belong in a repository")
_DOMAIN_NAME = _matching(_DOMAIN, "a domain name in lower case")

ACME: Readers = {
    "email": _matching(re.compile(r"[^@\s,?]+@[^@\s,?]+"), "one e-mail address"),
    "directory": _matching(re.compile(r"https://[^\s/]+/\S*"), "the https:// URL of an ACME directory"),
    "staging": FLAG,
}


TLS: Readers = {
    "acme": struct(AcmeSettings, ACME),
    "certificate": _FILE,
    "key": _FILE,
    "redirect": _LISTEN,
    "challenges": _LISTEN,
    "hsts_s": whole(0, 1 << 31),
}


_BY_FILES = ("certificate", "key", "challenges")


@reads(
    map_of(TLS)
    | {
        "oneOf": [
            {"required": ["certificate", "key"], "not": {"required": ["acme"]}},
            {"required": ["acme"], "not": {"anyOf": [{"required": [key]} for key in _BY_FILES]}},
        ]
    }
)
def _tls(value: Value) -> TlsSettings:
    read = value.fields(TLS)
    if acme := read.get("acme"):
        if read.keys() & set(_BY_FILES) or (acme.staging and acme.directory != LETS_ENCRYPT):
            hint = "remove certificate, key and challenges, and either staging or directory"
            raise value.fault("has settings that exclude each other", hint)
        return TlsSettings(**read)
    if not {"certificate", "key"} <= read.keys() or ("challenges" in read and "redirect" not in read):
        raise value.fault("needs certificate and key, and redirect for challenges", "docs/serverless-yml.md has both")
    return TlsSettings(**read)


@reads({"enum": [*AccessLog, False]})
def _access_log(value: Value) -> AccessLog:
    # YAML reads a bare `off` as false
    return AccessLog.OFF if value.data is False else word(AccessLog)(value)


STAGE: Readers = {
    "branch": _matching(_BRANCH, "the name of a git branch"),
    "home": word(Home),
    "listen": _LISTEN,
    "strategy": parsed(parse, "a strategy", f"write one such as {EXAMPLES}", PATTERN),
    "approval": word(Approval),
    "rehearsal": read_rehearsal,
    "steps": read_steps,
    "required_checks": FLAG,
    "shield": FLAG,
    "nat": word(Nat),
    "network": _network,
    "throttle": struct(Throttle, {"rate_per_s": number(0, 1_000_000), "burst": whole(0, 1_000_000)}),
    "domain": _DOMAIN_NAME,
    "basePath": _BASE_PATH,
    "tls": _tls,
    "smoke": read_smoke,
    "alarms": read_alarms,
    "hooks": read_hooks,
    "sticky": read_sticky,
    "notify": read_notify,
    "access_log": _access_log,
    "access_log_query": FLAG,
    "trace_requests": FLAG,
    "release_header": FLAG,
    "ready_timeout_s": whole(1, 900),
}
PREVIEWS: Readers = {
    "listen": _LISTEN,
    "domain": _DOMAIN_NAME,
    "max": whole(1, MAX_PREVIEWS),
    "from_stage": TEXT,
    "expires_h": whole(1, MAX_PREVIEW_HOURS),
    "workers": whole(1, MAX_WORKERS),
    "automatic": FLAG,
}
_builds = struct(
    BuildSettings,
    {
        "timeout_in_minutes": whole(1, LONGEST_BUILD_MINUTES),
        "memory_mb": _MEMORY,
        "output_mb": whole(1, 1024),
    },
)
_import = Reader(lambda value: value.choice(("shared", "per-worker")), {"enum": ["shared", "per-worker"]})
SETTINGS: Mapping[str, Schema] = {
    "workers": _workers.schema,
    "import": _import.schema,
    "exact_runtime": FLAG.schema,
    "provisioned": _provisioned.schema,
    "memory_mb": _MEMORY.schema,
    "total_workers": _TOTAL.schema,
    "cpu_weight": _WEIGHT.schema,
    "idempotent": read_routes.schema,
    "open": read_routes.schema,
    "jwks": any_map({"type": "object"}),
    "stages": any_map(map_of(STAGE)) | {"propertyNames": {"pattern": f"^{_STAGE_NAME.pattern}$"}},
    "previews": map_of(PREVIEWS),
    "builds": _builds.schema,
}
"""Key of `custom.hitless` → its schema."""
