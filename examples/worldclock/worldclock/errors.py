"""Every error that a client may see, in the one JSON shape of the API: `{"error": {"code", "message", "details"}}`.

An exception that is none of these is a defect: it is logged and leaves the function, so that the platform counts it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar


class ApiError(Exception):
    """An answer other than success. `code` is for machines and never changes; `message` is for people."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def to_json(self) -> dict[str, object]:
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}


class InvalidRequest(ApiError):
    """A field of the request is missing, of the wrong type, or outside what is allowed."""

    status = HTTPStatus.BAD_REQUEST
    code = "invalid_request"

    def __init__(self, problem: str, field: str = "") -> None:
        super().__init__(f"{field}: {problem}" if field else problem, field=field or None, problem=problem)
        self.problem = problem
        self.field = field

    def inside(self, name: str) -> InvalidRequest:
        """The same problem, seen from the object or list that holds the field under this name."""
        separator = "." if self.field and not self.field.startswith("[") else ""
        return InvalidRequest(self.problem, f"{name}{separator}{self.field}")


class UnknownZone(ApiError):
    """The path names a time zone that the IANA database does not have."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_zone"


class UnknownRoute(ApiError):
    """The function was called for a path or method that it does not answer."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_route"


class NonexistentTime(ApiError):
    """A local time that no clock in that zone ever shows: it is skipped when the clocks go forward."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "nonexistent_time"


class MissingOffset(ApiError):
    """An instant without an offset, and no zone whose clocks show it."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "missing_offset"
