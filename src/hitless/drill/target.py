"""Where the load goes: the URL that the user or the engine named, taken apart, and its addresses."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from hitless.errors import MachineError, UsageError


@dataclass(frozen=True, slots=True)
class Target:
    """An http or https URL. `base_path` (`/dev`, or empty) stands before each request's path."""

    url: str
    tls: bool
    host: str
    port: int
    base_path: str

    @property
    def host_header(self) -> str:
        """Host and, unless it is the scheme's own, port."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"


def parse_target(url: str) -> Target:
    """The target that a URL names. Raises UsageError."""
    hint = "name the service by its URL, as http://127.0.0.1:8080"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--target {url}: {error}", hint=hint) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--target {url}: not an http or https URL", hint=hint)
    if parts.username or parts.query or parts.fragment:
        raise UsageError(f"--target {parts.hostname}: takes no user, query or fragment", hint=hint)
    tls = parts.scheme == "https"
    return Target(url.rstrip("/"), tls, parts.hostname, port or (443 if tls else 80), parts.path.rstrip("/"))


def resolve(target: Target) -> tuple[tuple[str, int], ...]:
    """The addresses of the first family that takes a connection. Raises MachineError if there is none.

    Asked once: a drill of hours against a name whose addresses change keeps to those of its start.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise MachineError(f"{target.host}: cannot be resolved: {error}", hint="is the name right?") from error
    refusal: OSError | None = None
    for family, _, _, _, address in found:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.settimeout(5)
                probe.connect(address)
        except OSError as error:
            refusal = error
            continue
        return tuple(dict.fromkeys((str(a[0]), int(a[1])) for f, _, _, _, a in found if f == family))
    raise MachineError(
        f"{target.url} takes no connection: {refusal}", hint="is it running? `hitless status` and `hitless up` tell"
    )
