"""Parses and formats `HOST:PORT`, a stage's listen address in `serverless.yml` and on the command line."""

from __future__ import annotations

import ipaddress
import re

FIRST_PORT = 8080
DEFAULT_HOST = "127.0.0.1"
ALL_INTERFACES = "0.0.0.0"

_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


def parse_listen(text: str) -> tuple[str, int]:
    """`127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`, `:8080` (all IPv4 interfaces) → host without brackets, port.

    Port 0 means any free port. Raises ValueError, whose text says what is wrong.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal() and len(port) <= 5):
        raise ValueError(f"{text!r} is not HOST:PORT")
    if int(port) > 65535:
        raise ValueError(f"port {port} is above 65535")
    return _host(host, text), int(port)


def format_listen(host: str, port: int) -> str:
    """The inverse of `parse_listen`; also the authority of a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(host: str, text: str) -> str:
    if not host:
        return ALL_INTERFACES
    try:
        if host.startswith("[") and host.endswith("]"):
            return str(ipaddress.IPv6Address(host[1:-1]))
        if ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address needs brackets, [::1]:8080")
        if host.replace(".", "").isdigit():
            return str(ipaddress.IPv4Address(host))
    except ipaddress.AddressValueError as error:
        raise ValueError(f"{text!r}: {host} is not an address") from error
    if not _NAME.fullmatch(host):
        raise ValueError(f"{text!r}: {host} is neither an address nor a host name")
    return host
