"""After a rollout: the stage's smoke requests once more, as a client sends them, to the stage's own address."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

from hitless.service.model import SmokeRequest, StageSettings

DEADLINE_S = 10.0


def verify_live(url: str, settings: StageSettings, release: int | None) -> list[str]:
    """What is wrong, one sentence each; blocking. `release` is the one that answers must name, if they name any."""
    return [fault for request in settings.smoke if (fault := _ask(url, request, release))]


def reachable(url: str) -> bool:
    """Whether the address takes a connection from here; blocking."""
    where = urlsplit(url)
    port = where.port or (443 if where.scheme == "https" else 80)
    try:
        with socket.create_connection((where.hostname or "127.0.0.1", port), timeout=DEADLINE_S):
            return True
    except OSError:
        return False


def _ask(url: str, request: SmokeRequest, release: int | None) -> str | None:
    where = urlsplit(url)
    host, name = where.hostname or "127.0.0.1", f"{request.method} {request.path}"
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, where.port, timeout=DEADLINE_S)
    try:
        path = where.path.rstrip("/") + request.path
        connection.request(request.method, path, request.body, dict(request.headers))
        answer = connection.getresponse()
        answer.read()
        named = answer.getheader("x-hitless-release")
    except (OSError, http.client.HTTPException) as error:
        return f"{name} got no answer: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    if answer.status != request.status:
        return f"{name} answered {answer.status} instead of {request.status}"
    if release is not None and named is not None and named != str(release):
        return f"{name} was answered by release {named} instead of {release}"
    return None
