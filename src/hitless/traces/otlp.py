"""OTLP's spans as JSON, and where they go, by OpenTelemetry's environment variables. Pure.

In OTLP's JSON, ids are hexadecimal, 64-bit integers are strings and enumerations are numbers:
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. The variables are those of
https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and …/otel/configuration/sdk-environment-variables/.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

import hitless
from hitless.errors import MachineError

INTERNAL: Final = 1
SERVER: Final = 2
_ERROR: Final = 2

_EXPORTER = "OTEL_EXPORTER_OTLP_"
_ENDPOINT, _HEADERS, _PROTOCOL = (f"{_EXPORTER}{name}" for name in ("ENDPOINT", "HEADERS", "PROTOCOL"))
_NAME, _ATTRIBUTES = "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"
_SAMPLER, _RATIO = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
_SAMPLERS = ("parentbased_always_on", "parentbased_traceidratio")
_OTHER_SIGNALS = tuple(f"{_EXPORTER}{signal}_" for signal in ("METRICS", "LOGS", "PROFILES"))
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name: https://www.rfc-editor.org/rfc/rfc9110#name-tokens"""
_OWN_HEADERS = ("host", "connection", "transfer-encoding")


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """`attributes` are those of each resource. `ratio`: the share of requests without a parent that get a trace."""

    url: SplitResult
    headers: Mapping[str, str] = field(repr=False)
    attributes: Mapping[str, str]
    ratio: float

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self | None:
        """None if no endpoint is set. Raises MachineError; as a value may be secret, it names the variable alone."""
        given = {name: value for name, value in environ.items() if value}
        endpoints = {_ENDPOINT, f"{_EXPORTER}TRACES_ENDPOINT"}
        if endpoints.isdisjoint(given) or given.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        for name in given:
            known = name in (_ENDPOINT, _HEADERS, _PROTOCOL) or name.startswith(_OTHER_SIGNALS)
            if name.startswith(_EXPORTER) and not known:
                raise MachineError(f"{name} is not supported", hint="remove it from the environment of the engine")
        if given.get(_PROTOCOL, "http/json") != "http/json":
            raise _refused(_PROTOCOL, "write http/json")
        if not given.get(_NAME, "").isprintable():
            raise _refused(_NAME, "write the name of a service")
        named = {"service.name": given[_NAME]} if _NAME in given else {}
        attributes = _pairs(_ATTRIBUTES, given.get(_ATTRIBUTES, "")) | named
        if given.get(_SAMPLER, _SAMPLERS[0]) not in _SAMPLERS:
            raise _refused(_SAMPLER, f"write {' or '.join(_SAMPLERS)}")
        ratio = _ratio(given.get(_RATIO, "1"))
        return cls(_url(given[_ENDPOINT]), _headers(given.get(_HEADERS, "")), attributes, ratio)


def _url(endpoint: str) -> SplitResult:
    """The URL for traces below that base. It goes into the request's head, so it has visible ASCII characters alone."""
    try:
        url = urlsplit(endpoint)
        known = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # of a port or an IPv6 address
        known = False
    visible = all("!" <= character <= "~" for character in endpoint)
    if not (known and visible) or "@" in url.netloc or "?" in endpoint or "#" in endpoint:
        raise _refused(_ENDPOINT, "write an http:// or https:// URL without credentials: http://127.0.0.1:4318")
    return url._replace(path=url.path.rstrip("/") + "/v1/traces")


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 0 <= ratio <= 1:
        raise _refused(_RATIO, "write a number from 0 to 1")
    return ratio


def _headers(text: str) -> dict[str, str]:
    headers = _pairs(_HEADERS, text)
    for name, value in headers.items():
        ours = name.lower() in _OWN_HEADERS or name.lower().startswith("content-")
        if ours or not _TOKEN.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise _refused(_HEADERS, "write headers that may be sent: name1=value1,name2=value2")
    return headers


def _pairs(variable: str, text: str) -> dict[str, str]:
    """Names and values that are percent-encoded, so the text itself is ASCII."""
    pairs = {}
    for entry in text.split(",") if text else ():
        name, equals, value = entry.partition("=")
        if not (name.strip() and equals and text.isascii()):
            raise _refused(variable, "write name1=value1,name2=value2")
        pairs[unquote(name.strip())] = unquote(value.strip())
    return pairs


def _refused(variable: str, hint: str) -> MachineError:
    return MachineError(f"{variable} has a value that is not supported", hint=hint)


class KeyValue(msgspec.Struct, frozen=True):
    key: str
    value: Mapping[str, str]


class Span(msgspec.Struct, frozen=True, rename="camel"):
    """Times are nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: int
    start_time_unix_nano: str
    end_time_unix_nano: str
    attributes: tuple[KeyValue, ...]
    status: Mapping[str, int | str]


About = tuple[str, int | None, str]
"""Service, release and stage."""
Recorded = tuple[About, Span]


def span(ids: tuple[str, str, str], name: str, kind: int, times_ns: tuple[int, int], facts: Mapping[str, Any]) -> Span:
    """A span that fails if its facts have an `error.type`; `ids`: of the trace, the span and its parent ("": none)."""
    status = {"code": _ERROR, "message": facts.get("hitless.reason") or ""} if facts.get("error.type") else {}
    # it ends no earlier than it starts, also if the machine's clock was set back
    return Span(*ids, name, kind, str(times_ns[0]), str(max(times_ns)), _attributes(facts), status)


def encode(spans: Iterable[Recorded], given: Mapping[str, str]) -> bytes:
    """OTLP's ExportTraceServiceRequest. The attributes `given` win over a resource's own."""
    groups = dict[About, list[Span]]()
    for about, one in spans:
        groups.setdefault(about, []).append(one)
    found = []
    for (service, release, stage), group in groups.items():
        known = {"service.name": service, "service.version": str(release or ""), "deployment.environment.name": stage}
        scope = {"scope": {"name": "hitless", "version": hitless.__version__}, "spans": group}
        found.append({"resource": {"attributes": _attributes({**known, **given})}, "scopeSpans": [scope]})
    return msgspec.json.encode({"resourceSpans": found})


def _attributes(facts: Mapping[str, Any]) -> tuple[KeyValue, ...]:
    """Numbers and texts; what is None or empty is left out."""
    known = ((key, it) for key, it in facts.items() if it not in (None, ""))
    return tuple(KeyValue(key, {"intValue" if isinstance(it, int) else "stringValue": str(it)}) for key, it in known)
