"""The errors that clients can get, all in one JSON shape: `{"error": {"code", "message", "details"}}`."""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar


class ApiError(Exception):
    """An error response. `code` is for programs and never changes; `message` is for people."""

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
    """The function has no route for the path and method."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_route"
