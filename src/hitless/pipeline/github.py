"""GitHub's webhooks: whether one is genuine, and what it asks for. Pure.

By docs.github.com/webhooks: `X-Hub-Signature-256: sha256=HEX` is the HMAC of the body by the shared secret. A delivery
is only a hint to look: what is fetched is what the remote holds now, so that one that is sent again starts nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hitless.errors import UsageError

MAX_BODY_BYTES = 25 * 1024 * 1024
"""GitHub's own bound on a payload."""
_BRANCH = re.compile(r"(?!-)(?!.*(?:\.\.|//|@\{|\.lock$|/$|\.$))[^\x00-\x20~^:?*\[\\\x7f]{1,200}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}")
_PULL_ACTIONS = ("opened", "synchronize", "reopened")


@dataclass(frozen=True, slots=True)
class Wanted:
    """`ref` of the remote is to be fetched into `branch` here; `closed`: the branch goes instead."""

    repository: str
    ref: str
    branch: str
    closed: bool = False


def is_genuine(secret: bytes, body: bytes, signature: str | None) -> bool:
    """Whether whoever signed the body knows the secret."""
    expected = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    return bool(secret) and hmac.compare_digest(expected.encode(), (signature or "").encode())


def read_event(event: str, body: bytes) -> Wanted | None:
    """What a genuine delivery asks for; None for what is of no concern here. Raises UsageError for a malformed one."""
    if event not in ("push", "pull_request"):
        return None
    try:
        document = json.loads(body)
        repository = _matched(_REPOSITORY, document["repository"]["full_name"])
        return _push(document, repository) if event == "push" else _pull(document, repository)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"the delivery is no {event} of GitHub's: {error!r}", hint="see the webhook's settings"
        ) from error


def _push(document: Mapping[str, Any], repository: str) -> Wanted | None:
    ref = str(document["ref"])
    if not ref.startswith("refs/heads/"):
        return None
    branch = _matched(_BRANCH, ref.removeprefix("refs/heads/"))
    return Wanted(repository, ref, branch, closed=bool(document.get("deleted")))


def _pull(document: Mapping[str, Any], repository: str) -> Wanted | None:
    """Of the repository itself only: a stranger's code is not run unasked."""
    pull = document["pull_request"]
    number = int(document["number"])
    if (pull["head"]["repo"] or {}).get("full_name") != repository:
        return None
    closed = document["action"] == "closed"
    if not closed and document["action"] not in _PULL_ACTIONS:
        return None
    return Wanted(repository, f"refs/pull/{number}/head", f"pull/{number}", closed=closed)


def _matched(pattern: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"{str(text)[:100]!r} is not a name that is taken")
    return text


def status_of(run: Mapping[str, Any]) -> dict[str, str]:
    """A commit's status for a run, by docs.github.com/rest/commits/statuses."""
    state = {"succeeded": "success", "queued": "pending", "running": "pending", "waiting_for_approval": "pending"}
    said = f"run {run['run']}: {run['state'].replace('_', ' ')}" + (f": {run['reason']}" if run["reason"] else "")
    context = f"hitless/{run['stage'] or 'tests'}"
    return {"state": state.get(run["state"], "failure"), "description": said[:140], "context": context}
