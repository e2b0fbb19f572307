"""HOST:PORT."""

from __future__ import annotations

import pytest

from hitless.service.listen import format_listen, parse_listen

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:8080", ("::1", 8080)),
        ("[::]:80", ("::", 80)),
        (":8080", ("0.0.0.0", 8080)),
        ("api.example.com:65535", ("api.example.com", 65535)),
    ],
)
def test_listen_addresses_are_parsed(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address
    assert parse_listen(format_listen(*address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0:80"),
        *("999.0.0.1:80", "::1:8080", "[::1:8080", "[localhost]:80", "a b:80", "-a:80", "127.0.0.1:٨٠", "h:000080"),
    ],
)
def test_an_invalid_listen_address_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|port|address"):
        parse_listen(text)
