"""Turns a handler's result, in the format of API Gateway's proxy integration, into an HTTP/1.1 response.

API Gateway's rules: an object with no other keys than the five documented ones; `statusCode` defaults to 200; the body
is a string; header values are strings, numbers or booleans; `headers` and `multiValueHeaders` are merged, and a pair in
both is sent once. A result that breaks a rule is malformed (502), and so is a header that would split the response.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Iterator
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final

from hitless.worker.handler import MAX_RESULT_BYTES, marshalled

CLOSE_ABOVE_BYTES: Final = 100_000
"""The connection closes after a larger body. The kernel may not accept all of it at once (Unix sockets buffer some
200 kB). The process that sends the rest can only close the connection if no further request from HAProxy is on it.
"""
_ALWAYS_SMALL_CHARS: Final = MAX_RESULT_BYTES // 12  # a character takes at most 12 bytes in JSON
_KEYS: Final = frozenset({"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"})
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_SET_BY_WORKER: Final = frozenset(
    {"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}

_MAX_KNOWN_NAMES: Final = 1000
_KNOWN_NAMES: Final[set[str]] = set()
"""Header names that are known to be valid: most handlers send the same few."""

CLOSE: Final = "connection: close\r\n"
INTERNAL_ERROR: Final = '{"message": "Internal server error"}'


class MalformedResponse(Exception):
    """The handler's result breaks a rule of proxy integrations; the message says which one."""


def render(result: Any, *, head_only: bool, extra: str) -> tuple[int, bytes]:
    """Status and complete HTTP response for a result; `extra`: the worker's header lines. Raises MalformedResponse."""
    if not isinstance(result, dict):
        raise MalformedResponse(f"the handler returned {type(result).__name__}, not an object with statusCode and body")
    for key in result:
        if key not in _KEYS:
            unknown = ", ".join(map(repr, result.keys() - _KEYS))
            raise MalformedResponse(f"keys that API Gateway does not accept: {unknown}")
    status = _status(result.get("statusCode", 200))
    body = _body(result)
    headers = result.get("headers")
    multi = result.get("multiValueHeaders")
    lines = _single_lines(headers) if headers and not multi else "".join(_header_lines(headers, multi))
    if not lines.startswith("content-type:") and "\ncontent-type:" not in "\n" + lines.lower():
        lines += "content-type: application/json\r\n"
    return status, http_response(status, body, lines + extra, head_only=head_only)


def http_response(status: int, body: bytes, lines: str, *, head_only: bool = False) -> bytes:
    """One HTTP/1.1 response; `lines` are complete header lines."""
    first = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n"
    if status == 204 or status == 304:
        return _encoded(f"{first}{lines}date: {_date()}\r\n\r\n")
    if len(body) > CLOSE_ABOVE_BYTES and not head_only and CLOSE not in lines:
        lines += CLOSE
    head = _encoded(f"{first}{lines}date: {_date()}\r\ncontent-length: {len(body)}\r\n\r\n")
    return head if head_only else head + body


def _encoded(text: str) -> bytes:
    try:
        return text.encode()  # compiled code does this without looking up the codec
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def api_gateway_error(status: int, message: str, extra: str = "") -> bytes:
    """A response that API Gateway itself would give: `{"message": …}`."""
    body = json.dumps({"message": message}).encode()
    return http_response(status, body, f"content-type: application/json\r\n{extra}")


def _status(value: Any) -> int:
    if type(value) is not int and isinstance(value, str | Decimal) and re.fullmatch(r"[0-9]{3}", str(value)):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 200 <= value <= 599:
        raise MalformedResponse(f"statusCode {value!r} is not an HTTP status")
    return value


def _body(result: dict[Any, Any]) -> bytes:
    body = result.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise MalformedResponse(f"body is {type(body).__name__}, not a string")
    if len(body) > _ALWAYS_SMALL_CHARS and len(marshalled(result)) > MAX_RESULT_BYTES:
        raise MalformedResponse(f"the response is larger than Lambda's limit of {MAX_RESULT_BYTES} bytes")
    if not result.get("isBase64Encoded"):
        return _encoded(body)
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedResponse(f"isBase64Encoded is true, but the body is not base64: {error}") from error


def _single_lines(headers: Any) -> str:
    """The lines of `headers` without `multiValueHeaders`, which is what nearly every handler returns."""
    if not isinstance(headers, dict):
        raise MalformedResponse("headers and multiValueHeaders must be objects")
    lines = ""
    for name, value in headers.items():
        if value is not None:
            lines += _line(name, value)
    return lines


def _header_lines(headers: Any, multi: Any) -> Iterator[str]:
    if not isinstance(headers or {}, dict) or not isinstance(multi or {}, dict):
        raise MalformedResponse("headers and multiValueHeaders must be objects")
    seen: set[tuple[str, Any]] = set()
    for name, values in (multi or {}).items():
        if not isinstance(values, list | tuple):
            raise MalformedResponse(f"multiValueHeaders[{name!r}] is not a list")
        for value in values:
            yield _line(name, value)
            seen.add((name.lower(), value))
    for name, value in (headers or {}).items():
        if value is not None and not (seen and (str(name).lower(), value) in seen):
            yield _line(name, value)


def _line(name: Any, value: Any) -> str:
    if name not in _KNOWN_NAMES and _is_set_by_worker(name):
        return ""
    if type(value) is not str:
        value = _text_of(name, value)
    if "\r" in value or "\n" in value or "\0" in value:
        raise MalformedResponse(f"header {name} has a line break or a NUL byte in its value")
    return f"{name}: {value}\r\n"


def _is_set_by_worker(name: Any) -> bool:
    """Whether the worker sets this header itself. Caches valid names. Raises MalformedResponse for invalid ones."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise MalformedResponse(f"{name!r} is not a header name")
    if name.lower() in _SET_BY_WORKER:
        return True
    if len(_KNOWN_NAMES) < _MAX_KNOWN_NAMES:
        _KNOWN_NAMES.add(name)
    return False


def _text_of(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    if not isinstance(value, str):
        raise MalformedResponse(f"header {name} has a value of type {type(value).__name__}, not a string")
    return value


class _DateCache:
    def __init__(self) -> None:
        self.second, self.text = -1, ""


_NOW: Final = time.time
_DATES: Final = _DateCache()


def _date() -> str:
    second, dates = int(_NOW()), _DATES
    if second != dates.second:
        dates.second = second
        days, months = "MonTueWedThuFriSatSun", "JanFebMarAprMayJunJulAugSepOctNovDec"
        at = time.gmtime(second)
        day, month = days[at.tm_wday * 3 : at.tm_wday * 3 + 3], months[at.tm_mon * 3 - 3 : at.tm_mon * 3]
        dates.text = (
            f"{day}, {at.tm_mday:02d} {month} {at.tm_year} {at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} GMT"
        )
    return dates.text
