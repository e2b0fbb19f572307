"""Binary media types: which bodies come and go as bytes. The rules on Accept are in tests/conformance."""

from __future__ import annotations

import pytest

from hitless.worker.binary import BinaryMediaTypes, render_text
from hitless.worker.event import EventBuilder
from hitless.worker.request import Request
from hitless.worker.response import render
from tests.unit.test_worker_event import ID, NOW, spec

pytestmark = pytest.mark.unit


def asked(*headers: tuple[bytes, bytes], body: bytes = b"") -> Request:
    return Request("POST", "/files/x", list(headers), body)


@pytest.mark.parametrize(
    ("types", "content_type", "binary"),
    [
        (("image/png",), b"image/png", True),
        (("image/png",), b"Image/PNG; q=1", True),
        (("image/png",), b"image/pngx", False),
        (("image/*",), b"image/jpeg", True),
        (("image/*",), b"imagex/jpeg", False),
        (("*/*",), b"text/plain", True),
        (("application/json",), None, True),
        (("image/png",), None, False),
    ],
)
def test_the_content_type_decides_whether_a_request_is_binary(
    types: tuple[str, ...], content_type: bytes | None, binary: bool
) -> None:
    headers = ((b"Content-Type", content_type),) if content_type else ()
    assert BinaryMediaTypes(types).takes(asked(*headers)) is binary
    event = EventBuilder(spec(binary_media_types=types)).build(asked(*headers, body=b"{}"), ID, NOW)
    assert event
    assert (event["body"], event["isBase64Encoded"]) == (("e30=", True) if binary else ("{}", False))


def test_the_first_type_of_accept_decides_whether_a_base64_body_is_decoded() -> None:
    builder = EventBuilder(spec(binary_media_types=("image/png",)))
    for accept, chosen in ((b"image/png,text/html", render), (b"text/html,image/png", render_text)):
        event = builder.build(asked((b"Accept", accept)), ID, NOW)
        assert event
        assert event["body"] is None
        assert builder.flavour.render is chosen
    result = {"statusCode": 200, "body": "e30=", "isBase64Encoded": True}
    assert render_text(result, head_only=False, extra="")[1].endswith(b"\r\n\r\ne30=")
