"""Traces: the settings by environment variables, and spans as OpenTelemetry's own messages read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs
from opentelemetry.proto.trace.v1 import trace_pb2

from hitless.errors import MachineError
from hitless.gateway.accesslog import AccessLine
from hitless.release.result import Step
from hitless.store.store import RolloutRow
from hitless.traces.otlp import Span, TraceSettings, encode
from hitless.traces.records import request_ids, request_span, rollout_spans
from tests.traces import facts_of, spans_of

pytestmark = pytest.mark.unit

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
SECRET = "do-not-print-me"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
"""The example of https://www.w3.org/TR/trace-context/#examples-of-http-traceparent-headers."""
ROLLOUT = RolloutRow(
    rollout=7, stage="prod", release=4, verb="deploy", strategy="Canary10Percent5Minutes", state="ended",
    previous_release=3, outcome="rolled_back", reason="alarm: 12% of 100 requests failed", result=None,
    started_at="2026-11-24T06:00:00.000Z", ended_at="2026-11-24T06:00:09.500Z",
)  # fmt: skip
STEPS = [
    Step("2026-11-24T06:00:00.100Z", "preparing", 0),
    Step("2026-11-24T06:00:01.000Z", "testing", 0),
    Step("2026-11-24T06:00:02.000Z", "shifting", 10),
    Step("2026-11-24T06:00:02.050Z", "baking", 10),
    Step("2026-11-24T06:00:09.000Z", "withdrawing", 0, "alarm: 12% of 100 requests failed"),
]


def settings_of(**environ: str) -> TraceSettings:
    found = TraceSettings.of({**ENDPOINT, **environ})
    assert found is not None
    return found


def exported(spans: Iterable[Span], **attributes: str) -> list[tuple[dict[str, str], trace_pb2.Span]]:
    """The spans as a collector reads them, each with the attributes of its resource."""
    return spans_of(encode(((("shop", 4, "prod"), one) for one in spans), attributes))


@pytest.mark.parametrize(
    "environ", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {**ENDPOINT, "OTEL_SDK_DISABLED": "true"}]
)
def test_nothing_is_exported_without_an_endpoint(environ: dict[str, str]) -> None:
    # a variable of another program is not checked then
    assert TraceSettings.of({**environ, "OTEL_EXPORTER_OTLP_TIMEOUT": "never"}) is None


@pytest.mark.parametrize(
    ("endpoint", "found"),
    [
        # OTLP exporter, "Endpoint URLs for OTLP/HTTP", examples 1 and 3
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/mycollector/", "http://collector:4318/mycollector/v1/traces"),
        ("https://collector.example.com", "https://collector.example.com/v1/traces"),
        ("http://[::1]/otlp", "http://[::1]/otlp/v1/traces"),
    ],
)
def test_the_endpoint_is_the_base_of_the_url_for_traces(endpoint: str, found: str) -> None:
    assert settings_of(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint).url.geturl() == found


def test_headers_and_attributes_are_decoded_and_headers_are_not_printed() -> None:
    settings = settings_of(
        OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{SECRET}, x-team=a",
        OTEL_RESOURCE_ATTRIBUTES="service.name=given,host.name=caf%C3%A9",
        OTEL_SERVICE_NAME="shop",
    )
    assert settings.headers == {"authorization": f"Bearer {SECRET}", "x-team": "a"}
    # "If service.name is also provided in OTEL_RESOURCE_ATTRIBUTES, then OTEL_SERVICE_NAME takes precedence"
    assert settings.attributes == {"service.name": "shop", "host.name": "café"}
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"collector:4318/{SECRET}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:{SECRET}@collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://collector:4318/ {SECRET}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://collector:99999/{SECRET}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"grpc://collector:4318/{SECRET}"),
        (HEADERS, SECRET),
        (HEADERS, f"x-key={SECRET}%0D%0Aevil: 1"),
        (HEADERS, f"x-key={SECRET}\r\nevil: 1"),
        (HEADERS, f"content-length={SECRET}"),
        (HEADERS, f"%48ost={SECRET}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://collector\n:4318/{SECRET}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://collector:4318/?key={SECRET}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://[::{SECRET}]:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://:4318/{SECRET}"),
        # os.environ has bytes that are not UTF-8 as lone surrogates, which no JSON can have
        ("OTEL_RESOURCE_ATTRIBUTES", f"host.name={SECRET}\udcff"),
        ("OTEL_SERVICE_NAME", f"{SECRET}\udcff"),
        (HEADERS, f"bad name={SECRET}"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", SECRET),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", SECRET),
        ("OTEL_RESOURCE_ATTRIBUTES", SECRET),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
    ],
)
def test_a_wrong_value_is_refused_by_its_variables_name_alone(variable: str, value: str) -> None:
    with pytest.raises(MachineError, match=variable) as refused:
        settings_of(**{variable: value})
    assert SECRET not in f"{refused.value.message}{refused.value.hint}"


def test_a_rollout_is_one_trace_with_a_span_for_each_step() -> None:
    found = exported(rollout_spans(ROLLOUT, STEPS, "shop", "1a2b3c"), **{"host.name": "vm"})
    assert {span.trace_id for _, span in found} == {found[0][1].trace_id}
    assert len({span.span_id for _, span in found}) == 6
    assert found[0][0] == {
        "service.name": "shop",
        "service.version": "4",
        "deployment.environment.name": "prod",
        "host.name": "vm",
    }
    root, *children = (span for _, span in found)
    assert (root.name, root.kind, root.parent_span_id) == ("deploy prod", trace_pb2.Span.SPAN_KIND_INTERNAL, b"")
    assert {one.parent_span_id for one in children} == {root.span_id}
    assert (root.end_time_unix_nano - root.start_time_unix_nano) == 9_500_000_000
    assert root.start_time_unix_nano == 1_795_500_000 * 10**9
    assert [(one.name, (one.end_time_unix_nano - one.start_time_unix_nano) // 10**6) for one in children] == [
        ("preparing", 900), ("testing", 1000), ("shifting", 50), ("baking", 6950), ("withdrawing", 500)
    ]  # fmt: skip
    assert facts_of(root) == {
        "deployment.id": "7",
        "deployment.name": "deploy shop",
        "deployment.status": "failed",
        "vcs.ref.head.revision": "1a2b3c",
        "error.type": "rolled_back",
        "hitless.reason": ROLLOUT.reason,
        "hitless.strategy": "Canary10Percent5Minutes",
        "hitless.previous_release": 3,
    }
    failed = [one for one in (root, *children) if one.status.code == trace_pb2.Status.STATUS_CODE_ERROR]
    assert [(one.name, one.status.message) for one in failed] == [
        ("deploy prod", ROLLOUT.reason),
        ("baking", ROLLOUT.reason),
    ]


@pytest.mark.parametrize(
    ("outcome", "status"), [("live", "succeeded"), ("superseded", "superseded"), ("aborted", "aborted")]
)
def test_a_rollout_that_did_not_fail_has_no_error(outcome: str, status: str) -> None:
    spans = rollout_spans(replace(ROLLOUT, outcome=outcome, reason="why"), STEPS[:-1], "shop", None)
    root, *children = (span for _, span in exported(spans))
    assert {one.status.code for one in (root, *children)} == {trace_pb2.Status.STATUS_CODE_UNSET}
    assert facts_of(root)["deployment.status"] == status
    assert "error.type" not in facts_of(root)


def test_a_clock_that_was_set_back_makes_no_span_of_negative_length() -> None:
    spans = rollout_spans(replace(ROLLOUT, ended_at="2026-11-24T05:00:00.000Z"), STEPS, "shop", None)
    for _, span in exported(spans):
        assert span.end_time_unix_nano >= span.start_time_unix_nano


def line(traceparent: str, **other: Any) -> AccessLine:
    known = AccessLine(
        at="2026-11-24T06:00:01.500Z", method="GET", path="/zones/europe", query="secret=1", status=200,
        duration_ms=250, bytes=120, release=4, shielded=False, request="0af76519-16cd-43dd-8448-eb211c80319c",
        cut_off=False, traceparent=traceparent,
    )  # fmt: skip
    return structs.replace(known, **other)


@pytest.mark.parametrize(
    "valid",
    [
        PARENT,
        # Trace Context, 4.: "the parser … MUST … accept a version higher than it supports" if the rest can be parsed
        "cc" + PARENT[2:],
        "cc" + PARENT[2:] + "-what-the-future-will-be-like",
    ],
)
def test_a_sampled_requests_span_is_a_child_of_the_clients(valid: str) -> None:
    assert request_ids(line(valid), 0) == (PARENT[3:35], "0af7651916cd43dd", PARENT[36:52])
    assert request_ids(line(valid[:53] + "00" + valid[55:]), 0) is None, "the client did not sample it"


@pytest.mark.parametrize(
    "invalid",
    [
        # cases of test_traceparent_… in https://github.com/w3c/trace-context/blob/main/test/test.py
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        "00-.bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-.1",
        "nonsense",
    ],
)
def test_an_invalid_traceparent_counts_as_none_so_the_ratio_decides(invalid: str) -> None:
    own = ("0af7651916cd43dd8448eb211c80319c", "0af7651916cd43dd", "")
    assert request_ids(line(invalid), 0xEB211C80319C) == own
    assert request_ids(line(invalid), 0xEB211C80319D) is None


@pytest.mark.parametrize("none", [line(""), line(PARENT, request="")])
def test_a_request_that_was_not_traced_has_no_span(none: AccessLine) -> None:
    assert request_ids(none, 0) is None


def test_the_gateways_own_traceparent_names_the_root_span() -> None:
    own = "00-0af7651916cd43dd8448eb211c80319c-0af7651916cd43dd-01"
    assert request_ids(line(own), 0) == (own[3:35], own[36:52], "")


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        ({"status": 200}, None),
        # HTTP spans, Status: "4xx range span status MUST be left unset in case of SpanKind.SERVER"
        ({"status": 404}, None),
        ({"status": 502}, "502"),
        ({"status": 200, "cut_off": True}, "cut_off"),
    ],
)
def test_a_requests_span_has_the_attributes_of_an_http_server(ended: dict[str, Any], error: str | None) -> None:
    one = line(PARENT, **ended)
    ids = request_ids(one, 0)
    assert ids is not None
    ((_, span),) = exported([request_span(one, ids, "https", "api", "GET /zones/{zone}")])
    assert (span.name, span.kind) == ("GET /zones/{zone}", trace_pb2.Span.SPAN_KIND_SERVER)
    assert span.end_time_unix_nano == 1_795_500_001_500_000_000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 250_000_000
    assert span.parent_span_id.hex() == PARENT[36:52]
    facts = facts_of(span)
    assert facts.pop("error.type", None) == error
    assert span.status.code == (trace_pb2.Status.STATUS_CODE_ERROR if error else trace_pb2.Status.STATUS_CODE_UNSET)
    assert facts == {
        "http.request.method": "GET",
        "http.response.status_code": ended["status"],
        "http.route": "/zones/{zone}",
        "url.path": "/zones/europe",
        "url.scheme": "https",
        "hitless.function": "api",
        "hitless.request_id": one.request,
        "hitless.shielded": "false",
    }


def test_a_request_without_a_route_is_named_by_its_method_alone() -> None:
    # "Instrumentation MUST NOT default to using URI path as a {target}" (HTTP spans, Name)
    span = request_span(line(PARENT), ("1" * 32, "1" * 16, ""), "http", None, None)
    assert span.name == "GET"
