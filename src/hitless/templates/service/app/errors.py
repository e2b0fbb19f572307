"""Every error that a client may see, in one JSON shape: `{"error": {"code", "message", "details"}}`."""

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
    """A field of the request is missing or wrong."""

    status = HTTPStatus.BAD_REQUEST
    code = "invalid_request"


class UnknownRoute(ApiError):
    """The function was called for a path or method that it does not answer."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_route"
