"""OTLP's spans as JSON, and where they go, by OpenTelemetry's environment variables. Pure.

In OTLP's JSON, ids are hexadecimal, 64-bit integers are strings and enumerations are numbers:
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. The variables are those of
https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and …/otel/configuration/sdk-environment-variables/.
"""

from __future__ import annotations

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
_PORT = r"(?!6553[6-9]|655[4-9]\d|65[6-9]\d\d|6[6-9]\d{3}|[7-9]\d{4})[1-9]\d{0,4}"
_URL = rf"(?a)https?://([\w.-]+|\[[\da-fA-F:.]+\])(:{_PORT})?(/[!-\"$->@-~]*)?"
_NAME = r"\s*(?!(?i:host|connection|content-\w+|transfer-encoding)\b)[!#$&'*+.^`|~0-9A-Za-z_-]+\s*"
_HEADER = _NAME + r"=(?:[ -$&-+\--~]|%(?!7[fF])[2-7][\da-fA-F])*"
_PAIR = r"[^,=]+=[^,]*"
_READ = {
    f"{_EXPORTER}ENDPOINT": (_URL, "an http:// or https:// URL without credentials: http://127.0.0.1:4318"),
    f"{_EXPORTER}HEADERS": (f"{_HEADER}(?:,{_HEADER})*", "headers that may be sent: name1=value1,name2=value2"),
    f"{_EXPORTER}PROTOCOL": ("http/json", "http/json"),
    "OTEL_RESOURCE_ATTRIBUTES": (f"{_PAIR}(?:,{_PAIR})*", "key1=value1,key2=value2"),
}
"""Variable → the values that are accepted, and how to write them."""
_OTHER_SIGNALS = tuple(f"{_EXPORTER}{signal}_" for signal in ("METRICS", "LOGS", "PROFILES"))


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Where traces go. `attributes` are those of each resource."""

    url: SplitResult
    headers: Mapping[str, str] = field(repr=False)
    attributes: Mapping[str, str]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self | None:
        """None if no endpoint is set. Raises MachineError; as a value may be secret, it names the variable alone."""
        given = {name: value for name, value in environ.items() if value}
        endpoints = {f"{_EXPORTER}ENDPOINT", f"{_EXPORTER}TRACES_ENDPOINT"}
        if endpoints.isdisjoint(given) or given.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        for name, value in given.items():
            if name in _READ and not re.fullmatch(_READ[name][0], value):
                raise MachineError(f"{name} has a value that is not supported", hint=f"write {_READ[name][1]}")
            if name.startswith(_EXPORTER) and name not in _READ and not name.startswith(_OTHER_SIGNALS):
                raise MachineError(f"{name} is not supported", hint="remove it from the environment of the engine")
        named = {"service.name": given["OTEL_SERVICE_NAME"]} if "OTEL_SERVICE_NAME" in given else {}
        return cls(
            urlsplit(given[f"{_EXPORTER}ENDPOINT"].rstrip("/") + "/v1/traces"),
            _pairs(given.get(f"{_EXPORTER}HEADERS", "")),
            _pairs(given.get("OTEL_RESOURCE_ATTRIBUTES", "")) | named,
        )


def _pairs(text: str) -> dict[str, str]:
    entries = (entry.partition("=") for entry in text.split(",") if entry)
    return {unquote(key.strip()): unquote(value.strip()) for key, _, value in entries}


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
