"""Runs one worker's requests: guard, event, context, response, log lines and counts of each.

Order matters: the id is in the stats page before the handler is called, and the slot stays busy until the kernel has
the response, so a death in between is charged to this request. A response is counted before it is sent.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from hitless.worker.authorizer import Authorizers, InvokedEvents
from hitless.worker.context import ContextFactory
from hitless.worker.event import REST, ApiFlavour, Event, extended_id
from hitless.worker.guard import RetryGuard
from hitless.worker.handler import Handler, MarshalError, failure_of, marshalled
from hitless.worker.http_api import event_builder
from hitless.worker.layout import BUCKETS_AT, HELD_ABOVE_BYTES, LONGEST_ID, SlotField, StatsPage, bucket_of, entry_of
from hitless.worker.log import LogFile
from hitless.worker.request import INVOKE, REFUSALS, Request
from hitless.worker.response import CLOSE, MalformedResponse, api_gateway_error, http_response, render
from hitless.worker.spec import PoolSpec
from hitless.worker.trace import TraceVariable

# Plain numbers, because eight lookups of enumeration members a request would take as long as the page itself.
_REQUESTS: Final = int(SlotField.REQUESTS)
_CLASS_0XX: Final = int(SlotField.CLASS_1XX) - 1
_LATENCY_SUM_US: Final = int(SlotField.LATENCY_SUM_US)
_START_LOGGED: Final = int(SlotField.START_LOGGED)
_BUSY_SINCE: Final = int(SlotField.BUSY_SINCE)
_LARGE: Final = int(SlotField.LARGE)
_MEMORY_EVERY: Final = 64
_HUNDREDTHS: Final = [f".{number:02}" for number in range(100)]
_NOW: Final = time.time
_MONOTONIC_NS: Final = time.monotonic_ns
"""Compiled code finds a constant faster than a module's attribute. A handler that patches `time` does not matter."""
_RSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024


class RequestRunner:
    """Responds to one request after another. `send` returns when the kernel has the first part of the response."""

    def __init__(
        self,
        spec: PoolSpec,
        handler: Handler,
        page: StatsPage,
        slot: int,
        log: LogFile,
        end_partial_lines: Callable[[], None],
        init_ms: float,
        hop: str = "",
    ) -> None:
        self._spec, self._handler, self._page, self._slot = spec, handler, page, slot
        self._fields = page.slot(slot)
        self._counts: list[int] = self._fields.tolist()
        """The fields that `_count` writes. Reading them from the page takes longer than the rest of it."""
        self._log = log
        self._end_partial_lines = end_partial_lines
        self._init_text = f"Init Duration: {init_ms:.2f} ms\t"
        self._guard = RetryGuard(page)
        self._events, self._invoked = event_builder(spec), InvokedEvents(spec)
        self._authorizers = Authorizers(spec, hop)
        self._contexts = ContextFactory(spec)
        self._release = f"x-hitless-release: {spec.release}\r\n" if spec.release_header else ""
        self._trace = TraceVariable()
        self._served = 0
        self._memory_text = ""

    def respond(self, request: Request, last: bool, send: Callable[[bytes], None]) -> None:
        """Respond to one request, whatever happens. `last`: the response says that the connection ends."""
        began_ns = _MONOTONIC_NS()
        end = CLOSE if last else ""
        if request.refusal:
            send(api_gateway_error(request.refusal, REFUSALS[request.refusal], self._release + end))
        elif b"x-hl-probe" in request.internal:
            send(http_response(204, b"", end))
        else:
            given = request.internal.get(b"x-hl-id", b"")
            request_id = given.decode("latin-1") if 0 < len(given) <= LONGEST_ID else str(uuid.uuid4())
            self._respond(request, request_id, began_ns, end, send)

    def _respond(
        self, request: Request, request_id: str, began_ns: int, end: str, send: Callable[[bytes], None]
    ) -> None:
        entry = entry_of(request_id.encode("latin-1"))
        head = request.method == "HEAD"
        fields = self._fields
        events = self._invoked if request.method == INVOKE else self._events
        event = events.build(request, request_id, _NOW())
        api = events.flavour
        shown_id = extended_id(request_id) if api.extended_ids else request_id
        extra = f"{api.id_header}: {shown_id}\r\n{self._release}{end}"
        if event is None:
            send(events.respond(request, extra))
        elif self._guard.refuses(entry, request):
            fields[SlotField.REFUSED] += 1
            self._count(api.failed_status, began_ns)
            send(http_response(api.failed_status, api.failed_body.encode(), api.failed_lines + extra, head_only=head))
        elif (asked := events.route.authorizer) and (denial := self._authorizers.check(asked, event, request)):
            self._count(denial[0], began_ns)
            send(http_response(denial[0], denial[1].encode(), denial[2] + extra, head_only=head))
        else:
            if asked:
                began_ns = _MONOTONIC_NS()
            self._page.write_id(self._slot, entry)
            fields[_START_LOGGED] = 0
            fields[_BUSY_SINCE] = began_ns
            status, answer = self._run(event, api, request, request_id, began_ns, extra)
            took_ns = self._count(status, began_ns)
            send(answer)
            if len(answer) > HELD_ABOVE_BYTES:
                fields[_LARGE] += 1
            fields[_BUSY_SINCE] = 0
            self._report(request_id, took_ns)

    def _run(
        self, event: Event, api: ApiFlavour, request: Request, request_id: str, began_ns: int, extra: str
    ) -> tuple[int, bytes]:
        log, head, result = self._log, request.method == "HEAD", None
        error_body = api.failed_body
        log.start(request_id, self._contexts.version)
        try:
            if api.trace_header:
                self._trace.set(event["headers"][api.trace_header])
            result = self._handler(event, self._contexts.context(request_id, began_ns))
            if api is REST:  # as below, but without a call through an attribute
                return render(result, head_only=head, extra=extra)
            return api.render(result, head_only=head, extra=extra)
        except MalformedResponse as error:
            self.log_lines(_malformed(result, error))
            if b"x-hl-smoke" in request.internal and not (isinstance(result, dict) and "statusCode" in result):
                error_body = json.dumps({"no_response": str(error)})  # for the engine; clients cannot send this header
        except BaseException as raised:  # noqa: BLE001 - also SystemExit: the client gets its response and the worker lives on
            failure = failure_of(raised)
            self.log_lines(failure.log_text(request_id))
            if api.fail is not None:
                self._fields[SlotField.ERRORS] += 1
                status, body, lines = api.fail(failure)
                return status, http_response(status, body.encode(), lines + extra, head_only=head)
        self._fields[SlotField.ERRORS] += 1
        lines = api.failed_lines + extra
        return api.failed_status, http_response(api.failed_status, error_body.encode(), lines, head_only=head)

    def log_lines(self, text: str) -> None:
        """Write log lines of the current request."""
        if self._log.lines(text):
            self.start_was_logged()

    def start_was_logged(self) -> None:
        """Record that the START line is in the file, so that the zygote need not write it if this process dies."""
        self._fields[SlotField.START_LOGGED] = 1

    def _count(self, status: int, began_ns: int) -> int:
        took_ns = _MONOTONIC_NS() - began_ns
        took_us = took_ns // 1000
        self._add(_REQUESTS, 1)
        self._add(_CLASS_0XX + status // 100, 1)
        self._add(_LATENCY_SUM_US, took_us)
        self._add(BUCKETS_AT + bucket_of(took_us), 1)
        return took_ns

    def _add(self, field: int, more: int) -> None:
        value = self._counts[field] + more
        self._counts[field] = value
        self._fields[field] = value

    def _report(self, request_id: str, took_ns: int) -> None:
        if self._served % _MEMORY_EVERY == 0:
            self._memory_text = memory_text(self._spec.memory_mb, used_mb(self._handler))
        self._served += 1
        self._end_partial_lines()
        report = report_line(request_id, took_ns / 1e6, self._memory_text)
        if self._init_text:
            report, self._init_text = report + self._init_text, ""
        self._log.end(report)


def _malformed(result: object, error: MalformedResponse) -> str:
    """The log lines for a result that is not a response: on Lambda one that is not JSON fails in the runtime."""
    try:
        marshalled(result)
    except MarshalError as first:
        return failure_of(first).log_text()
    return f"[ERROR] Malformed Lambda proxy response: {error}"


def used_mb(handler: object) -> int:
    """The most memory that this process has taken; if the handler is a program, that of the program."""
    with suppress(OSError, IndexError):  # it has just ended
        if pid := getattr(handler, "pid", 0):
            return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES // 1048576


def memory_text(memory_mb: int, used_mb: int | None) -> str:
    """The end of a REPORT line. `used_mb` is None if it is unknown."""
    used = "" if used_mb is None else f"Max Memory Used: {used_mb} MB\t"
    return f"Memory Size: {memory_mb} MB\t{used}"


def report_line(request_id: str, took_ms: float, memory: str) -> str:
    """Lambda's REPORT line, ending with a tab. `memory`: from `memory_text`."""
    hundredths = int(took_ms * 100 + 0.5)
    billed = int(took_ms)
    billed += took_ms > billed
    # The digits from a list, because a format specification is slow when compiled.
    took = f"{hundredths // 100}{_HUNDREDTHS[hundredths % 100]}"
    return f"REPORT RequestId: {request_id}\tDuration: {took} ms\tBilled Duration: {billed} ms\t{memory}"
