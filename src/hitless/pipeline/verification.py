"""After a rollout: the stage's smoke requests once more, as a client sends them, to the stage's own address."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

from hitless.service.model import SmokeRequest, StageSettings

DEADLINE_S = 10.0


def verify_live(url: str, settings: StageSettings, release: int) -> list[str]:
    """What is wrong, one sentence each; blocking."""
    return [fault for request in settings.smoke if (fault := _ask(url, request, release))]


def _ask(url: str, request: SmokeRequest, release: int) -> str | None:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port, timeout=DEADLINE_S)
    name = f"{request.method} {request.path}"
    try:
        connection.request(request.method, request.path, request.body, dict(request.headers))
        answer = connection.getresponse()
        answer.read()
        named = answer.getheader("x-hitless-release")
    except (OSError, http.client.HTTPException) as error:
        return f"{name} got no answer: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    if answer.status != request.status:
        return f"{name} answered {answer.status} instead of {request.status}"
    if named is not None and named != str(release):
        return f"{name} was answered by release {named} instead of {release}"
    return None
